"""Faults on purpose: a store, a cache daemon, an engine, a node are stopped, one at a time, while requests go on."""
