"""The fault matrix: what an L2 adapter of LMCache does when its store, its network or it itself breaks.

Real servers, real faults. Runs in the nodes' environment (Python 3.10+, LMCache, torch):
`python -m kvstrata.bench.faults --adapter kvstrata --engine redis`; from the controller: `kvstrata bench faults`.
"""
