#!/usr/bin/env python3
"""Tell which cache tiers pay: `scripts/plan.py -m Llama-3.1-8B -n 8xH100-SXM`. The same as `kvstrata plan`."""

import typer

from kvstrata.plan.cli import plan

if __name__ == "__main__":
    typer.run(plan)
