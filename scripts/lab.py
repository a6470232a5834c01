#!/usr/bin/env python3
"""Start, stop and enter the lab: the same as `kvstrata lab`."""

from kvstrata.lab.cli import main

if __name__ == "__main__":
    main()
