#!/usr/bin/env python3
"""Measure: `scripts/bench.py serve ...`. The same as `kvstrata bench`."""

from kvstrata.bench.cli import app

if __name__ == "__main__":
    app()
