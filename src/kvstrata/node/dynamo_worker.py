"""Start a worker of NVIDIA Dynamo from a configuration file.

`python -m kvstrata.node.dynamo_worker {vllm|mocker} /etc/kvstrata/vllm/0.yaml`

The file maps the long names of options, without the dashes in front, to their values. For `vllm` it is what
`vllm serve --config` takes, less the address: the engine reads it itself. For `mocker` the options become flags here,
for dynamo.mocker reads no file. Where the worker listens, and by what it is found, is in the DYN_* and ETCD_* variables
of the environment.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import runpy
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MODULES = {"vllm": "dynamo.vllm", "mocker": "dynamo.mocker"}
_IMAGES = "transformers.models.qwen2_vl.image_processing_qwen2_vl"


def flags(options: Mapping[str, Any]) -> list[str]:
    """Return the flags of a program for options by name.

    True is the flag alone, False its opposite `--no-NAME`, None leaves it out; a list gives one flag several values,
    and a mapping is written as JSON.
    """
    argv: list[str] = []
    for name, value in options.items():
        if value is True or value is False:
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            argv += [f"--{name}", *map(str, value)]
        elif isinstance(value, Mapping):
            argv += [f"--{name}", json.dumps(value)]
        elif value is not None:
            argv += [f"--{name}", str(value)]
    return argv


def arguments(kind: str, path: Path) -> list[str]:
    """Return the arguments of the worker's program.

    Raises:
        ValueError: if the file of a mocker is no mapping.
    """
    if kind == "vllm":
        return ["--config", str(path)]
    import yaml

    options = yaml.safe_load(path.read_text())
    if not isinstance(options, Mapping):
        raise ValueError(f"{path} holds {type(options).__name__}; allowed: a mapping of options to values")
    return flags(options)


def spare_torchvision() -> bool:
    """Let dynamo.vllm start where torchvision is not installed; return whether it was in need of that.

    dynamo.vllm imports the function that sizes images for one kind of model, whatever model it serves, and that
    function needs torchvision. A node that computes on CPU has none, for PyPI's needs CUDA. There the import finds a
    function that fails when it is called, which a model that reads text never does.
    """
    if importlib.util.find_spec("torchvision") is not None:
        return False
    module = types.ModuleType(_IMAGES)
    module.smart_resize = _no_images  # type: ignore[attr-defined]
    sys.modules[_IMAGES] = module
    logger.warning("torchvision is not installed: this worker cannot serve a model that reads images")
    return True


def _no_images(*_: Any, **__: Any) -> Any:
    raise RuntimeError("torchvision is not installed on this node, so this worker cannot read images")


def main(args: Sequence[str]) -> int:
    """Run the worker; returns when it stops."""
    if len(args) != 2 or args[0] not in MODULES:
        print(f"usage: dynamo_worker {{{'|'.join(MODULES)}}} CONFIG.yaml", file=sys.stderr)
        return 2
    kind, path = args
    argv = arguments(kind, Path(path))
    if kind == "vllm":
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        spare_torchvision()
    # runpy puts the module's own file in the place of the first argument.
    sys.argv = [MODULES[kind], *argv]
    runpy.run_module(MODULES[kind], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
