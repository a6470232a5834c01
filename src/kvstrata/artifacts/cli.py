"""`kvstrata artifacts`: fill the controller's cache; Ansible calls these with --json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from kvstrata.artifacts import binary, environment, release
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.artifacts.wheelhouse import DownloadError
from kvstrata.paths import PROJECT, cache_dir

app = typer.Typer(
    help="Download what deployments need, once, checked against artifacts.lock.yml.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command("release")
def release_command(wheelhouse: str, as_json: Json = False) -> None:
    """Download the wheels of WHEELHOUSE and build the node package."""
    try:
        prepared = release.prepare(
            read_lock(PROJECT / "artifacts.lock.yml").wheelhouse(wheelhouse), PROJECT, cache_dir()
        )
    except (LockError, DownloadError, subprocess.CalledProcessError) as error:
        _fail(error)
    _print(prepared.as_dict(), as_json)


@app.command("environment")
def environment_command(wheelhouse: str, as_json: Json = False) -> None:
    """Install the wheels of WHEELHOUSE on this machine, for tests and benchmarks that need LMCache."""
    try:
        python, changed = environment.ensure(
            read_lock(PROJECT / "artifacts.lock.yml").wheelhouse(wheelhouse), cache_dir()
        )
    except (LockError, DownloadError, subprocess.CalledProcessError) as error:
        _fail(error)
    _print({"python": str(python), "changed": changed}, as_json)


@app.command("kvrocks")
def kvrocks_command(
    source: Annotated[Path | None, typer.Option(help="A Kvrocks binary; default: bin/kvrocks in the cache.")] = None,
    as_json: Json = False,
) -> None:
    """Find or download the Kvrocks binary."""
    try:
        locked = read_lock(PROJECT / "artifacts.lock.yml").kvrocks
        found = binary.resolve(source or cache_dir() / "bin" / "kvrocks", locked, cache_dir())
    except (LockError, *binary.ArtifactError) as error:
        _fail(error)
    _print(found.as_dict(), as_json)


def _print(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(fields))
        return
    for name, value in fields.items():
        print(f"{name:10} {value}")


def _fail(error: Exception) -> NoReturn:
    print(f"kvstrata artifacts: {error}", file=sys.stderr)
    raise typer.Exit(1)
