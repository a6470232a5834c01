"""`python -m kvstrata.lab`."""

from kvstrata.lab.cli import main

main()
