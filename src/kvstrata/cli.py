"""The `kvstrata` command."""

from __future__ import annotations

import typer

from kvstrata.artifacts.cli import app as artifacts_app
from kvstrata.bench.cli import app as bench_app
from kvstrata.bundle.cli import app as bundle_app
from kvstrata.cache.cli import app as cache_app
from kvstrata.drain.cli import drain, undrain
from kvstrata.lab.cli import app as lab_app
from kvstrata.plan.cli import plan
from kvstrata.verify.cli import verify
from kvstrata.verify.diff_cli import verify_diff

app = typer.Typer(help="Hyper-converged LLM serving with a tiered KV cache.", no_args_is_help=True)
app.add_typer(artifacts_app, name="artifacts")
app.add_typer(bench_app, name="bench")
app.add_typer(bundle_app, name="bundle")
app.add_typer(cache_app, name="cache")
app.add_typer(lab_app, name="lab")
app.command()(drain)
app.command()(plan)
app.command()(undrain)
app.command()(verify)
app.command("verify-diff")(verify_diff)


def main() -> None:
    """Run the command line."""
    app()
