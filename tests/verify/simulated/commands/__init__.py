"""What the commands of the verifier print on a node, a module for each subject; `registry` finds the right one."""

from __future__ import annotations

from tests.verify.simulated.commands import cache, dynamo, engine, files, host, units, who
from tests.verify.simulated.commands.registry import Said, run

__all__ = ["Said", "cache", "dynamo", "engine", "files", "host", "run", "units", "who"]
