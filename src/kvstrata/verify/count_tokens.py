"""Runs on a node, by the release's Python: how many tokens the model's own tokenizer makes of a text.

Arguments: the model's folder, and the text, compressed and in base64. Prints the number.
"""

import base64
import sys
import zlib
from pathlib import Path


def main(folder: str, packed: str) -> None:
    """Count as a frontend of Dynamo does, which uses the same library with the same file."""
    from tokenizers import Tokenizer

    text = zlib.decompress(base64.b64decode(packed)).decode()
    print(len(Tokenizer.from_file(str(Path(folder) / "tokenizer.json")).encode(text).ids))


if __name__ == "__main__":
    main(*sys.argv[1:])
