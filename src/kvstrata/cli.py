"""The `kvstrata` command."""

from __future__ import annotations

import typer

from kvstrata.artifacts.cli import app as artifacts_app

app = typer.Typer(help="Hyper-converged LLM serving with a tiered KV cache.", no_args_is_help=True)
app.add_typer(artifacts_app, name="artifacts")


def main() -> None:
    """Run the command line."""
    app()
