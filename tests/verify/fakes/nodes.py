"""What commands print on a node, in the form that the verifier asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def files(texts: Mapping[str, Callable[[], str]]) -> Callable[[Sequence[str]], str]:
    """The command of kvstrata.verify.nodefiles, on a node that has these files."""

    def printed(argv: Sequence[str]) -> str:
        said = ""
        for path in argv[4:]:
            there = path in texts
            said += f"\x01{path}\x02{texts[path]() if there else 'cat: no such file'}\x03{0 if there else 1}"
        return said

    return printed
