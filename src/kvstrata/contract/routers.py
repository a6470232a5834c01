"""The command lines of both profiles' routers, as the roles write them, for workers on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kvstrata.bench.serving.engine_options import ROUTER_POLICY_FLAGS, router_flags
from kvstrata.contract.arms import ROUTER, Arm
from kvstrata.contract.target import Worker

# roles/dynamo: dynamo_migration_limit. A request whose worker died goes on with another.
MIGRATION_LIMIT = 3
_HOST = "127.0.0.1"
_INSTANCE = "kvstrata"


def command(arm: Arm, python: Path, port: int, metrics_port: int, workers: Sequence[Worker], place: Place) -> list[str]:
    """Return the command of an arm's router on loopback; its folder may be given a file."""
    if arm.profile == ROUTER:
        return _vllm_router(arm, python, port, metrics_port, workers, place)
    return _dynamo(arm, python, port, place)


class Place:
    """What all routers of a run need to know of it, and where their files go."""

    def __init__(self, folder: Path, model: str, block_size: int) -> None:
        """`block_size` in tokens, of the workers' KV blocks."""
        self.folder, self.model, self.block_size = folder, model, block_size

    def policy_file(self, arm: Arm) -> Path:
        """Write what Dynamo reads its policy from; return its path."""
        instance = {"name": _INSTANCE, "type": "dynamo-default-cost-fn", "parameters": dict(arm.settings)}
        policy: Mapping[str, Any] = {"worker_selection": {"aggregated": _INSTANCE, "instances": [instance]}}
        file = self.folder / f"policy-{arm.name}.yaml"
        file.write_text(yaml.safe_dump(policy))
        return file


def _vllm_router(
    arm: Arm, python: Path, port: int, metrics_port: int, workers: Sequence[Worker], place: Place
) -> list[str]:
    flags = router_flags(_HOST, port, metrics_port, arm.policy)
    # An arm says those of its policy itself, so that a variant can leave them out.
    of_policy = ROUTER_POLICY_FLAGS.get(arm.policy, {})
    flags = {flag: value for flag, value in flags.items() if flag not in of_policy} | {"--log-level": "warning"}
    words = [str(python), "-m", "vllm_router.launch_router", *(str(word) for flag in flags.items() for word in flag)]
    if arm.events:
        words += ["--kv-event-block-size", str(place.block_size), "--kv-event-model", place.model]
        for worker in workers:
            words += ["--kv-event-source", f"{worker.url}={worker.events}"]
    return [*words, *arm.flags, "--worker-urls", *(worker.url for worker in workers)]


def _dynamo(arm: Arm, python: Path, port: int, place: Place) -> list[str]:
    words = [str(python), "-m", "dynamo.frontend", "--http-host", _HOST, "--http-port", str(port)]
    words += ["--router-mode", arm.policy, "--discovery-backend", "file"]
    words += ["--request-plane", "tcp", "--event-plane", "zmq", "--migration-limit", str(MIGRATION_LIMIT)]
    if arm.settings:
        words += ["--router-policy-config", str(place.policy_file(arm))]
    return [*words, *arm.flags]
