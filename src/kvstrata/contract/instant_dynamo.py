"""A Dynamo worker that answers at once: `python -m kvstrata.contract.instant_dynamo MODEL_PATH NAME BLOCK_SIZE`.

Runs in the nodes' environment. The mocker cannot stand in here: even at infinite speed it takes some 20 ms a request.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from dynamo.llm import ModelInput, ModelType, WorkerType, register_model
from dynamo.runtime import DistributedRuntime

ENDPOINT = "dynamo.backend.generate"


async def generate(request: Any) -> AsyncIterator[dict[str, Any]]:
    """Answer with one token, whatever was asked."""
    asked = len(request["token_ids"])
    usage = {"prompt_tokens": asked, "completion_tokens": 1, "total_tokens": asked + 1}
    yield {"token_ids": [65], "finish_reason": "length", "completion_usage": usage}


async def main(path: str, name: str, block_size: int) -> None:
    """Serve until ended."""
    runtime = DistributedRuntime(asyncio.get_running_loop(), "file", "tcp", event_plane="zmq")
    endpoint = runtime.endpoint(ENDPOINT)
    serving = asyncio.ensure_future(endpoint.serve_endpoint(generate))
    await register_model(
        ModelInput.Tokens,
        ModelType.Completions,
        endpoint,
        path,
        name,
        worker_type=WorkerType.Aggregated,
        kv_cache_block_size=block_size,
        ignore_weights=True,
    )
    await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
