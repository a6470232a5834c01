"""What a vLLM replica answers at once, without a stream, and how its process was started."""

from __future__ import annotations

import json
import math
from typing import Any

TRANSFER = {
    "kv_connector": "LMCacheMPConnector",
    "kv_role": "kv_both",
    "kv_connector_extra_config": {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 5555},
}


def completion(body: dict[str, Any], token: int = 7, shift: float = 0.0) -> dict[str, Any]:
    """A completion as vLLM gives it. `token` is what the model always says, `shift` makes its weights others."""
    asked, text = body["max_tokens"], body["prompt"]
    prompt = [ord(letter) % 50 for letter in text[:40]]
    choice: dict[str, Any] = {"text": "x" * asked, "finish_reason": "length", "token_ids": [token] * asked}
    choice["prompt_token_ids"] = prompt
    if body.get("logprobs"):
        choice["logprobs"] = {
            "token_logprobs": [-0.5 - shift / 10] * asked,
            "top_logprobs": [{f"token_id:{token}": -0.5 - shift / 10, "token_id:1": -2.0}] * asked,
        }
    if body.get("prompt_logprobs"):
        rows = [{str(token): {"logprob": own(token, shift)}, "99": {"logprob": -2.0}} for token in prompt[1:]]
        choice["prompt_logprobs"] = [None, *rows]
    usage = {"prompt_tokens": len(prompt), "completion_tokens": asked, "total_tokens": len(prompt) + asked}
    return {"model": body["model"], "choices": [choice], "usage": usage}


def own(token: int, shift: float) -> float:
    """The log probability of a prompt's token under some weights."""
    return -3.0 - math.sin(token) - shift


def process(unit: str = "vllm@0.service", transfer: dict[str, Any] | None = None, config: str = "", **at: int) -> str:
    """What the node says of an engine's process; `transfer` is its connector, `config` instead the whole file."""
    given = json.dumps(TRANSFER if transfer is None else transfer)
    document = config or f"model: /srv/models/m\nport: 8000\nkv-transfer-config: '{given}'\n"
    words = ["/opt/kvstrata/bin/python", "/opt/kvstrata/bin/vllm", "serve", "--config", "/etc/kvstrata/vllm/0.yaml"]
    head = f"=====kvstrata unit {unit} 4711 {at.get('began', 2000)}"
    return "\n".join([head, *words, f"=====kvstrata config {at.get('written', 1000)}", document])
