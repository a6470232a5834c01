"""Ask Ansible what an inventory means: runs the describe playbook and reads the model it renders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kvstrata.cluster.load import load
from kvstrata.cluster.model import Cluster

PLAYBOOK = Path("playbooks/describe.yml")
# The end of Ansible's output is where it says what failed.
TAIL_LINES = 25


class DescribeError(RuntimeError):
    """The inventory could not be described; the message says why and what to run."""


def describe(
    inventory: Path,
    *,
    root: Path | None = None,
    timeout_s: float = 180,
    ansible_playbook: Sequence[str] | None = None,
) -> Cluster:
    """The cluster that `inventory` describes; no node is contacted.

    `root` is the checkout that holds playbooks/ (default: found from the current folder).
    Raises DescribeError when Ansible fails or takes more than `timeout_s` seconds, and
    InvalidClusterError when what it renders is not a cluster model.
    """
    if not inventory.exists():
        raise DescribeError(f"inventory {inventory}: no such file or folder")
    root = find_root(inventory) if root is None else root
    program = list(ansible_playbook or [_program()])
    # The document holds passwords: its folder is 0700, and mkstemp makes the file 0600
    # before Ansible writes into it.
    with tempfile.TemporaryDirectory(prefix="kvstrata-describe-") as folder:
        handle, name = tempfile.mkstemp(dir=folder, suffix=".json")
        os.close(handle)
        rendered = Path(name)
        argv = [*program, str(root / PLAYBOOK), "-i", str(inventory.resolve())]
        argv += ["-e", f"kvstrata_describe_path={rendered}"]
        _run(argv, root, timeout_s)
        if rendered.stat().st_size == 0:
            raise DescribeError(f"{PLAYBOOK} ended well but rendered nothing into kvstrata_describe_path")
        return load(rendered)


def find_root(inventory: Path) -> Path:
    """The nearest folder with playbooks/describe.yml, above the current folder or the inventory."""
    here = Path.cwd()
    start = inventory.resolve()
    for folder in (here, *here.parents, *start.parents):
        if (folder / PLAYBOOK).is_file():
            return folder
    raise DescribeError(f"{PLAYBOOK} not found above {here} or {start}: run this in the kvstrata checkout")


def _program() -> str:
    # Beside the interpreter first: in a virtual environment that isn't activated, PATH has another or none.
    beside = Path(sys.executable).parent / "ansible-playbook"
    found = str(beside) if beside.is_file() else shutil.which("ansible-playbook")
    if found is None:
        raise DescribeError("ansible-playbook not found: run `uv sync` in the kvstrata checkout")
    return found


def _run(argv: list[str], root: Path, timeout_s: float) -> None:
    env = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    try:
        done = subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    except OSError as error:
        raise DescribeError(f"{argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise DescribeError(f"{PLAYBOOK} did not end within {timeout_s:g} s") from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise DescribeError(f"{PLAYBOOK} failed (exit {done.returncode}):\n{tail}")
