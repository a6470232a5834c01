"""Which NVIDIA driver a node gets: pure decisions over what plugins/modules/kvstrata_gpu_probe.py saw."""
