"""The faults themselves, as far as no lab is needed: what they change, and that it is put back byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kvstrata.lab.errors import LabError
from kvstrata.lab.planted import certificate, run, services
from kvstrata.lab.planted.faults import FAULTS
from kvstrata.lab.planted.site import Node

# The twelve faults of which verify names each by one check.
TABLE = {
    "wrong-mount": "host.mount",
    "dead-breaker": "cache.breaker",
    "stale-identity": "cache.identity",
    "swapped-model": "engine.weights",
    "lossy-link": "host.link",
    "slow-drive": "host.drive_speed",
    "router-without-affinity": "router.policy",
    "expired-certificate": "store.certificate",
    "full-store": "store.capacity",
    "clock-skew": "host.clock",
    "wrong-numa": "host.numa",
    "engine-without-connector": "engine.connector",
}
UNIT = """[Service]
ExecStart=/opt/kvstrata/current/bin/vllm-router \\
    --host 10.77.0.11 \\
    --policy cache_aware \\
    --worker-urls http://10.77.0.11:8000
Restart=always
"""


class LocalNode(Node):
    """A node whose scripts run here, with the paths they name below a folder, and a systemctl that notes its calls."""

    def run(self, script: str, timeout_s: float = 300) -> str:
        root = Path(self.lab)
        script = script.replace("/etc/", f"{root}/etc/").replace("/run/", f"{root}/run/")
        path = f"{root}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-eu"], input=script, capture_output=True, text=True, env={"PATH": path}, check=True
        )
        return done.stdout


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalNode:
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    systemctl.chmod(0o755)
    monkeypatch.setattr(services, "_KEPT", str(tmp_path / "kept"))
    return LocalNode(str(tmp_path), "node2", "10.0.0.2", "c", ())


def calls(node: Node) -> list[str]:
    path = Path(node.lab, "calls")
    return path.read_text().splitlines() if path.exists() else []


def test_there_are_the_twelve_faults_each_with_its_check() -> None:
    assert {fault.name: fault.check for fault in FAULTS} == TABLE


def test_faults_are_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    assert [fault.name for fault in run.named(["full-store", "wrong-mount"])] == ["full-store", "wrong-mount"]
    assert run.named([]) == FAULTS
    with pytest.raises(LabError, match="fault fire: there are wrong-mount"):
        run.named(["fire"])


def test_a_file_is_changed_and_put_back_as_it_was(node: LocalNode) -> None:
    path = Path(node.lab, "etc/kvstrata/vllm/0.yaml")
    path.parent.mkdir(parents=True)
    text = 'model: /srv\nkv-transfer-config: \'{"kv_role": "kv_both"}\'\nport: 8000\n$`\'"\\n'
    path.write_text(text)
    path.chmod(0o640)
    services.edit(node, "/etc/kvstrata/vllm/0.yaml", "vllm@0.service", services.without_connector)
    assert path.read_text() == "model: /srv\nport: 8000\n$`'\"\\n"
    # Planted again by one who does not know: the first original is the one that is kept.
    services.edit(node, "/etc/kvstrata/vllm/0.yaml", "vllm@0.service", lambda text: text + "twice\n")
    services.put_back(node, "/etc/kvstrata/vllm/0.yaml", "vllm@0.service")
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o640
    assert calls(node) == ["restart vllm@0.service"] * 3


def test_what_is_not_planted_stays_as_it_is_and_nothing_restarts(node: LocalNode) -> None:
    services.put_back(node, "/etc/kvstrata/vllm/0.yaml", "vllm@0.service")
    services.no_drop_in(node, "kvrocks@d1.service")
    assert calls(node) == []


def test_a_drop_in_is_added_until_the_next_boot_and_removed(node: LocalNode) -> None:
    services.drop_in(node, "kvrocks@d1.service", "[Service]\nCPUAffinity=0\n")
    path = Path(node.lab, "run/systemd/system/kvrocks@d1.service.d/planted.conf")
    assert path.read_text() == "[Service]\nCPUAffinity=0\n"
    services.no_drop_in(node, "kvrocks@d1.service")
    assert not path.exists()
    assert calls(node) == ["daemon-reload", "restart kvrocks@d1.service"] * 2


def test_the_router_keeps_its_command_line_but_for_the_policy() -> None:
    assert services.in_turn(UNIT) == (
        "ExecStart=/opt/kvstrata/current/bin/vllm-router \\\n    --host 10.77.0.11 \\\n    --policy round_robin \\\n"
        "    --worker-urls http://10.77.0.11:8000"
    )
    with pytest.raises(LabError, match="0 options --policy"):
        services.in_turn("[Service]\nExecStart=/bin/true\n")


def test_an_engine_that_has_no_connector_cannot_lose_it() -> None:
    with pytest.raises(LabError, match="0 lines kv-transfer-config"):
        services.without_connector("model: /srv\n")


def test_only_the_namespace_of_the_cache_changes() -> None:
    before = {"flags": {"--port": 5555}, "l2": {"namespace": "kvs-1", "endpoints": []}}
    after = json.loads(services.with_namespace(json.dumps(before)))
    assert after == {**before, "l2": {"namespace": services.OTHER_NAMESPACE, "endpoints": []}}


def test_certificates_are_of_one_authority_and_key_and_one_has_expired() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    files = certificate.certificates([IPv4Address("10.77.0.11"), IPv4Address("10.77.0.12")], now)
    authority, good, expired = (
        x509.load_pem_x509_certificate(files[name].encode()) for name in ("ca", "cert", "expired")
    )
    for made in (good, expired):
        made.verify_directly_issued_by(authority)
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("10.77.0.11"), IPv4Address("10.77.0.12")]
    assert good.public_key() == expired.public_key()
    assert expired.not_valid_after_utc == now - timedelta(days=1)
    assert good.not_valid_after_utc > now + timedelta(days=30)
    other = certificate.certificates([IPv4Address("10.77.0.11")], now)
    with pytest.raises(InvalidSignature):
        x509.load_pem_x509_certificate(other["cert"].encode()).verify_directly_issued_by(authority)
