"""Make a release of what this Python finds: `ENGINE_PYTHON release.py FOLDER`.

The role runtime makes a virtual environment with every package in it. Here packages lie where they were carried, or are
the host's own: the environment names those folders, in this Python's order, in a file that also `python -I` reads. Only
kvstrata is copied, for units may not be allowed to read the working tree.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import venv
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
# As their packages declare them.
PROGRAMS = {"vllm": "vllm.entrypoints.cli.main", "vllm-router": "vllm_router.launch_router"}

# The guard is for the processes that it spawns: they read this file again.
PROGRAM = """#!{python}
import sys

from {module} import main

if __name__ == "__main__":
    sys.exit(main())
"""


def make(folder: Path) -> list[Path]:
    """Make the environment anew; return the folders that it names."""
    venv.EnvBuilder(system_site_packages=True, symlinks=True, clear=True).create(folder)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    shutil.copytree(SOURCE / "kvstrata", packages / "kvstrata", ignore=shutil.ignore_patterns("__pycache__"))
    left_out = {SOURCE, Path(__file__).resolve().parent}
    named = [Path(name).resolve() for name in sys.path if name]
    named = [path for path in dict.fromkeys(named) if path.is_dir() and path not in left_out]
    (packages / "carried.pth").write_text("".join(f"{path}\n" for path in named))
    for program, module in PROGRAMS.items():
        script = folder / "bin" / program
        script.write_text(PROGRAM.format(python=folder / "bin" / "python", module=module))
        script.chmod(0o755)
    return named


if __name__ == "__main__":
    print(*make(Path(sys.argv[1]).absolute()), sep="\n")
