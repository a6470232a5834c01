from pathlib import Path

from kvstrata.lab.sshaccess import Access, render_known_hosts


def test_known_hosts_names_address_and_node_without_the_keys_comment() -> None:
    keys = {"node1": "ssh-ed25519 AAAAC3 root@node1", "node2": "ssh-ed25519 AAAAC4 root@node2\n"}
    addresses = {"node1": "10.77.0.11", "node2": "10.77.0.12"}
    assert render_known_hosts(keys, addresses) == (
        "10.77.0.11,node1 ssh-ed25519 AAAAC3\n10.77.0.12,node2 ssh-ed25519 AAAAC4\n"
    )


def test_every_login_checks_the_host_key_against_the_labs_own_file() -> None:
    words = Access(Path("/cache/lab/lab")).argv("10.77.0.11", "-o", "BatchMode=yes")
    assert "StrictHostKeyChecking=yes" in words
    assert "UserKnownHostsFile=/cache/lab/lab/known_hosts" in words
    assert words[-1] == "root@10.77.0.11"
