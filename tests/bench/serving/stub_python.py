"""In place of a Python with vLLM and LMCache: answers to what a stack starts with it, and serves HTTP as they do.

`STUB_FAILS=vllm` in the environment makes engines end at their start.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

REQUESTS: list[int] = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {
            "/health": "",
            "/healthcheck": '{"status": "healthy"}',
            "/metrics": _metrics(),
        }
        self._answer(200 if self.path in answers else 404, answers.get(self.path, ""))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/v1/completions"):
            asked = json.loads(body)
            REQUESTS.append(len(asked["prompt"]))
            self._complete(asked)
        else:
            self._answer(200, '{"success": true}')

    def _complete(self, asked: dict[str, Any]) -> None:
        ids = list(range(1, asked["max_tokens"] + 1))
        usage = {
            "prompt_tokens": len(asked["prompt"]),
            "completion_tokens": len(ids),
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        if not asked.get("stream"):
            choice = {"token_ids": ids, "logprobs": {"token_logprobs": [-1.0] * len(ids)}}
            self._answer(200, json.dumps({"choices": [choice], "usage": usage}))
            return
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "text": "x", "token_ids": [token]}], "usage": None} for token in ids
        ]
        events[-1]["choices"][0]["finish_reason"] = "length"
        events.append({"choices": [], "usage": usage})
        self._answer(200, "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def _metrics() -> str:
    total = sum(REQUESTS)
    return (
        f'vllm:prompt_tokens_total{{engine="0"}} {total}\n'
        f'vllm:prompt_tokens_by_source_total{{engine="0",source="local_compute"}} {total}\n'
        'vllm:cache_config_info{block_size="16",num_gpu_blocks="1"} 1\n'
        "lmcache_mp_lookup_hit_l2_tokens_total 0\n"
    )


def _serve(port: int) -> None:
    print("serving", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), _Handler).serve_forever()


def main(argv: list[str]) -> None:
    if argv[0] == "-c":
        versions = {"vllm": "0.31.0", "lmcache": "0.5.6"}
        print(json.dumps({"versions": versions, "site": "/nowhere", "python": "3.11.2"}))
    elif argv[1] == "vllm.entrypoints.cli.main":
        if os.environ.get("STUB_FAILS") == "vllm":
            sys.exit("ValueError: no such option")
        with open(argv[4]) as file:  # noqa: PTH123
            _serve(yaml.safe_load(file)["port"])
    elif argv[1] == "kvstrata.node.lmcache_server":
        with open(argv[2]) as file:  # noqa: PTH123
            _serve(json.load(file)["flags"]["--http-port"])
    elif argv[1] == "vllm_router.launch_router":
        print(argv, flush=True)
        _serve(int(argv[argv.index("--port") + 1]))
    else:
        sys.exit(f"unknown: {argv}")


if __name__ == "__main__":
    main(sys.argv[1:])
