"""NVIDIA's AIPerf as the load generator: an external program, fed with our requests and read back token by token.

Each request is handed to it whole (its `mooncake_trace` files take a `payload` that is sent as it is), so the engine
gets the same bytes as from our own generator; its raw export has every piece of every answer with its time, which is
read by the same code. Written for AIPerf 0.13.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.drivers import program
from kvstrata.bench.serving.drivers.completion import Completion, request_body, short_of
from kvstrata.bench.serving.drivers.health import quantile
from kvstrata.bench.serving.model import ClientHealth, Conversation, Endpoint, Load, RequestSample, Workload

NAME = "aiperf"
# It loads its parts, a tokenizer and the file before it sends, and writes its reports afterwards.
_STARTS_S = 240.0
_NANO = 1e9
# Not HF_HUB_OFFLINE: with it AIPerf 0.13 takes a tokenizer's folder for a name on the hub.
# Its parts are processes that must all have started within that time, 30 s by default: too short on few busy cores.
_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "AIPERF_SERVICE_REGISTRATION_TIMEOUT": "180"}


@dataclass(frozen=True)
class AIPerfDriver:
    """Sends workloads of single requests. tokenizer: a folder with one, which AIPerf wants and does not need."""

    path: Path
    tokenizer: Path

    @property
    def name(self) -> str:
        """Its name."""
        return NAME

    def refuses(self, workload: Workload) -> str | None:
        """Return why it cannot send conversations of more than one turn, None for single requests."""
        if workload.multi_turn:
            return (
                "its completions endpoint takes one turn only, and with chat a template and the answers' text are "
                "tokenized anew, so lengths and prefixes are not the workload's"
            )
        return None

    def run(self, endpoint: Endpoint, workload: Workload, sample_outputs: frozenset[str], deadline_s: float) -> Load:
        """Send the workload, as kvstrata.bench.serving.model.Driver says."""
        if reason := self.refuses(workload):
            raise BenchError(f"{NAME} cannot send {workload.name}: {reason}")
        with tempfile.TemporaryDirectory(prefix="kvstrata-aiperf-") as name:
            folder = Path(name)
            write_input(folder / "input.jsonl", endpoint, workload, sample_outputs)
            command = self._command(folder, endpoint, workload, deadline_s)
            stopped = program.run(NAME, command, folder, deadline_s + _STARTS_S, _ENVIRONMENT)
            return read_records(
                folder / "out" / "profile_export_raw.jsonl", workload, sample_outputs, deadline_s, stopped
            )

    def _command(self, folder: Path, endpoint: Endpoint, workload: Workload, deadline_s: float) -> list[str]:
        flags = {
            "--model": endpoint.model,
            "--url": endpoint.url,
            "--endpoint-type": "completions",
            "--tokenizer": str(self.tokenizer),
            "--input-file": str(folder / "input.jsonl"),
            "--custom-dataset-type": "mooncake_trace",
            "--dataset-sampling-strategy": "sequential",
            "--request-timeout-seconds": f"{endpoint.timeout_s:g}",
            "--export-level": "raw",
            "--artifact-dir": str(folder / "out"),
            "--ui": "none",
        }
        switches = ["--streaming", "--use-server-token-count", "--no-gpu-telemetry", "--no-server-metrics"]
        if workload.active is None:
            switches += ["--fixed-schedule"]
        else:
            count = len(workload.conversations)
            flags |= {"--concurrency": str(min(workload.active, count)), "--request-count": str(count)}
            flags |= {"--benchmark-duration": f"{deadline_s:g}", "--benchmark-grace-period": "0"}
        headers = [part for name, value in endpoint.headers.items() for part in ("--header", f"{name}:{value}")]
        return [str(self.path), "profile", *(part for flag in flags.items() for part in flag), *switches, *headers]


def find(path: Path | None) -> Path:
    """Return AIPerf's program: the one named, else the one on PATH.

    Raises:
        BenchError: there is none.
    """
    found = shutil.which(str(path or NAME))
    if not found:
        raise BenchError(
            f"no AIPerf: given {path or 'nothing'}, and none on PATH; allowed: --aiperf PATH "
            "(pip install aiperf==0.13.0 in an environment of its own)"
        )
    return Path(found).absolute()


def write_input(path: Path, endpoint: Endpoint, workload: Workload, kept: frozenset[str]) -> None:
    """Write AIPerf's input: a line for each request, whole, with its time (ms) in open loop."""
    with path.open("w") as lines:
        for conversation in workload.conversations:
            turn = conversation.turns[0]
            body = request_body(endpoint, turn.prompt, turn, ids=conversation.name in kept)
            entry: dict[str, Any] = {"session_id": conversation.name, "output_length": turn.output_tokens}
            if conversation.start_s is not None:
                entry["timestamp"] = round(conversation.start_s * 1000, 3)
            lines.write(f'{json.dumps(entry)[:-1]}, "payload": {body.decode()}}}\n')


def read_records(
    path: Path, workload: Workload, kept: frozenset[str], deadline_s: float, stopped: str | None = None
) -> Load:
    """Return what AIPerf's raw export says, one sample for each request of the workload.

    Raises:
        BenchError: there is no export, or it is not in the form that this driver knows.
    """
    try:
        records = {record["metadata"]["conversation_id"]: record for record in _lines(path)}
        begin = _begin(records, workload)
        samples = tuple(
            _sample(entry, records.get(entry.name), begin, kept, deadline_s) for entry in workload.conversations
        )
        ends = [record["metadata"]["request_end_ns"] / _NANO - begin for record in records.values()]
    except OSError as error:
        raise BenchError(f"AIPerf left no raw export: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"AIPerf's raw export is not what version 0.13 writes: {error!r}") from error
    late = (
        [sample.started_s - sample.scheduled_s for sample in samples if not _unsent(sample)]
        if workload.open_loop
        else []
    )
    notes = ("AIPerf does not tell how late its own event loops ran", *([stopped] if stopped else []))
    return Load(NAME, samples, max(ends, default=0.0), ClientHealth(late_p99_s=quantile(late, 0.99)), notes)


def _lines(path: Path) -> Iterator[Any]:
    with path.open() as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _begin(records: Mapping[str, Any], workload: Workload) -> float:
    """Return the wall clock of the load's begin: the first request's, or when the schedule began as far as it shows.

    AIPerf does not say when its schedule began; a request is never sent before it is due, so the begin is no later than
    any request's start less its due time.
    """
    due = {entry.name: entry.start_s or 0.0 for entry in workload.conversations}
    return min(
        (record["metadata"]["request_start_ns"] / _NANO - due[name] for name, record in records.items()), default=0.0
    )


def _sample(
    conversation: Conversation, record: Mapping[str, Any] | None, begin: float, kept: frozenset[str], deadline_s: float
) -> RequestSample:
    if record is None:
        why = f"not sent: the deadline of {deadline_s:g} s passed"
        return RequestSample(conversation.name, 0, deadline_s, deadline_s, None, (), 0.0, 0, 0, error=why)
    metadata, turn = record["metadata"], conversation.turns[0]
    started = metadata["request_start_ns"] / _NANO - begin
    scheduled = started if conversation.start_s is None else conversation.start_s
    answer = _answer(record.get("responses") or (), record["start_perf_ns"], started)
    error = _error(record, deadline_s) or answer.error or short_of(answer, turn)
    end = answer.arrivals[-1][0] if answer.arrivals and not error else metadata["request_end_ns"] / _NANO - begin
    return RequestSample(
        conversation.name,
        0,
        scheduled,
        started,
        answer.arrivals[0][0] - scheduled if answer.arrivals else None,
        answer.gaps,
        end - scheduled,
        turn.prompt_tokens if answer.prompt_tokens is None else answer.prompt_tokens,
        answer.output_tokens,
        answer.cached_tokens,
        error,
        tuple(answer.ids) if conversation.name in kept and answer.ids else None,
    )


def _answer(responses: Sequence[Mapping[str, Any]], sent_ns: int, started: float) -> Completion:
    """Return the answer, its times in seconds since the begin of the load."""
    answer = Completion()
    for response in responses:
        at = started + (response["perf_ns"] - sent_ns) / _NANO
        for packet in response.get("packets", ()):
            if packet["name"] == "data":
                answer.feed(f"data: {packet['value']}\n\n".encode(), at)
    return answer


def _error(record: Mapping[str, Any], deadline_s: float) -> str | None:
    error = record.get("error")
    if record["metadata"].get("was_cancelled"):
        return f"deadline: cut off after {deadline_s:g} s"
    if not error:
        return None
    if error.get("type") == "TimeoutError":
        return "timeout: no end within the time for one request"
    code = error.get("code")
    said = str(error.get("message", error))[:300]
    return f"HTTP {code}: {said}" if isinstance(code, int) and code >= 400 else f"{error.get('type', 'error')}: {said}"


def _unsent(sample: RequestSample) -> bool:
    return sample.error is not None and sample.error.startswith("not sent")
