"""What sends a workload to an endpoint: our own generator, and other programs (docs/workloads.md)."""
