"""What the playbooks make of a site with Dynamo: where etcd is, how processes meet, and which ports are taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.paths import PROJECT

WANTED = (
    "_site_etcd_members",
    "_site_is_etcd",
    "vllm_discovery",
    "dynamo_discovery",
    "dynamo_replica_sync",
    "vllm_kv_events",
    "preflight_ports",
    "etcd_authority_dir",
)


def site(folder: Path, hosts: int, **variables: Any) -> dict[str, dict[str, Any]]:
    """Return the WANTED variables of each host of a site of that many, whose first two are routers."""
    names = [f"n{number}" for number in range(1, hosts + 1)]
    inventory = {
        "kvstrata": {
            "hosts": {name: {"ansible_host": f"10.0.0.{number}"} for number, name in enumerate(names, 1)},
            "vars": {
                "kvstrata_site": "test",
                "kvstrata_accelerator": "cpu",
                "kvstrata_state_dir": str(folder / "state"),
                "kvstrata_drives": [],
                "kvstrata_model": {"name": "m", "path": "/srv/m", "revision": "1", "max_model_len": 2048},
                "kvstrata_dram_cache_gib": 1,
                **variables,
            },
        },
        "router": {"hosts": {name: {} for name in names[:2]}},
    }
    told = {"content": "{{ wanted | to_json }}", "dest": str(folder) + "/{{ inventory_hostname }}.json", "mode": "0600"}
    play = {
        "hosts": "kvstrata",
        "gather_facts": False,
        "vars_files": [str(PROJECT / "playbooks" / "vars" / "roles.yml")],
        "vars": {"wanted": {name: "{{ " + name + " }}" for name in WANTED}},
        "tasks": [{"ansible.builtin.copy": told, "delegate_to": "localhost", "connection": "local"}],
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    program = Path(sys.executable).with_name("ansible-playbook")
    argv = [str(program), str(folder / "play.yml"), "-i", str(folder / "hosts.yml")]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def ports(host: dict[str, Any]) -> dict[str, int]:
    return {port["variable"]: int(port["port"]) for port in host["preflight_ports"]}


def test_one_host_has_a_folder_and_no_etcd(tmp_path: Path) -> None:
    (host,) = site(tmp_path, 1, kvstrata_serving_profile="dynamo").values()
    events = {"publish": ["tcp://10.0.0.1:9301"], "subscribe": ["tcp://10.0.0.1:9302"]}
    assert host["vllm_discovery"] == {"backend": "file", "folder": "/run/kvstrata-dynamo", "events": events}
    assert host["_site_etcd_members"] == {}
    assert host["dynamo_replica_sync"] is False


@pytest.mark.parametrize(("hosts", "members"), [(2, ["n1"]), (4, ["n1", "n2", "n3"])])
def test_several_hosts_have_etcd_on_the_first_one_or_three(tmp_path: Path, hosts: int, members: list[str]) -> None:
    (tmp_path / "state/tls/etcd").mkdir(parents=True)
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / "state/tls/etcd" / name).write_text(f"{name}\nof a test\n")
    found = site(tmp_path, hosts, kvstrata_serving_profile="dynamo")
    assert [name for name, host in found.items() if host["_site_is_etcd"]] == members
    last = found[f"n{hosts}"]
    urls = [f"https://10.0.0.{name[1:]}:2379" for name in members]
    assert last["vllm_discovery"] == last["dynamo_discovery"] | {"backend": "etcd", "endpoints": urls, "lease_s": 60}
    assert last["vllm_discovery"]["events"]["publish"] == ["tcp://10.0.0.1:9301", "tcp://10.0.0.2:9301"]
    assert last["vllm_discovery"]["key"] == "client.key\nof a test\n"
    assert last["dynamo_replica_sync"] is True
    first = ports(found["n1"])
    assert {
        first[name] for name in ("vllm_first_rpc_port", "dynamo_response_port", "etcd_peer_port", "router_port")
    } == {*(9200, 9300, 2380, 9000)}
    # The engine tells its worker alone what it has: no port, but events all the same.
    assert last["vllm_kv_events"] is True
    assert "vllm_first_event_port" not in first
    assert "router_metrics_port" not in first


def test_without_dynamo_nothing_of_it_is_there(tmp_path: Path) -> None:
    for host in site(tmp_path, 3).values():
        assert host["vllm_discovery"] == {}
        assert host["_site_etcd_members"] == {}
        assert not {"vllm_first_rpc_port", "dynamo_response_port", "etcd_port"} & set(ports(host))
