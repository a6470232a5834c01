"""The files of the model on a node, and how two nodes' files differ."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass

from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.shell import Shell
from kvstrata.verify.weights import on_node

READ_S = 60.0
# Named in a message; the data hold all.
NAMED = 3


@dataclass(frozen=True)
class ModelFiles:
    """By file name its size in bytes and its sampled sha256."""

    files: Mapping[str, tuple[int, str]]

    @property
    def digest(self) -> str:
        """One hex digest of all, 12 characters."""
        text = json.dumps(sorted((name, *told) for name, told in self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(size for size, _ in self.files.values())

    def differences(self, wanted: ModelFiles) -> str:
        """What is other than in `wanted`, in words; empty when nothing is."""
        names = sorted(self.files.keys() | wanted.files.keys())
        told = []
        for name in names:
            mine, its = self.files.get(name), wanted.files.get(name)
            if mine is None or its is None:
                told.append(f"{name} {'missing' if mine is None else 'added'}")
            elif mine != its:
                sizes = f" ({mine[0]} bytes, not {its[0]})" if mine[0] != its[0] else ""
                told.append(f"{name} has other content{sizes}")
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        return ", ".join(told[:NAMED]) + more


def read(shell: Shell, path: str) -> ModelFiles:
    """The model's files on a node; UnmetError when there is none, UnableError when the node cannot say."""
    done = shell.run(["python3", "-c", inspect.getsource(on_node), path], READ_S)
    if done.exit_code != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        if said.startswith(("FileNotFoundError", "NotADirectoryError")):
            raise UnmetError(f"{path} is no folder on the node")
        raise UnableError(f"python3 on the node exited {done.exit_code} and said: {said}")
    try:
        rows = json.loads(done.stdout)
        files = {name: (int(row["size"]), str(row["sha256"])) for name, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnableError(f"python3 on the node said no digests: {done.stdout[:120]!r}") from error
    if not files:
        raise UnmetError(f"{path} holds no file of a model")
    return ModelFiles(files)
