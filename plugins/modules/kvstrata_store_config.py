#!/usr/bin/python
"""Write the configurations of stores, have running ones take what they can, and say which ones must restart."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_resp import STORES, Connection, ReplyError, log_in

DOCUMENTATION = """
module: kvstrata_store_config
short_description: Configure stores, without a restart where CONFIG SET suffices
description: >-
  Writes each configuration file, so that a later start has it, and compares what a running store reports with it. What
  differs is set by CONFIG SET where all of it can be; otherwise the store is named in C(restart), and left alone.
options:
  stores: {description: Stores of this node as the filter kvstrata_stores describes them., type: list, required: true}
  group: {description: Group that may read the files., type: str}
  newer:
    description: >-
      Files that a store reads at its start alone, with C({drive}) for its drive; one that changed since then makes a
      restart necessary.
    type: list
    elements: path
    default: []
  restart_all: {description: Have every running store restart., type: bool, default: false}
"""

MODE = 0o640
RUNNING = ("active", "activating", "reloading")
# With the one off, Kvrocks refuses to set the others.
SWITCHES = ("rocksdb.enable_blob_files", "rocksdb.level_compaction_dynamic_level_bytes")


def read(path: str) -> str:
    """Return a file's text, or nothing where there is none."""
    try:
        with open(path) as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str, mode: int) -> None:
    """Replace a file at once, so that a store that starts in between reads either the old or the new one."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".")
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    os.chmod(name, mode)
    os.replace(name, path)


def place_conf(module: AnsibleModule, store: dict[str, Any], text: str) -> bool:
    """Write a store's configuration where it is not `text` already; return whether that is a change."""
    path = store["path"]
    changed = text != store["conf"]
    if changed and not module.check_mode:
        write(path, store["conf"], MODE)
    if os.path.exists(path):
        changed = module.set_mode_if_different(path, MODE, changed)
        if module.params["group"]:
            changed = module.set_group_if_different(path, module.params["group"], changed)
    return bool(changed)


def place_drop_in(store: dict[str, Any], check_mode: bool) -> bool:
    """Write the drop-in of a store's unit, or remove one that it has no longer; return whether that is a change."""
    path, text = store["drop_in_path"], store["drop_in"]
    if not path or read(path) == text:
        return False
    if check_mode:
        return True
    if text:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write(path, text, 0o644)
    else:
        os.unlink(path)
    return True


def parse(text: str) -> dict[str, str]:
    """Return the directives of a configuration file that this module wrote."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name and not name.startswith("#"):
            found[name] = value if name == "bind" else "".join(shlex.split(value)[:1])
    return found


def unit_states(module: AnsibleModule, units: list[str]) -> dict[str, dict[str, str]]:
    """Return ActiveState and the start of the main process of each unit, by unit."""
    properties = "--property=Id,ActiveState,ExecMainStartTimestampMonotonic"
    _, out, _ = module.run_command(["systemctl", "show", properties, *units], check_rc=True)
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in out.strip().split("\n\n")]
    return {block["Id"]: block for block in blocks}


def newest(paths: list[str], started_us: int) -> str:
    """Return a file that changed after the process started, or nothing."""
    started = time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - started_us / 1e6)
    return next((path for path in paths if os.path.exists(path) and os.stat(path).st_ctime > started), "")


def connect(store: dict[str, Any], old: dict[str, str]) -> Connection | None:
    """Return a connection to a running store, which has either its old address and password or already the new ones."""
    old_host = old.get("bind", store["host"]).split()[0]
    if old_host in ("0.0.0.0", "::", "*"):  # noqa: S104 - to be recognized, not bound
        old_host = store["host"]
    old_place = (old_host, int(old.get("port", store["port"])), old.get("requirepass", store["password"]))
    for host, port, password in dict.fromkeys([old_place, (store["host"], store["port"], store["password"])]):
        try:
            return log_in(host, port, password)
        except (OSError, ReplyError):
            continue
    return None


def order(item: tuple[str, str]) -> int:
    """Return the place of a directive among those to set: what others need first, what they need gone last."""
    name, value = item
    if name in SWITCHES:
        return -1 if value == "yes" else 1
    return 2 if name == "requirepass" else 0


def reload(store: dict[str, Any], old: dict[str, str], check_mode: bool) -> tuple[list[str], str]:
    """Have a running store take its configuration; return the names set, and why it must restart instead, if so."""
    wanted = {name: str(value) for name, value in store["config"].items()}
    removed = sorted(set(old) - set(wanted) - {"requirepass"})
    if removed:
        return [], f"{', '.join(removed)} removed, the default comes with a start"
    connection = connect(store, old)
    if connection is None:
        return [], "it does not answer"
    seen = connection.config()
    wanted["requirepass"] = store["password"]
    differing = {name: value for name, value in wanted.items() if seen.get(name, "").strip() != value}
    fixed = sorted(set(differing) - set(store["live"]) - {"requirepass"})
    if fixed:
        return [], f"{', '.join(fixed)} changed"
    done: list[str] = []
    for name, value in sorted(differing.items(), key=order):
        if not check_mode:
            try:
                connection.call("CONFIG", "SET", name, value)
            except (OSError, ReplyError) as error:
                # The error could quote the value, which may be the password.
                return done, f"{name} changed, and CONFIG SET was refused ({type(error).__name__})"
        done.append(name)
    connection.close()
    return done, ""


def redacted(text: str) -> str:
    """Return a configuration without its password."""
    lines = ["requirepass (not shown)" if line.startswith("requirepass ") else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stores": STORES,
            "group": {"type": "str"},
            "newer": {"type": "list", "elements": "path", "default": []},
            "restart_all": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    stores = module.params["stores"]
    states = unit_states(module, [store["unit"] for store in stores]) if stores else {}
    written, reloaded, restart, diff = [], {}, {}, []
    for store in stores:
        drive, state, text = store["drive"], states[store["unit"]], read(store["path"])
        conf, drop_in = place_conf(module, store, text), place_drop_in(store, module.check_mode)
        if conf or drop_in:
            written.append(drive)
            texts = {"before": redacted(text), "after": redacted(store["conf"])}
            diff.append({**texts, "before_header": store["path"], "after_header": store["path"]})
        if state["ActiveState"] not in RUNNING:
            continue
        files = [path.replace("{drive}", drive) for path in module.params["newer"]]
        if drop_in or module.params["restart_all"]:
            restart[drive] = "its unit changes"
        elif stale := newest(files, int(state["ExecMainStartTimestampMonotonic"])):
            restart[drive] = f"{stale} is newer than its process"
        else:
            names, why = reload(store, parse(text), module.check_mode)
            reloaded.update({drive: names} if names else {})
            restart.update({drive: why} if why else {})
    module.exit_json(changed=bool(written or reloaded), written=written, reloaded=reloaded, restart=restart, diff=diff)


if __name__ == "__main__":
    main()
