"""The page of the repository itself: docs/gpu.md, of what lies in benchmarks/results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kvstrata.bench.gpu_page.files import ENDINGS
from kvstrata.bench.gpu_page.plots import FOLDER
from kvstrata.paths import PROJECT

RESULTS = Path("benchmarks/results")
PATTERN = "gpu-*.json"
PAGE = Path("docs/gpu.md")
PROJECT_PAGE = PROJECT / PAGE
COMMAND = "kvstrata bench page"


def sources(project: Path = PROJECT) -> list[Path]:
    """Return the files that the page is made of; none before the first run on a GPU was kept."""
    found = (project / RESULTS).glob(f"{PATTERN}*")
    return sorted(path for path in found if path.name.endswith(ENDINGS))


def orphans(page: Path, made: Iterable[Path]) -> list[Path]:
    """Return plots beside a page that it does not have any more: those of its files, by their names."""
    return sorted(set((page.parent / FOLDER).glob("gpu-*.svg")) - set(made))


def expected(project: Path = PROJECT) -> dict[Path, str]:
    """Return all files of the page, relative to the project; none without results.

    Raises:
        BenchError: a result cannot be read.
    """
    found = sources(project)
    if not found:
        return {}
    from kvstrata.bench.gpu_page.page import make

    return make(found, COMMAND).files(PAGE)
