"""The probe on the node: how it is started, which stores it visits, and what is made of what it says."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from kvstrata.verify.check import Check, Status
from kvstrata.verify.layers import cache
from kvstrata.verify.layers.cache import adapter
from kvstrata.verify.shell import CommandTimeoutError
from tests.verify.fakes.documents import l1, l2_adapter
from tests.verify.fakes.nodes import probe
from tests.verify.fakes.site import Site

START = "sh -c \nunit=$1; shift"


def asked(site: Site) -> Check:
    """What is seen, which may be the one thing that is bad here."""
    found = list(cache.checks(site.context()))
    assert [check.id for check in found if check.bad] in ([], ["cache.adapter"])
    return next(check for check in found if check.id == "cache.adapter")


def test_a_store_where_the_chunk_does_not_come_back_is_named(site: Site) -> None:
    site.nodes["node1"].shell.answers[START] = probe({"10.9.0.12:6666": "the chunk just stored is not found"})
    check = asked(site)
    assert check.status is Status.FAIL
    assert check.seen == "10.9.0.12:6666 (d0 of node2): the chunk just stored is not found"


def test_a_store_that_is_left_alone_is_not_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.stores, "SETTLE_S", 0.0)
    adapters = [l2_adapter(up=False)]
    status = {"is_healthy": True, "chunk_size": 256, "registered_gpu_ids": [1]}
    status["storage_manager"] = {"l2_adapters": adapters, **l1()}
    site.cache["node1"].routes["/status"] = lambda body: status
    check = next(check for check in cache.checks(site.context()) if check.id == "cache.adapter")
    assert check.status is Status.PASS
    assert check.seen.endswith("left alone, so not asked: 10.9.0.11:6666 (d0 of node1)")


def test_a_release_without_the_probe_leaves_it_unproven(site: Site) -> None:
    shell = site.nodes["node1"].shell
    shell.answers[START] = "/opt/kvstrata/current/bin/python: No module named kvstrata.l2.probe"
    shell.exits[START] = 1
    check = asked(site)
    assert check.status is Status.SKIP
    assert check.seen == (
        "NOT CHECKED: that a chunk comes back from the stores: the node's release has no probe; run site.yml"
    )


@pytest.mark.parametrize(
    ("exit_code", "said", "seen"),
    [
        (2, "CREDENTIALS_DIRECTORY is not set", "the probe exited 2 and said: CREDENTIALS_DIRECTORY is not set"),
        (124, "", "the probe did not end in time"),
        (0, "<html>", "the probe said: <html>"),
        (0, '{"stores": {}}', 'the probe said: {"stores": {}}'),
    ],
)
def test_a_probe_that_could_not_look_is_an_error(site: Site, exit_code: int, said: str, seen: str) -> None:
    shell = site.nodes["node1"].shell
    shell.answers[START], shell.exits[START] = said, exit_code
    check = asked(site)
    assert (check.status, check.seen) == (Status.ERROR, f"could not check: {seen}")


def test_a_node_that_hangs_is_an_error(site: Site) -> None:
    def hang(argv: object) -> str:
        raise CommandTimeoutError("did not end within 20 s")

    site.nodes["node1"].shell.answers[START] = hang
    assert asked(site).status is Status.ERROR


def test_in_a_large_site_a_node_asks_its_own_stores_and_its_neighbours(tmp_path: Path) -> None:
    with Site(tmp_path, nodes=18) as site:
        assert [place.label for place in adapter.chosen(site.context("node3"))] == [
            "10.9.0.13:6666 (d0 of node3)",
            "10.9.0.14:6666 (d0 of node4)",
        ]
        assert [place.node.name for place in adapter.chosen(site.context("node18"))] == ["node1", "node18"]


def test_a_store_that_the_adapter_does_not_know_is_another_checks_matter(site: Site) -> None:
    status = {"is_healthy": True, "chunk_size": 256, "registered_gpu_ids": [1]}
    status["storage_manager"] = {"l2_adapters": [l2_adapter(["10.9.0.11:6666"])], **l1()}
    site.cache["node1"].routes["/status"] = lambda body: status
    found = list(cache.checks(site.context()))
    assert [check.id for check in found if check.bad] == ["cache.l2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: that the script changes the user, which takes root")
def test_the_script_runs_the_probe_as_the_services_user_with_its_credentials(tmp_path: Path) -> None:
    for name, text in {
        "systemctl": "#!/bin/sh\necho nobody\n",
        "python": '#!/bin/sh\nid -un; id -Gn; echo "$CREDENTIALS_DIRECTORY"; echo "$SECRET"; echo "$@"\n',
    }.items():
        path = tmp_path / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp/") and folder.owner() == "root":  # noqa: S108 - pytest's own folders
            folder.chmod(0o755)
    script = adapter._SCRIPT.replace("/opt/kvstrata/current/bin/python", str(tmp_path / "python"))
    argv = ["sh", "-c", script, "probe", "lmcache.service", "10.0.0.1:6666", "10.0.0.2:6666"]
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SECRET": "of the caller"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    group = subprocess.run(["id", "-gn", "nobody"], capture_output=True, text=True, check=True).stdout.strip()
    assert done.stdout.splitlines() == [
        "nobody",
        group,
        "/run/credentials/lmcache.service",
        "",
        "-I -m kvstrata.l2.probe /etc/kvstrata/lmcache/server.json 10.0.0.1:6666 10.0.0.2:6666",
    ]


def test_what_the_probe_prints_is_what_the_layer_reads(tmp_path: Path) -> None:
    """The two ends of the contract, with nothing between them: a store that nobody listens on."""
    config = tmp_path / "server.json"
    endpoint = {"host": "127.0.0.1", "port": 1, "capacity_bytes": 1 << 30}
    config.write_text(json.dumps({"flags": {}, "l2": {"namespace": "kvs-x", "endpoints": [endpoint]}}))
    (tmp_path / "stores").write_text(json.dumps({"127.0.0.1:1": "secret-pw"}))
    python = shutil.which("python3")
    assert python is not None
    done = subprocess.run(
        [python, "-m", "kvstrata.l2.probe", str(config), "127.0.0.1:1"],
        env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    visit = json.loads(done.stdout)["stores"]["127.0.0.1:1"]
    assert set(visit) == set(json.loads(probe()(["sh", "-c", "", "probe", "unit", "x:1"]))["stores"]["x:1"])
    assert visit["why"].startswith("it does not answer: connect: ")
