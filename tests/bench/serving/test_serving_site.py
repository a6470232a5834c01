"""A node of a site as a stack: what is put into /run, what is read, and that all of it is taken back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.configurations import Sizes, preset
from kvstrata.bench.serving.deployed_stack import merged
from kvstrata.bench.serving.model import Json
from kvstrata.bench.serving.site_node import NodeUnits, Unit, drop_in_text, parse_facts, parse_usage, replaced_command
from kvstrata.bench.serving.site_stack import cache_file, engine_file
from kvstrata.verify.check import UnableError
from kvstrata.verify.shell import Completed, Reach

SHOWN = (
    "{ path=/opt/kvstrata/current/bin/vllm ; argv[]=/opt/kvstrata/current/bin/vllm serve --config "
    "/etc/kvstrata/vllm/0.yaml ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) }"
)
DEPLOYED: dict[str, Json] = {"model": "/srv/m", "port": 8000, "kv-transfer-config": "{}", "max-num-seqs": 8}
SERVER: dict[str, Any] = {
    "flags": {"--port": 5555, "--l1-size-gb": 64, "--chunk-size": 256},
    "l2": {"namespace": "kvs-site", "identity": {"model": "m"}, "endpoints": [{"host": "h", "port": 1}], "policy": 1},
}


@dataclass
class FakeShell:
    """Answers by what a command contains; remembers all."""

    answers: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    fails: bool = False

    def run(self, argv: Sequence[str], timeout_s: float = 30) -> Completed:
        script = argv[-1]
        self.ran.append(script)
        if self.fails:
            return Completed(tuple(argv), 1, "", "no space left on device")
        found = next((text for part, text in self.answers.items() if part in script), "")
        return Completed(tuple(argv), 0, found, "")

    def tunnel(self, host: str, port: int) -> Any:
        raise UnableError("no tunnel here")

    def probe(self, host: str, port: int, timeout_s: float = 5) -> Reach:
        return Reach.OPEN

    def close(self) -> None:
        pass


def test_a_unit_keeps_its_command_but_for_its_configuration() -> None:
    assert replaced_command(SHOWN, "/run/kvstrata-bench/vllm-0.yaml", "n1") == (
        "/opt/kvstrata/current/bin/vllm serve --config /run/kvstrata-bench/vllm-0.yaml"
    )


@pytest.mark.parametrize("shown", ["", "{ path=/bin/true ; argv[]=/bin/true ; pid=0 }"])
def test_a_unit_that_is_not_ours_is_not_touched(shown: str) -> None:
    with pytest.raises(BenchError, match=r"n1: vllm@0.service has an unexpected ExecStart"):
        replaced_command(shown, "/run/x", "n1: vllm@0.service")


def test_a_drop_in_replaces_the_command_and_adds_to_the_environment() -> None:
    environment = {"A": 'say "hi" 5%', "VLLM_SERVER_DEV_MODE": "1", "GONE": None}
    text = drop_in_text("/bin/vllm serve --config /run/x", environment)
    assert text.splitlines()[1:] == [
        *["[Service]", r'Environment="A=say \"hi\" 5%%"', 'Environment="VLLM_SERVER_DEV_MODE=1"'],
        *["UnsetEnvironment=GONE", "ExecStart=", "ExecStart=/bin/vllm serve --config /run/x"],
    ]


def test_everything_that_is_changed_lies_in_run_and_is_gone_at_the_next_boot() -> None:
    shell = FakeShell({"ExecStart": SHOWN})
    NodeUnits(shell, "n1").change([Unit("vllm@0.service", "vllm-0.yaml", "port: 8000\n", {"A": "1"})])
    script = shell.ran[-1]
    targets = [part.split()[0] for part in script.split("> ")[1:]]
    assert targets == ["/run/kvstrata-bench/vllm-0.yaml", "/run/systemd/system/vllm@0.service.d/zz-kvstrata-bench.conf"]
    assert "/etc/" not in script
    assert script.endswith("systemctl daemon-reload")


def test_restoring_removes_every_change_and_nothing_else() -> None:
    shell = FakeShell()
    NodeUnits(shell, "n1").restore()
    assert "rm -rf /run/kvstrata-bench &&" in shell.ran[-1]
    assert "rm -f /run/systemd/system/*.d/zz-kvstrata-bench.conf" in shell.ran[-1]
    assert shell.ran[-1].endswith("systemctl daemon-reload")


def test_what_an_earlier_run_left_is_seen() -> None:
    assert NodeUnits(FakeShell({"ls -d": "/run/kvstrata-bench"}), "n1").left_over()
    assert not NodeUnits(FakeShell(), "n1").left_over()


def test_what_a_node_refuses_is_told_with_its_name() -> None:
    with pytest.raises(BenchError, match=r"(?s)n1: .*no space left on device"):
        NodeUnits(FakeShell(fails=True), "n1").restore()


def test_a_site_that_was_not_deployed_by_this_checkout_is_refused() -> None:
    with pytest.raises(BenchError, match=r"n1: /etc/kvstrata/vllm/0.yaml holds no mapping"):
        NodeUnits(FakeShell({"cat": ""}), "n1").engine_options("0")


def test_deployed_configurations_are_read() -> None:
    units = NodeUnits(FakeShell({"vllm/0.yaml": yaml.safe_dump(DEPLOYED), "server.json": json.dumps(SERVER)}), "n1")
    assert units.engine_options("0") == DEPLOYED
    assert units.cache_server() == SERVER


def test_usage_is_summed_over_all_processes_of_a_unit() -> None:
    # utime, stime, cutime, cstime are 100, 20, 3 and 2 ticks; the name holds a space and a parenthesis.
    stat = "12 (VLLM::Wor (x) y) S 1 12 12 0 -1 4194560 1 0 0 0 100 20 3 2 20 0 9 0 100"
    io = "rchar: 10\nwchar: 20\nsyscr: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0"
    text = f"== vllm@0.service\n{stat}\n{io}\n== vllm@0.service\n{stat}\n== lmcache.service\n{stat}\n100\n"
    found = parse_usage(text)
    assert found["process:vllm@0.service"]["cpu_s"] == pytest.approx(2.5)
    assert found["process:vllm@0.service"]["read_bytes"] == 4096
    assert found["process:lmcache.service"] == {"cpu_s": pytest.approx(1.25)}


def test_a_machine_is_described_with_its_gpus() -> None:
    text = "model name\t: AMD EPYC\n64\nMemTotal:       1024 kB\n6.8.0\nNVIDIA H100, 81559 MiB, 580.1\n"
    assert parse_facts(text) == {
        "cpu": "AMD EPYC",
        "cores": 64,
        "memory_bytes": 1 << 20,
        "kernel": "6.8.0",
        "gpu_names": ["NVIDIA H100, 81559 MiB, 580.1"],
    }
    assert parse_facts("aarch64\n4\n\n6.8\n")["gpu_names"] == []


# --- what becomes of the deployed configuration ---


def test_without_lmcache_an_engine_has_no_connector_and_everything_else_as_deployed() -> None:
    options = engine_file(DEPLOYED, preset("none", Sizes(hbm_gib=1)))
    assert "kv-transfer-config" not in options
    assert (options["port"], options["max-num-seqs"], options["kv-cache-memory-bytes"]) == (8000, 8, 1 << 30)


def test_with_lmcache_an_engine_keeps_its_connector() -> None:
    assert engine_file(DEPLOYED, preset("dram", Sizes()))["kv-transfer-config"] == "{}"


def test_the_daemon_has_a_namespace_of_its_own_and_the_sites_stores() -> None:
    found: Any = cache_file(SERVER, preset("ssd", Sizes(staging_gib=2)), "kvs-bench", {"bench": 1})
    assert found["flags"] == {"--port": 5555, "--l1-size-gb": 2, "--chunk-size": 256}
    assert found["l2"]["namespace"] == "kvs-bench"
    assert found["l2"]["endpoints"] == SERVER["l2"]["endpoints"]
    assert found["l2"]["policy"] == 1


def test_dram_alone_has_no_stores() -> None:
    assert cache_file(SERVER, preset("dram", Sizes()), "x", {})["l2"] is None


def test_an_ssd_tier_needs_stores() -> None:
    with pytest.raises(BenchError, match="deployed without stores"):
        cache_file({**SERVER, "l2": None}, preset("ssd", Sizes()), "x", {})


def test_counters_of_nodes_are_told_apart_and_their_caches_are_summed() -> None:
    node = {"vllm:0": {"a": 1.0}, "lmcache": {"hits": 2.0}, "process:lmcache.service": {"cpu_s": 3.0}}
    found = merged({"n1": node, "n2": node})
    assert found["lmcache"] == {"hits": 4.0}
    assert set(found) == {
        *["vllm:0@n1", "vllm:0@n2", "lmcache", "process:lmcache.service@n1", "process:lmcache.service@n2"]
    }
