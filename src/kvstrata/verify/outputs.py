"""Where a run's document goes besides the terminal: files of three forms, and the kept runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kvstrata.verify import junit, keep, page
from kvstrata.verify.document import Document


@dataclass(frozen=True)
class Outputs:
    """The files that were asked for; None is one that was not."""

    json: Path | None = None
    junit: Path | None = None
    html: Path | None = None

    def write(self, document: Document, err: Console) -> bool:
        """Write every file; one that can't be written is told, keeps none of the others away, and makes this False."""
        written = True
        for option, path, render in self._wanted():
            try:
                path.write_text(render(document), encoding="utf-8")
            except OSError as error:
                err.print(f"[bold red]{option}[/]: {escape(str(path))}: {error.strerror}", highlight=False)
                written = False
        return written

    def _wanted(self) -> Iterator[tuple[str, Path, Callable[[Document], str]]]:
        if self.json is not None:
            yield "--output", self.json, as_text
        if self.junit is not None:
            yield "--junit", self.junit, junit.render
        if self.html is not None:
            yield "--html", self.html, page.render


def as_text(document: Document) -> str:
    """Return the document as the text of a file."""
    return json.dumps(document, indent=2) + "\n"


def keep_run(state_dir: Path, document: Document, newest: int, err: Console) -> None:
    """Keep the document among the last runs. That it can't be kept is told, and says nothing about the site."""
    try:
        path = keep.keep(state_dir, document, newest)
    except OSError as error:
        where = escape(str(state_dir / keep.FOLDER))
        err.print(f"[yellow]not kept[/]: {where}: {error.strerror}", highlight=False, soft_wrap=True)
    else:
        err.print(f"[dim]..[/] kept as {escape(str(path))}", highlight=False, soft_wrap=True)
