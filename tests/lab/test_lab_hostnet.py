from pathlib import Path

import pytest

from kvstrata.lab import hostnet, shell
from kvstrata.lab.hostnet import Snapshot, hollow_tables, newcomers, parse_save, removals

FIXTURES = Path(__file__).parent / "fixtures"


def saved(name: str) -> str:
    return (FIXTURES / f"iptables-{name}.txt").read_text()


def test_everything_podman_left_is_removed_references_first() -> None:
    commands = [" ".join(words) for words in removals({}, parse_save(saved("lab-up")))]
    assert commands[:3] == [
        "-t filter -D FORWARD -m comment --comment netavark firewall plugin rules -j NETAVARK_FORWARD",
        "-t filter -F NETAVARK_FORWARD",
        "-t filter -X NETAVARK_FORWARD",
    ]
    nat = [command for command in commands if command.startswith("-t nat")]
    assert [command.split()[2] for command in nat] == ["-D"] * 4 + ["-F"] * 4 + ["-X"] * 4
    assert "-t nat -D POSTROUTING -s 10.77.0.0/24 -j NETAVARK-D757E681E0099" in nat


def test_a_comment_with_spaces_stays_one_argument() -> None:
    first = next(removals({}, parse_save(saved("lab-up"))))
    assert "netavark firewall plugin rules" in first


def test_chains_that_were_there_before_are_left_alone() -> None:
    before = parse_save(saved("lab-up"))
    assert list(removals(before, before)) == []


def test_rules_of_others_are_left_alone() -> None:
    commands = list(removals(parse_save(saved("docker")), parse_save(saved("docker-and-lab"))))
    assert [words[2] for words in commands] == ["-D", "-F", "-X"]
    assert all(words[-1] == "NETAVARK_FORWARD" for words in commands)


def test_only_new_tables_without_rules_and_with_open_policies_are_hollow() -> None:
    empty = "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
    assert hollow_tables({}, parse_save(empty)) == ["nat"]
    assert hollow_tables(parse_save(empty), parse_save(empty)) == []
    assert hollow_tables({}, parse_save(empty.replace("INPUT ACCEPT", "INPUT DROP"))) == []
    assert hollow_tables({}, parse_save(empty.replace("COMMIT", "-A INPUT -j DROP\nCOMMIT"))) == []
    assert hollow_tables({}, parse_save(empty.replace("COMMIT", ":MINE - [0:0]\nCOMMIT"))) == []


def test_chains_that_others_made_since_are_noticed() -> None:
    lab, docker = parse_save(saved("lab-up")), parse_save(saved("docker-and-lab"))
    assert newcomers({}, lab) == []
    assert newcomers({}, docker) == ["DOCKER", "DOCKER-USER"]
    assert newcomers(parse_save(saved("docker")), docker) == []


@pytest.mark.parametrize(("now", "expected"), [("lab-up", "0"), ("docker-and-lab", "1")])
def test_forwarding_goes_back_unless_somebody_else_came_to_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: str, expected: str
) -> None:
    record, ip_forward = tmp_path / "before.json", tmp_path / "ip_forward"
    ip_forward.write_text("1")
    snapshots = iter([Snapshot("0", {"iptables": ""}, []), Snapshot("1", {"iptables": saved(now)}, [])])
    monkeypatch.setattr(hostnet, "take", lambda: next(snapshots))
    monkeypatch.setattr(hostnet, "_IP_FORWARD", ip_forward)
    monkeypatch.setattr(shell, "run", lambda _argv, **_: "")
    hostnet.record(record)
    hostnet.restore(record)
    assert ip_forward.read_text() == expected
    assert not record.exists()


def test_what_was_recorded_first_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "before.json"
    record.write_text("the first")
    monkeypatch.setattr(hostnet, "take", lambda: Snapshot("1", {}, []))
    hostnet.record(record)
    assert record.read_text() == "the first"
