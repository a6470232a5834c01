"""What goes into a bundle, and that an unpacked one is a checkout with a full cache."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvstrata.artifacts import release, wheelhouse
from kvstrata.artifacts.lock import read_lock
from kvstrata.bundle import cli, collect, controller, sources
from kvstrata.bundle.collect import Wanted, gather
from kvstrata.bundle.sources import Source, checked
from kvstrata.bundle.standalone import BundleError

LOCK = """schema: 1
wheelhouses:
  cpu: {lock: locks/cpu.txt, python: "3.11", platforms: [manylinux_2_28]}
kvrocks: {version: "2.10.1", kind: file, url: null, sha256: null}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a checkout under git, with one file that git does not know."""
    root = tmp_path / "checkout"
    for name, text in {
        "artifacts.lock.yml": LOCK,
        "locks/cpu.txt": f"tiny==1.0 --hash=sha256:{'0' * 64}\n",
        "roles/one/tasks/main.yml": "---\n",
        "src/kvstrata/__init__.py": "",
        "src/kvstrata/node/a.py": "A = 1\n",
        "ignored.txt": "not in git\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "scripts").mkdir()
    (root / "scripts" / "run.sh").write_text("#!/bin/sh\n")
    (root / "scripts" / "run.sh").chmod(0o755)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "rm", "--quiet", "--cached", "ignored.txt")
    git(root, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "--quiet", "--message", "First")
    return root


@pytest.fixture
def cache(tmp_path: Path, checkout: Path) -> Path:
    """Make a cache that has the wheelhouse, the node package and a Kvrocks."""
    root = tmp_path / "cache"
    house = read_lock(checkout / "artifacts.lock.yml").wheelhouse("cpu")
    wheels = wheelhouse.folder(house, root)
    package = root / "package" / release.release_id(house, checkout)
    for folder in (wheels, package, root / "bin"):
        folder.mkdir(parents=True)
    (wheels / "tiny-1.0-py3-none-any.whl").write_text("wheel")
    (wheels / wheelhouse.COMPLETE).touch()
    (package / "kvstrata-0.1.0-py3-none-any.whl").write_text("package")
    (root / "bin" / "kvrocks").write_text("binary")
    (root / "bin" / "kvrocks").chmod(0o755)
    return root


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


def wanted(**more: object) -> Wanted:
    return Wanted(**{"wheelhouses": ["cpu"], "controller": False, **more})  # type: ignore[arg-type]


def names(files: list[Source]) -> list[str]:
    return [source.path for source in files]


def test_the_project_is_what_git_knows_as_it_is_on_disk(checkout: Path) -> None:
    assert "project/scripts/run.sh" in names(sources.project(checkout))
    assert "project/ignored.txt" not in names(sources.project(checkout))
    assert sources.state(checkout)["changed"] is False
    (checkout / "locks" / "cpu.txt").write_text("# changed\n")
    assert sources.state(checkout)["changed"] is True
    (checkout / "locks" / "cpu.txt").unlink()
    with pytest.raises(BundleError, match=r"locks/cpu\.txt deleted and not committed"):
        sources.project(checkout)


def test_a_checkout_without_git_gives_its_files_but_not_what_tools_left(checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / "git")
    (checkout / "src" / "kvstrata" / "__pycache__").mkdir()
    (checkout / "src" / "kvstrata" / "__pycache__" / "a.pyc").touch()
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "x").touch()
    found = names(sources.project(checkout))
    assert "project/ignored.txt" in found
    assert not [name for name in found if ".venv" in name or "__pycache__" in name]
    assert sources.state(checkout) == {"commit": None, "changed": None}


def test_what_is_not_in_it_is_said(checkout: Path, cache: Path) -> None:
    (cache / "bin" / "kvrocks").unlink()
    found = gather(wanted(), checkout, cache)
    assert [line.split(":")[0] for line in found.not_in_it] == ["Kvrocks", "the wheels of the controller"]
    about = found.about(checkout)
    assert about["holds"]["wheelhouses"]["cpu"]["python"] == "3.11"
    assert set(collect.NEVER_IN_IT) < set(about["not_in_it"])


def test_models_keep_their_names_and_links_are_followed(checkout: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("weights")
    folder = tmp_path / "Llama-1B"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    found = gather(wanted(models=[folder]), checkout, cache)
    assert {"models/Llama-1B/config.json", "models/Llama-1B/model.safetensors"} < set(names(found.files))
    with pytest.raises(BundleError, match=r"no config\.json there; allowed: the folder of a model"):
        gather(wanted(models=[tmp_path]), checkout, cache)
    with pytest.raises(BundleError, match=r"are both to be models/Llama-1B/config\.json"):
        gather(wanted(models=[folder, folder]), checkout, cache)


def test_a_kvrocks_of_ones_own_is_where_the_cache_has_it(checkout: Path, cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / "kvrocks-mine"
    mine.write_text("mine")
    found = gather(wanted(kvrocks=mine), checkout, cache)
    assert Source("cache/bin/kvrocks", mine) in found.files
    with pytest.raises(BundleError, match=r"--kvrocks .*missing: no such file"):
        gather(wanted(kvrocks=tmp_path / "missing"), checkout, cache)


def test_an_unknown_wheelhouse_is_refused(checkout: Path, cache: Path) -> None:
    with pytest.raises(BundleError, match=r"runtime_wheelhouse is 'rocm'; artifacts\.lock\.yml has: cpu"):
        gather(wanted(wheelhouses=["rocm"]), checkout, cache)


def test_a_path_that_would_not_be_unpacked_is_refused_when_made() -> None:
    with pytest.raises(BundleError, match="has a backslash or a control character"):
        checked([Source("project/a\nb", Path("a"))])


def test_an_unpacked_bundle_is_a_checkout_whose_cache_has_everything(
    checkout: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PROJECT", checkout)
    monkeypatch.setenv("KVSTRATA_CACHE", str(cache))
    bundle, dest, runner = tmp_path / "bundle", tmp_path / "dest", CliRunner()
    done = runner.invoke(cli.app, ["make", str(bundle), "--wheelhouse", "cpu", "--no-controller", "--part-size", "2M"])
    assert done.exit_code == 0, done.output
    assert "NOT in it: the wheels of the controller" in done.output
    digest = done.output.split("--expect ")[1].strip()
    assert json.loads((bundle / "manifest.json").read_text())["project"]["changed"] is False
    done = runner.invoke(cli.app, ["verify", str(bundle), "--expect", digest])
    assert done.exit_code == 0, done.output
    done = runner.invoke(cli.app, ["unpack", str(bundle), str(dest), "--expect", digest])
    assert done.exit_code == 0, done.output
    assert (dest / "project" / "scripts" / "run.sh").stat().st_mode & 0o777 == 0o755

    def refuse(*words: object, **more: object) -> None:
        raise AssertionError(f"something was to be downloaded or built: {words}")

    monkeypatch.setattr(subprocess, "run", refuse)
    house = read_lock(dest / "project" / "artifacts.lock.yml").wheelhouse("cpu")
    prepared = release.prepare(house, dest / "project", dest / "cache")
    assert not prepared.changed
    assert prepared.id == release.release_id(house, checkout)
    assert Path(prepared.wheels).is_relative_to(dest)
    assert (dest / "cache" / "bin" / "kvrocks").stat().st_mode & 0o111


@pytest.mark.parametrize("given", ["60m", "1.5G", "", "-1", "M"])
def test_a_part_size_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["make", str(tmp_path / "b"), "--wheelhouse", "cpu", f"--part-size={given}"])
    assert done.exit_code == 1
    assert "allowed: a number of bytes, or with K, M or G, as 60M" in done.output


def test_the_wheels_of_the_controller_are_downloaded_once(
    checkout: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "uv.lock").write_text("version = 1\n")
    commands: list[list[str]] = []
    codes = [0, 1, 0, 0]

    def run(command: list[str], **more: object) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BundleError, match="pip download failed, see above; --no-controller"):
        controller.ensure(checkout, cache)
    folder = controller.ensure(checkout, cache)
    assert controller.ensure(checkout, cache) == folder
    assert [command[1:3] for command in commands] == [["export", "--quiet"], ["-m", "pip"]] * 2
    assert "--require-hashes" in commands[1]
