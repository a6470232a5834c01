"""Verification of a running site: checks as data, one module per layer, and the proof of the tiers."""
