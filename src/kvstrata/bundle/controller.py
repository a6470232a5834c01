"""The wheels of the controller itself, from uv.lock: what `make bootstrap` would download."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from kvstrata.bundle.standalone import BundleError

REQUIREMENTS = "requirements.txt"
_COMPLETE = ".complete"


def ensure(checkout: Path, cache: Path) -> Path:
    """Download the controller's wheels once, for this Python and this machine; return their folder.

    It holds requirements.txt as well, with a sha256 for each wheel.

    Raises:
        BundleError: uv.lock cannot be exported, or pip cannot get every wheel.
    """
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    lock = (checkout / "uv.lock").read_bytes()
    target = cache / "controller" / f"{version}-{hashlib.sha256(lock).hexdigest()[:12]}"
    if (target / _COMPLETE).exists():
        return target
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    requirements = partial / REQUIREMENTS
    export = ["uv", "export", "--quiet", "--frozen", "--no-dev", "--extra", "controller", "--no-emit-project"]
    export += ["--no-annotate", "--no-header", "--project", str(checkout), "--output-file", str(requirements)]
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    download += ["--require-hashes", "--only-binary=:all:", "--requirement", str(requirements), "--dest", str(partial)]
    for command in (export, download):
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise BundleError(f"the controller's wheels: {' '.join(command[:4])} failed, see above; --no-controller")
    (partial / _COMPLETE).touch()
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target
