"""Faults planted in the lab, to see that `kvstrata verify` names each of them and nothing else."""
