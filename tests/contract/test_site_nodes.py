"""What the contract runs on a site's nodes: recorders of events, routers beside the deployed one, and their end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.contract import site_events, site_routers, site_units
from kvstrata.contract.arms import Arm
from kvstrata.contract.site import EDGE, SiteTarget
from kvstrata.contract.site_counters import Counted, cache_size
from kvstrata.contract.site_events import SiteEvents, recorder_source, shift_s
from kvstrata.contract.site_routers import changed, deployed_argv
from kvstrata.drain.replicas import every
from kvstrata.verify import prometheus
from kvstrata.verify.check import UnableError
from tests.contract.site_fakes import DeployedSite
from tests.verify.fakes.shell import FakeShell

FRONTEND = (
    "{ path=/opt/x/bin/python ; argv[]=/opt/x/bin/python -m dynamo.frontend --http-host 10.9.0.11 --http-port 9000 "
    "--router-mode kv --router-policy-config /etc/kvstrata/dynamo/policy.yaml ; ignore_errors=no }"
)


def test_another_router_has_all_flags_of_the_deployed_one_but_those_of_its_policy() -> None:
    words = "r --host h --port 9000 --policy kv_aware --kv-event-source a=b --kv-event-source c=d --log-level info"
    found = changed(words.split(), {"--host": "x", "--port": "1", "--policy": "random"}, ["--kv-event-source"])
    assert found == ["r", "--host", "x", "--port", "1", "--policy", "random", "--log-level", "info"]


def test_a_flag_that_cannot_be_changed_is_an_error() -> None:
    with pytest.raises(BenchError, match="no --policy"):
        changed(["r", "--host", "h"], {"--host": "x", "--policy": "random"}, [])


def test_a_unit_without_a_command_is_an_error() -> None:
    with pytest.raises(BenchError, match="no command"):
        deployed_argv(FakeShell({"systemctl show": ""}), "vllm-router.service")


def test_a_unit_is_stopped_whatever_ends_the_block() -> None:
    shell = FakeShell({"systemctl stop": "", "systemd-run": ""})
    with pytest.raises(KeyboardInterrupt), site_units.running(shell, "x", ["true"], {"DynamicUser": "yes"}):
        raise KeyboardInterrupt
    stop = "systemctl stop -- kvstrata-routing-x.service"
    assert shell.ran[0] == stop
    assert shell.ran[-1] == stop
    assert "--property=DynamicUser=yes" in shell.ran[1]
    # Where this process cannot stop it any more, systemd does.
    assert "--property=RuntimeMaxSec=" in shell.ran[1]
    assert shell.ran[1].endswith("-- true")


def test_a_unit_that_does_not_start_is_an_error_and_is_cleaned_up() -> None:
    shell = FakeShell({"systemctl stop": ""})
    with pytest.raises(UnableError, match="systemd-run"), site_units.running(shell, "x", ["true"], {}):
        pass
    assert shell.ran[-1].startswith("systemctl stop")


def test_routers_beside_and_recorders_are_gone_afterwards(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site:
        with SiteTarget(site.site, tmp_path) as target:
            assert site.units["node1"] == {"kvstrata-routing-events-node1-0.service"}
            with target.route(target.compared()[0]) as front:
                assert "kvstrata-routing-round_robin.service" in site.units["node1"]
                assert front.url == f"http://127.0.0.1:{site.other.port}"
            assert site.units["node1"] == {"kvstrata-routing-events-node1-0.service"}
        assert site.units == {"node1": set(), "node2": set()}
        started = next(line for line in site.shells["node1"].ran if "unit=kvstrata-routing-round_robin" in line)
    assert "--host 127.0.0.1 --port 7001 --policy round_robin --prometheus-port 7002 --worker-urls u1 u2" in started
    assert "balance" not in started


def test_a_router_that_ends_says_why(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site, SiteTarget(site.site, tmp_path) as target:
        site.shells["node1"].answers["systemctl is-active"] = ""
        site.shells["node1"].exits["systemctl is-active"] = 3
        site.shells["node1"].answers["journalctl"] = "address in use"
        with pytest.raises(BenchError, match="address in use"), target.route(target.compared()[0]):
            pass
        assert "kvstrata-routing-round_robin.service" not in site.units["node1"]


def test_a_frontend_beside_takes_no_port_of_the_deployed_one_and_finds_its_workers(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site:
        shell = site.shells["node1"]
        shell.answers |= {
            "systemctl show --property=ExecStart": FRONTEND,
            "systemctl show --property=EnvironmentFiles": "/etc/kvstrata/dynamo/frontend.env (ignore_errors=no)",
            "systemctl show --property=SupplementaryGroups": "",
            "systemctl show --property=ReadWritePaths": "/run/kvstrata-dynamo",
        }
        workers = [
            {"endpoint": "generate", "transport": {"tcp": f"10.9.0.1{n}:9200/x"}, "instance_id": n} for n in (1, 2)
        ]
        said = {"/health": {"instances": workers}, "/v1/models": {"data": [{"id": "m"}]}}
        site.other.answer = lambda path, body: said[path]  # type: ignore[method-assign]
        ctx = site.site.contexts["node1"]
        arm = Arm("dynamo-random", "dynamo", "random", judged=False)
        assert ctx.node.router is not None
        with site_routers.beside(ctx, ctx.node.router, arm, 2):
            started = next(line for line in shell.ran if line.startswith("systemd-run"))
    assert "--property=EnvironmentFile=/etc/kvstrata/dynamo/frontend.env" in started
    assert "--property=ReadWritePaths=/run/kvstrata-dynamo" in started
    assert "SupplementaryGroups" not in started
    assert started.endswith(
        "/usr/bin/env DYN_TCP_RESPONSE_STREAM_PORT=7002 /opt/x/bin/python -m dynamo.frontend --http-host 127.0.0.1 "
        "--http-port 7001 --router-mode random"
    )


def test_the_recorder_can_be_given_to_systemd_as_an_argument() -> None:
    source = recorder_source()
    # systemd would put variables of its environment in their places.
    assert "$" not in source
    assert len(source) < 100_000
    compile(source, "recorder", "exec")


def events_of(site: DeployedSite, folder: Path) -> SiteEvents:
    return SiteEvents({one.name: (one, site.shells[one.node.name]) for one in every(site.cluster)}, folder)


def test_events_are_read_once_each_and_those_of_other_tiers_not_at_all(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site, events_of(site, tmp_path) as events:
        events.start()
        assert events.read() == []
        site.engines["node2"].complete({"prompt": "x" * 40, "max_tokens": 1})
        (first,) = events.read()
        assert first.worker == "node2/0"
        elsewhere = {"type": "BlockStored", "medium": "CPU", "block_hashes": ["z"], "parent_block_hash": None}
        line = {"at": time.monotonic(), "worker": "node1/0", "seq": 0, "events": [elsewhere]}
        site.engines["node1"].log += json.dumps(line) + "\n"
        events.emptied("node2/0")
        read = events.read()
    assert read[0] == first
    assert [batch.events for batch in read[1:]] == [[], [{"type": "AllBlocksCleared"}]]


def test_a_worker_of_dynamo_is_heard_at_its_units_own_socket_and_again_after_its_restart(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site:
        for node in site.document["nodes"]:
            node["engines"][0] |= {"server": "dynamo", "rpc_port": 9200, "event_port": None}
        paths = iter(["/tmp/private-1/tmp/kv-events", "/tmp/private-2/tmp/kv-events"])  # noqa: S108
        for shell in site.shells.values():
            shell.answers["sh -c"] = "/tmp/other/tmp/kv-events"  # noqa: S108
        site.shells["node1"].answers["sh -c"] = lambda argv: next(paths)
        with events_of(site, tmp_path) as events:
            events.start()
            events.follow("node1/0")
        runs = [line for line in site.shells["node1"].ran if line.startswith("systemd-run")]
    assert "node1/0=ipc:///tmp/private-1/tmp/kv-events" in runs[0]
    assert "node1/0=ipc:///tmp/private-2/tmp/kv-events" in runs[1]
    assert site.units == {"node1": set(), "node2": set()}


def test_a_recorder_that_does_not_begin_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_events, "_READY_S", 0.0)
    with DeployedSite(tmp_path) as site:
        site.shells["node2"].exits["test -s"] = 1
        with pytest.raises(BenchError, match="nobody writes down the KV events of node2/0"):
            SiteTarget(site.site, tmp_path).__enter__()
        assert site.units == {"node1": set(), "node2": set()}


def test_another_machines_clock_is_told_by_the_quickest_answer() -> None:
    told, clock = iter([1005.0, 1001.2, 1002.0, 1003.0, 1004.0]), iter([0, 5, 1, 1.2, 2, 4, 3, 6, 4, 8])

    def run(argv: Sequence[str]) -> str:
        return str(next(told))

    shell = FakeShell({"cat": "another-boot", "/opt/kvstrata/current/bin/python": run})
    assert shift_s(shell, lambda: next(clock)) == pytest.approx(1000.0)
    own = Path("/proc/sys/kernel/random/boot_id").read_text()
    assert shift_s(FakeShell({"cat": own})) == 0.0


def test_an_engine_tells_its_cache_or_a_frontend_does() -> None:
    engine = prometheus.parse('vllm:cache_config_info{block_size="128",num_gpu_blocks="80"} 1.0')
    assert cache_size("a", engine, None) == (80, 128)
    none = prometheus.parse("x 1")
    frontend = prometheus.parse(
        'dynamo_frontend_model_total_kv_blocks{model="m"} 80\ndynamo_frontend_model_kv_cache_block_size{model="m"} 16'
    )
    assert cache_size("a", none, frontend) == (80, 16)
    with pytest.raises(BenchError, match="a does not tell how large its KV cache is"):
        cache_size("a", none, none)


def test_counters_are_differences() -> None:
    counted = Counted(5, 10, 20, 30) - Counted(1, 2, 3, 4)
    assert counted == Counted(4, 8, 17, 26)
    assert counted.prompt_tokens == 51


def test_what_a_site_lacks_is_said_before_anything_starts(tmp_path: Path) -> None:
    with DeployedSite(tmp_path) as site:
        with pytest.raises(BenchError, match="--through is edge, and the inventory has none"):
            SiteTarget(site.site, tmp_path, EDGE)
        site.document["nodes"][0]["router"] = None
        with pytest.raises(BenchError, match="no router"):
            SiteTarget(site.site, tmp_path)
        site.document["nodes"] = site.document["nodes"][:1]
        with pytest.raises(BenchError, match="1 replicas; allowed: 2 or more"):
            SiteTarget(site.site, tmp_path)
        assert all(not units for units in site.units.values())
