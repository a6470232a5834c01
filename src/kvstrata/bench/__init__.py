"""Benchmarks that judge the parts of kvstrata: `kvstrata bench`."""
