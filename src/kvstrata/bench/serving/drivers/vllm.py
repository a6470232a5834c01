"""`vllm bench serve` as the load generator, for workloads of single requests in closed loop. Written for vLLM 0.31.

Its `custom` dataset takes text and tokenizes it only to count; the text is made so that the engine reads exactly the
workload's tokens (workloads/vocabulary.py). It keeps gaps between pieces of an answer and not how many tokens each had,
and no token ids.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import local_host
from kvstrata.bench.serving.drivers import program
from kvstrata.bench.serving.drivers.completion import PATH
from kvstrata.bench.serving.model import Conversation, Endpoint, Load, RequestSample, Workload
from kvstrata.bench.serving.workloads.vocabulary import Vocabulary, of_model

NAME = "vllm"
_STARTS_S = 240.0
# The model is a folder; nobody may look for it elsewhere, or tell that it was used.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}
_RESULT = "result.json"
_NOTES = (
    "vllm bench serve gives gaps between pieces: where a piece had several tokens, there are fewer gaps than tokens",
    "vllm bench serve does not tell how late its own event loop ran",
)


@dataclass(frozen=True)
class VllmDriver:
    """Sends workloads of single requests in closed loop. model: the folder with the served model's tokenizer."""

    path: Path
    model: Path

    @property
    def name(self) -> str:
        """Its name."""
        return NAME

    def refuses(self, workload: Workload) -> str | None:
        """Return why it cannot send conversations or traces, None for single requests in closed loop."""
        if workload.multi_turn:
            return "its requests are all known before the first is sent, so no prompt can have an answer in it"
        if workload.open_loop:
            return "it takes a rate, or the times of a trace whose prompts it makes up anew in each process"
        return None

    def run(self, endpoint: Endpoint, workload: Workload, sample_outputs: frozenset[str], deadline_s: float) -> Load:
        """Send the workload, as kvstrata.bench.serving.model.Driver says, but for output ids: it has none."""
        if reason := self.refuses(workload):
            raise BenchError(f"{NAME} cannot send {workload.name}: {reason}")
        if sample_outputs:
            raise BenchError("vllm bench serve keeps no token ids, so it cannot bring a correctness sample")
        vocabulary = of_model(self.model)
        with tempfile.TemporaryDirectory(prefix="kvstrata-vllm-bench-") as name:
            folder = Path(name)
            write_dataset(folder / "data.jsonl", vocabulary, workload)
            command = self._command(folder, endpoint, workload)
            stopped = program.run("vllm-bench", command, folder, deadline_s + _STARTS_S, self._environment(folder))
            if stopped:
                raise BenchError(f"{stopped}; it writes its results at the end only, so nothing is left of this run")
            return read_result(folder / _RESULT, workload)

    def _environment(self, folder: Path) -> dict[str, str]:
        """Return the program's variables: a CPU build of vLLM does not know itself by that name without some."""
        python = self.path.with_name("python")
        own = local_host.environment(python, folder / "python").variables() if python.exists() else {}
        return {**own, **_ENVIRONMENT}

    def _command(self, folder: Path, endpoint: Endpoint, workload: Workload) -> list[str]:
        count = len(workload.conversations)
        flags = {
            "--backend": "openai",
            "--base-url": endpoint.url,
            "--endpoint": PATH,
            "--model": str(self.model),
            "--served-model-name": endpoint.model,
            "--dataset-name": "custom",
            "--dataset-path": str(folder / "data.jsonl"),
            "--custom-output-len": "-1",
            "--num-prompts": str(count),
            "--max-concurrency": str(min(workload.active or count, count)),
            "--num-warmups": "0",
            "--ready-check-timeout-sec": "0",
            "--extra-body": json.dumps({"temperature": 0, "add_special_tokens": False}),
            "--result-dir": str(folder),
            "--result-filename": _RESULT,
        }
        switches = ["--ignore-eos", "--disable-shuffle", "--skip-chat-template", "--no-oversample", "--disable-tqdm"]
        switches += ["--save-result", "--save-detailed"]
        headers = [part for name, value in endpoint.headers.items() for part in ("--header", f"{name}={value}")]
        return [
            str(self.path),
            "bench",
            "serve",
            *(part for flag in flags.items() for part in flag),
            *switches,
            *headers,
        ]


def find(path: Path | None) -> Path:
    """Return vLLM's program: the one named, else the one on PATH.

    Raises:
        BenchError: there is none.
    """
    found = shutil.which(str(path or NAME))
    if not found:
        raise BenchError(f"no vllm: given {path or 'nothing'}, and none on PATH; allowed: the path of the program vllm")
    return Path(found).absolute()


def write_dataset(path: Path, vocabulary: Vocabulary, workload: Workload) -> None:
    """Write the `custom` dataset: a line for each request, in order.

    Raises:
        BenchError: there is no tokenizer to say the prompts' text.
    """
    with path.open("w") as lines:
        for conversation in workload.conversations:
            turn = conversation.turns[0]
            text = turn.prompt if isinstance(turn.prompt, str) else vocabulary.to_text(turn.prompt)
            lines.write(json.dumps({"prompt": text, "output_tokens": turn.output_tokens}) + "\n")


def read_result(path: Path, workload: Workload) -> Load:
    """Return what the detailed result says, one sample for each request of the workload.

    Raises:
        BenchError: there is none, or it is not in the form that this driver knows.
    """
    try:
        result = json.loads(path.read_text())
        begin = min(result["start_times"])
        rows = [
            _sample(conversation, result, index, begin) for index, conversation in enumerate(workload.conversations)
        ]
        return Load(NAME, tuple(rows), float(result["duration"]), notes=_NOTES)
    except OSError as error:
        raise BenchError(f"vllm bench serve left no result: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BenchError(f"the result of vllm bench serve is not what version 0.31 writes: {error!r}") from error


def _sample(conversation: Conversation, result: Mapping[str, Sequence[Any]], index: int, begin: float) -> RequestSample:
    turn = conversation.turns[0]
    started, gaps = result["start_times"][index] - begin, tuple(result["itls"][index])
    said = result["errors"][index].strip()
    output = result["output_lens"][index]
    error = said.splitlines()[-1] if said else None
    if not error and output != turn.output_tokens:
        error = f"short: {output} of {turn.output_tokens} tokens"
    ttft = result["ttfts"][index] or None
    return RequestSample(
        conversation.name,
        0,
        started,
        started,
        ttft,
        gaps,
        result["latencies"][index],
        result["input_lens"][index],
        output,
        error=error,
    )
