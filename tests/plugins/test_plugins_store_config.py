"""kvstrata_store_config and kvstrata_store_restart, with stores in this process and a systemctl of the test's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import run_module
from tests.plugins.resp import PASSWORD, Store

CONFIG = {"workers": "8", "dir": "/d0"}
# Answers `show` from the file `units`, and notes down every `restart`; one of a unit in `broken` fails.
SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
if [ "$1" = show ]; then cat "$here/units"; exit 0; fi
echo "$2" >> "$here/restarted"
if grep -qs "$2" "$here/broken"; then echo "Job for $2 failed" >&2; exit 1; fi
"""
JOURNALCTL = "#!/bin/sh\necho last words\n"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder with the commands of a node, where every store is running since now."""
    for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    run(tmp_path)
    return tmp_path


@pytest.fixture
def store() -> Iterator[Store]:
    with Store(config=CONFIG) as running:
        yield running


def run(node: Path, state: str = "active", drives: tuple[str, ...] = ("d0", "d1")) -> None:
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
    blocks = [
        f"Id=kvrocks@{drive}.service\nActiveState={state}\nExecMainStartTimestampMonotonic={now}" for drive in drives
    ]
    (node / "units").write_text("\n\n".join(blocks) + "\n")


def entry(node: Path, port: int, drive: str = "d0", **changes: Any) -> dict[str, Any]:
    """What the filter kvstrata_stores says of a store, whose configuration is CONFIG with `changes`."""
    password = changes.pop("password", PASSWORD)
    config = {"bind": "127.0.0.1", "port": str(port), **CONFIG, **changes}
    return {
        "drive": drive,
        "unit": f"kvrocks@{drive}.service",
        "host": "127.0.0.1",
        "port": port,
        "password": password,
        "path": str(node / f"{drive}.conf"),
        "conf": conf(config, password),
        "config": config,
        "live": ["workers", "rocksdb.enable_blob_files", "rocksdb.min_blob_size"],
        "drop_in": "",
        "drop_in_path": str(node / f"{drive}.service.d" / "affinity.conf"),
    }


def conf(config: dict[str, str], password: str = PASSWORD) -> str:
    return "# ours\n" + "".join(f"{name} {value}\n" for name, value in config.items()) + f'requirepass "{password}"\n'


def converged(node: Path, running: Store, drive: str = "d0") -> dict[str, Any]:
    """A store whose file is written and whose server runs with it."""
    found = entry(node, running.port, drive)
    Path(found["path"]).write_text(found["conf"])
    Path(found["path"]).chmod(0o640)
    running.config |= {"bind": "127.0.0.1", "port": str(running.port)}
    return found


def configure(node: Path, *stores: dict[str, Any], check_mode: bool = False, **args: Any) -> dict[str, Any]:
    return run_module("kvstrata_store_config", {"stores": list(stores), **args}, check_mode=check_mode, path=node)


def test_a_store_that_has_its_configuration_is_left_alone(node: Path, store: Store) -> None:
    result = configure(node, converged(node, store))
    assert (result["changed"], result["restart"], store.sets) == (False, {}, [])


def test_a_live_directive_is_set_and_written(node: Path, store: Store) -> None:
    converged(node, store)
    changed = entry(node, store.port, workers="4")
    result = configure(node, changed)
    assert (result["changed"], result["reloaded"], result["restart"]) == (True, {"d0": ["workers"]}, {})
    assert store.sets == [("workers", "4")]
    assert Path(changed["path"]).read_text() == changed["conf"]
    assert Path(changed["path"]).stat().st_mode & 0o777 == 0o640
    assert configure(node, changed)["changed"] is False


def test_check_mode_says_the_same_and_does_nothing(node: Path, store: Store) -> None:
    before = converged(node, store)["conf"]
    changed = entry(node, store.port, workers="4")
    result = configure(node, changed, check_mode=True)
    assert (result["changed"], result["reloaded"], result["restart"]) == (True, {"d0": ["workers"]}, {})
    assert store.sets == []
    assert Path(changed["path"]).read_text() == before


def test_what_somebody_set_by_hand_is_set_back(node: Path, store: Store) -> None:
    same = converged(node, store)
    store.config["workers"] = "2"
    result = configure(node, same)
    assert (result["changed"], result["reloaded"], result["written"]) == (True, {"d0": ["workers"]}, [])


def test_one_directive_that_needs_a_start_leaves_the_others_to_it(node: Path, store: Store) -> None:
    converged(node, store)
    result = configure(node, entry(node, store.port, workers="4", dir="/d1"))
    assert result["restart"] == {"d0": "dir changed"}
    assert store.sets == []


def test_a_directive_that_is_gone_needs_a_start(node: Path, store: Store) -> None:
    same = converged(node, store)
    Path(same["path"]).write_text(same["conf"] + "timeout 5\n")
    assert configure(node, same)["restart"] == {"d0": "timeout removed, the default comes with a start"}


def test_a_new_password_is_set_with_the_old_one_and_not_shown(node: Path, store: Store) -> None:
    converged(node, store)
    result = configure(node, entry(node, store.port, password="another-one"))
    assert (result["reloaded"], result["restart"]) == ({"d0": ["requirepass"]}, {})
    assert store.password == "another-one"
    assert "another-one" not in str(result)


def test_a_store_that_lets_nobody_in_needs_a_start(node: Path) -> None:
    with Store(config=CONFIG, password="of-somebody-else") as store:
        converged(node, store)
        result = configure(node, entry(node, store.port, workers="4"))
    assert result["restart"] == {"d0": "it does not answer"}


def test_what_the_server_refuses_to_set_needs_a_start(node: Path) -> None:
    with Store(config=CONFIG, refuses="workers") as store:
        converged(node, store)
        result = configure(node, entry(node, store.port, workers="4"))
    assert result["restart"] == {"d0": "workers changed, and CONFIG SET was refused (ReplyError)"}


@pytest.mark.parametrize(("value", "first"), [("yes", "rocksdb.enable_blob_files"), ("no", "rocksdb.min_blob_size")])
def test_blob_files_are_on_while_their_other_directives_are_set(
    node: Path, store: Store, value: str, first: str
) -> None:
    converged(node, store)
    blobs = {"rocksdb.min_blob_size": "4096", "rocksdb.enable_blob_files": value}
    store.config |= {"rocksdb.min_blob_size": "0", "rocksdb.enable_blob_files": "yes" if value == "no" else "no"}
    result = configure(node, entry(node, store.port, **blobs))
    assert result["reloaded"]["d0"][0] == first


def test_a_store_that_does_not_run_is_only_written(node: Path, store: Store) -> None:
    converged(node, store)
    run(node, "inactive")
    result = configure(node, entry(node, store.port, workers="4", dir="/d1"))
    assert (result["written"], result["reloaded"], result["restart"]) == (["d0"], {}, {})


def test_a_file_that_is_newer_than_the_process_needs_a_start_of_its_store_alone(node: Path, store: Store) -> None:
    with Store(config=CONFIG) as other:
        both = [converged(node, store), converged(node, other, "d1")]
        assert configure(node, *both, newer=[f"{node}/{{drive}}.unit", "/etc/hostname"])["restart"] == {}
        (node / "d1.unit").touch()
        result = configure(node, *both, newer=[f"{node}/{{drive}}.unit", "/etc/hostname"])
    assert result["restart"] == {"d1": f"{node}/d1.unit is newer than its process"}


def test_a_drop_in_comes_and_goes_with_a_start(node: Path, store: Store) -> None:
    same = converged(node, store)
    with_cpus = {**same, "drop_in": "[Service]\nCPUAffinity=0\n"}
    path = Path(same["drop_in_path"])
    assert configure(node, with_cpus, check_mode=True)["restart"] == {"d0": "its unit changes"}
    assert not path.exists()
    assert configure(node, with_cpus)["restart"] == {"d0": "its unit changes"}
    assert path.read_text() == with_cpus["drop_in"]
    assert configure(node, with_cpus)["changed"] is False
    assert configure(node, same)["restart"] == {"d0": "its unit changes"}
    assert not path.exists()


def test_the_difference_that_diff_shows_has_no_password(node: Path, store: Store) -> None:
    converged(node, store)
    (diff,) = configure(node, entry(node, store.port, workers="4"))["diff"]
    assert "workers 8" in diff["before"]
    assert "workers 4" in diff["after"]
    assert PASSWORD not in diff["before"].split() + diff["after"].replace('"', " ").split()


# --- restarts ---


def restart(node: Path, *stores: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    args = {"stores": list(stores), "timeout": 1}
    return run_module("kvstrata_store_restart", args, check_mode=check_mode, path=node)


def restarted(node: Path) -> list[str]:
    path = node / "restarted"
    return path.read_text().split() if path.exists() else []


def test_stores_are_restarted_in_their_order(node: Path, store: Store) -> None:
    with Store(loading=2) as other:
        result = restart(node, entry(node, other.port, "d0"), entry(node, store.port, "d1"))
        assert other.commands.count("PING") == 3
    assert (result["changed"], result["restarted"]) == (True, ["d0", "d1"])
    assert restarted(node) == ["kvrocks@d0.service", "kvrocks@d1.service"]


def test_a_store_that_does_not_answer_again_keeps_the_next_from_its_restart(node: Path, store: Store) -> None:
    with Store(loading=10**6) as stuck:
        result = restart(node, entry(node, stuck.port, "d0"), entry(node, store.port, "d1"))
    assert result["failed"]
    assert result["msg"].startswith("kvrocks@d0.service did not come back: ")
    assert result["msg"].endswith("Not restarted, and still running: d1")
    assert result["journal"] == ["last words"]
    assert restarted(node) == ["kvrocks@d0.service"]


def test_a_unit_that_does_not_start_ends_it_with_what_systemd_says(node: Path, store: Store) -> None:
    (node / "broken").write_text("kvrocks@d0.service\n")
    result = restart(node, entry(node, store.port, "d0"), entry(node, store.port, "d1"))
    assert "Job for kvrocks@d0.service failed" in result["msg"]
    assert restarted(node) == ["kvrocks@d0.service"]


def test_check_mode_restarts_nothing(node: Path, store: Store) -> None:
    result = restart(node, entry(node, store.port), check_mode=True)
    assert (result["changed"], result["restarted"]) == (True, ["d0"])
    assert restarted(node) == []
