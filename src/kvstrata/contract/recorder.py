"""Writes down engines' KV events: `python -m kvstrata.contract.recorder FILE NAME=ENDPOINT...`.

Runs in the nodes' environment, which has ZMQ. Each line of FILE is one batch of events, as kvstrata.contract.residency
reads it: `{"at": s, "worker": NAME, "seq": n, "events": [...]}`, where `at` is the machine's monotonic clock, which a
client on the same machine uses too. The first line, without a worker, says that every socket was connected.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import zmq

_FIELDS = {
    "BlockStored": ("type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "medium"),
    "BlockRemoved": ("type", "block_hashes", "medium"),
    "AllBlocksCleared": ("type",),
}
# vLLM encodes events as arrays in this order (vllm.distributed.kv_events); the mocker as maps.
_ARRAYS = {
    "BlockStored": ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name"),
    "BlockRemoved": ("block_hashes", "medium"),
    "AllBlocksCleared": (),
}


def plain(event: Any) -> dict[str, Any] | None:
    """Return an event with the fields that residency needs; None for a kind that says nothing of it."""
    if isinstance(event, list):
        event = {"type": event[0], **dict(zip(_ARRAYS.get(event[0], ()), event[1:], strict=False))}
    fields = _FIELDS.get(event["type"])
    if fields is None:
        return None
    found = {field: event.get(field) for field in fields}
    if "block_hashes" in found:
        # Newer vLLM's hashes are bytes, or a pair of bytes and a group; as texts they are the same in JSON.
        found["block_hashes"] = [_hash(each) for each in found["block_hashes"]]
    if found.get("parent_block_hash") is not None:
        found["parent_block_hash"] = _hash(found["parent_block_hash"])
    return found


def _hash(given: Any) -> str:
    return given.hex() if isinstance(given, bytes) else str(given)


def record(out: BinaryIO, sources: dict[str, str]) -> None:
    """Write batches until this process is ended."""
    context, poller = zmq.Context.instance(), zmq.Poller()
    names = {}
    for name, endpoint in sources.items():
        socket = context.socket(zmq.SUB)
        socket.set_hwm(0)
        # An engine that is killed comes back at the same endpoint: try again soon.
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
        names[socket] = name
    encoder = msgspec.json.Encoder()
    out.write(b'{"ready": true}\n')
    out.flush()
    while True:
        for socket, _ in poller.poll():
            *head, payload = socket.recv_multipart()
            batch = msgspec.msgpack.decode(payload, strict=False)
            events = [found for event in batch[1] if (found := plain(event))]
            sequence = int.from_bytes(head[-1], "big") if head and len(head[-1]) == 8 else None
            line = {"at": time.monotonic(), "worker": names[socket], "seq": sequence, "events": events}
            out.write(encoder.encode(line) + b"\n")
        out.flush()


if __name__ == "__main__":
    with Path(sys.argv[1]).open("ab") as file:
        record(file, dict(word.split("=", 1) for word in sys.argv[2:]))
