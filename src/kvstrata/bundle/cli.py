"""`kvstrata bundle`: carry all that a site needs to where there is no internet."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from kvstrata.bundle import standalone
from kvstrata.bundle.collect import Wanted, gather
from kvstrata.bundle.sources import CACHE_FOLDER, PROJECT_FOLDER
from kvstrata.bundle.standalone import BundleError
from kvstrata.bundle.write import write
from kvstrata.paths import PROJECT, cache_dir

app = typer.Typer(help="Carry all that a site needs to where there is no internet.", no_args_is_help=True)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}

Expect = Annotated[str, typer.Option(metavar="SHA256", help="Of manifest.json, as `make` printed it.")]


def size_of(text: str) -> int:
    """Return the bytes of a size as 60M (decimal units K, M, G).

    Raises:
        BundleError: if it is something else.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None:
        raise BundleError(f"--part-size is {text!r}; allowed: a number of bytes, or with K, M or G, as 60M")
    return int(match[1]) * _UNITS[match[2]]


@app.command("make")
def make_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or left by an interrupted run.")],
    wheelhouse: Annotated[list[str] | None, typer.Option(help="From artifacts.lock.yml; may be repeated.")] = None,
    model: Annotated[list[Path] | None, typer.Option(help="The folder of a model; may be repeated.")] = None,
    kvrocks: Annotated[Path | None, typer.Option(help="A Kvrocks binary; default: the cache's, or the lock's.")] = None,
    tree: Annotated[list[Path] | None, typer.Option(help="A folder of Python packages; may be repeated.")] = None,
    gpu_arch: Annotated[
        int | None, typer.Option(min=50, help="Of trees, keep device code for this GPU alone: 90 for H100 and H200.")
    ] = None,
    controller: Annotated[bool, typer.Option(help="The wheels of the controller too.")] = True,
    part_size: Annotated[str, typer.Option(help="Of each part but the last: bytes, or with K, M or G.")] = "60M",
) -> None:
    """Write a bundle into DIR, downloading what the cache does not have."""
    try:
        part_bytes = size_of(part_size)
        if gpu_arch is not None and not tree:
            raise BundleError("--gpu-arch without --tree; allowed: with trees, for wheels stay as their lock has them")
        wanted = Wanted(wheelhouse or [], model or [], kvrocks, controller, tree or [], gpu_arch)
        gathered = gather(wanted, PROJECT, cache_dir())
        digest = write(folder, gathered.files, part_bytes, gathered.about(PROJECT))
    except (BundleError, OSError) as error:
        _fail(error)
    for missing in gathered.not_in_it:
        print(f"NOT in it: {missing}")
    print(f"{folder}: whole. On the other side:\n  python3 {standalone.PROGRAM} unpack DIR DEST --expect {digest}")


@app.command("verify")
def verify_command(folder: Annotated[Path, typer.Argument(metavar="DIR")], expect: Expect = "") -> None:
    """Read all of a bundle and check it."""
    try:
        print(standalone.summary(standalone.verify(folder, expect)))
    except (BundleError, OSError) as error:
        _fail(error)


@app.command("unpack")
def unpack_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    dest: Annotated[Path, typer.Argument(metavar="DEST")],
    expect: Expect = "",
) -> None:
    """Check a bundle, and write its files below DEST; nothing there is overwritten."""
    try:
        print(standalone.summary(standalone.unpack(folder, dest, expect)))
    except (BundleError, OSError) as error:
        _fail(error)
    print(f"cd {dest / PROJECT_FOLDER}; export KVSTRATA_CACHE={dest.absolute() / CACHE_FOLDER}")


def _fail(error: Exception) -> NoReturn:
    print(f"kvstrata bundle: {error}", file=sys.stderr)
    raise typer.Exit(1)
