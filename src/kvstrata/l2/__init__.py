"""An LMCache L2 adapter for fleets of Kvrocks, Redis or Valkey: KV chunks on the drives of every node.

Runs on the nodes: Python 3.10+, the standard library, and what LMCache brings. A library of its own, see docs/l2.md:
`Tier` (tier.py) stores, looks up and loads chunks without LMCache; `KvstrataL2Adapter` (adapter.py) is LMCache's
interface over it. Nothing here trusts what a store answers: anything unexpected is a miss.
"""
