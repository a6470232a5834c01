"""The checks of one node, one module per layer; the order is from the bottom of the stack up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kvstrata.verify.check import Check, Layer
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers import cache, edge, engine, host, router, store

type NodeLayer = Callable[[NodeContext], Iterator[Check]]

NODE_LAYERS: Mapping[Layer, NodeLayer] = {
    Layer.HOST: host.checks,
    Layer.STORE: store.checks,
    Layer.CACHE: cache.checks,
    Layer.ENGINE: engine.checks,
    Layer.ROUTER: router.checks,
    Layer.EDGE: edge.checks,
}
