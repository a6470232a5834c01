"""The processes of the engines, and the files of the model."""

from __future__ import annotations

import json

from kvstrata.verify.layers.engine import process
from kvstrata.verify.weights import on_node
from tests.verify.simulated.commands.registry import answers
from tests.verify.simulated.state import Machine
from tests.verify.simulated.vllm import weights_digest

MODEL_FILES = {"config.json": 1200, "tokenizer.json": 9_000_000, "model.safetensors": 16_000_000_000}


@answers("sh", "-c", process._SCRIPT)
def _engines(machine: Machine, words: list[str]) -> str:
    said = ""
    for unit in words[4:]:
        said += f"=====kvstrata unit {unit} {machine.pid(unit)} 1764000000\n"
        said += "/opt/kvstrata/current/venv/bin/python\n/opt/kvstrata/current/venv/bin/vllm\nserve\n"
        said += f"--config\n/etc/kvstrata/vllm/{unit}.yaml\n=====kvstrata config 1763990000\n"
        said += f"model: {machine.cluster.model.path}\n"
        lmcache = machine.node.lmcache
        if machine.state.connector and lmcache is not None:
            extra = {"lmcache.mp.host": "tcp://localhost", "lmcache.mp.port": lmcache.zmq_port}
            transfer = {"kv_connector": process.CONNECTOR, "kv_role": "kv_both", "kv_connector_extra_config": extra}
            said += f"{process.TRANSFER}: '{json.dumps(transfer)}'\n"
    return said


@answers("python3", "-c", on_node)
def _weights(machine: Machine, words: list[str]) -> str:
    weights = machine.state.weights
    return json.dumps(
        {name: {"size": size, "sha256": weights_digest(weights, name)} for name, size in MODEL_FILES.items()}
    )
