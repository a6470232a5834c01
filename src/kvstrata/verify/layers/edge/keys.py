"""Who is let in, and to what."""

from __future__ import annotations

import secrets
from typing import Final

from kvstrata.cluster import Edge
from kvstrata.verify.check import UnmetError
from kvstrata.verify.http import Service
from kvstrata.verify.layers.edge.access import authorization

MODELS = "/v1/models"
# What routers, frontends and engines answer on the same port as the API, without asking who it is. Asked with GET
# alone, which changes nothing.
PRIVATE: Final = (
    "/workers",
    "/add_worker",
    "/remove_worker",
    "/list_workers",
    "/flush_cache",
    "/get_loads",
    "/metrics",
    "/busy_threshold",
    "/clear_kv_blocks",
)
_REFUSED = (401, 403, 404)


def judge(edge_service: Service, edge: Edge) -> str:
    """Whether keys are asked for, as the inventory wants it."""
    without = edge_service.status(MODELS)
    if not edge.keys:
        if without != 200:
            raise UnmetError(f"{without} without a key, though the inventory has none")
        return "200 without a key: anybody may ask, as the inventory says"
    wrong = edge_service.status(MODELS, authorization(secrets.token_urlsafe(30)))
    # A prefix of the right one tells a comparison that is none.
    part = edge_service.status(MODELS, authorization(edge.keys[0].value[:-1]))
    problems = [
        f"{code} {how}"
        for how, code in (("without a key", without), ("with a wrong key", wrong), ("with a part of a key", part))
        if code != 401
    ]
    for key in edge.keys:
        code = edge_service.status(MODELS, authorization(key.value))
        if code != 200:
            problems.append(f"{code} with the key {key.name}")
    if problems:
        raise UnmetError("; ".join(problems))
    return f"401 without a key and with a wrong one, 200 with {', '.join(key.name for key in edge.keys)}"


def closed(edge_service: Service) -> str:
    """Nothing but the API is answered, even with a key."""
    answers = {path: edge_service.status(path) for path in PRIVATE}
    reached = [f"{path} answers {code}" for path, code in answers.items() if code not in _REFUSED]
    if reached:
        raise UnmetError("; ".join(reached))
    return f"{', '.join(map(str, sorted(set(answers.values()))))} for {len(answers)} paths"
