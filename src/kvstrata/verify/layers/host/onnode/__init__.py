"""Programs that travel to a node as text and run there, with the standard library of Python 3.9 alone."""

from __future__ import annotations

import inspect
import json
from types import ModuleType

from kvstrata.verify.document import Json


def command(program: ModuleType, argument: Json) -> list[str]:
    """The command that runs a module of this package on a node; it gets its argument as JSON, and prints JSON."""
    return ["python3", "-c", inspect.getsource(program), json.dumps(argument)]
