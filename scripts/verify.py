#!/usr/bin/env python3
"""Verify a running site: `scripts/verify.py -i inventories/lab`. The same as `kvstrata verify`."""

import typer

from kvstrata.verify.cli import verify

if __name__ == "__main__":
    typer.run(verify)
