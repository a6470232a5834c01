"""Run on a node with its own python3: what tells the files of a model from those of another, cheaply and read-only.

Prints one JSON object: for each file its size and a sha256. Small files are hashed whole; of a large one the first
MiB (a safetensors file has its table there) and ranges spread over the rest, so that 100 GB cost some 16 MiB of reads.
Every node must choose the same ranges: they depend on the file's size and the number of large files alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import IO

KINDS = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".safetensors", ".bin", ".pt", ".pth", ".gguf")
WHOLE_BYTES = 1 << 20
RANGE_BYTES = 1 << 16
RANGES_IN_ALL = 256
RANGES_OF_FILE = 32
FILES = 4096


def digests(folder: Path) -> dict[str, dict[str, object]]:
    """By file name: `size` in bytes and `sha256`. Raises OSError."""
    found = [path for path in folder.iterdir() if path.suffix in KINDS and path.is_file() and path.name[0] != "."]
    files = sorted(found)[:FILES]
    large = sum(path.stat().st_size > WHOLE_BYTES for path in files)
    ranges = max(2, min(RANGES_OF_FILE, RANGES_IN_ALL // max(1, large)))
    told: dict[str, dict[str, object]] = {}
    for path in files:
        with path.open("rb") as opened:
            told[path.name] = {"size": os.fstat(opened.fileno()).st_size, "sha256": _sampled(opened, ranges)}
    return told


def _sampled(opened: IO[bytes], ranges: int) -> str:
    size = os.fstat(opened.fileno()).st_size
    digest = hashlib.sha256(opened.read(WHOLE_BYTES))
    rest = size - WHOLE_BYTES
    for index in range(ranges if rest > 0 else 0):
        # The last range ends with the file.
        opened.seek(WHOLE_BYTES + max(0, rest - RANGE_BYTES) * index // (ranges - 1))
        digest.update(opened.read(RANGE_BYTES))
    return digest.hexdigest()


if __name__ == "__main__":
    json.dump(digests(Path(sys.argv[1])), sys.stdout)
