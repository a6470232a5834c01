"""Running a module of plugins/modules the way Ansible does: arguments as JSON on stdin, one JSON object back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstrata.paths import PROJECT

# Ansible packs what a module imports of ours beside its own; here that folder is made part of it.
RUN = f"""
import os, runpy
import ansible.module_utils
ansible.module_utils.__path__.append({str(PROJECT / "plugins" / "module_utils")!r})
runpy.run_path(os.environ["MODULE"], run_name="__main__")
"""


def run_module(
    name: str,
    args: Mapping[str, Any],
    *,
    check_mode: bool = False,
    path: Path | None = None,
    under: Sequence[str] = (),
) -> dict[str, Any]:
    """Run a module and return its result.

    Args:
        name: file name without its ending.
        args: the task's arguments.
        check_mode: whether Ansible runs with --check.
        path: a folder that comes first on PATH.
        under: a command that runs the module.
    """
    given = {"ANSIBLE_MODULE_ARGS": {**args, "_ansible_check_mode": check_mode}}
    search = os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}"
    completed = subprocess.run(
        [*under, sys.executable, "-c", RUN],
        input=json.dumps(given),
        env={**os.environ, "PATH": search, "MODULE": str(PROJECT / "plugins" / "modules" / f"{name}.py")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # A traceback, where an answer was due, is shown as it is.
    assert completed.stdout.strip(), completed.stderr
    result: dict[str, Any] = json.loads(completed.stdout)
    return result
