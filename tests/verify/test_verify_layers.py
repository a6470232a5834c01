"""Each check of the node layers, as it passes and as it fails, and what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.layers import NODE_LAYERS
from tests.verify.fakes.shell import closed_port
from tests.verify.fakes.site import FINDMNT, Code, Site


def ask(site: Site, layer: Layer, check_id: str, alone: bool = False) -> Check:
    checks = list(NODE_LAYERS[layer](site.context(alone=alone)))
    return next(check for check in checks if check.id == check_id)


def test_everything_passes_on_a_good_site(site: Site) -> None:
    for layer, checks in NODE_LAYERS.items():
        for check in checks(site.context()):
            assert check.status is Status.PASS, check
            assert check.layer is layer


def test_every_check_names_host_expectation_and_a_command_to_look_further(site: Site) -> None:
    for layer in NODE_LAYERS.values():
        for check in layer(site.context()):
            assert check.host == "node1"
            assert check.expected
            assert check.hint.startswith("ssh root@10.9.0.11 ")


# -- host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("LoadState=not-found\nActiveState=inactive", "knows no such unit"),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=5", "failed (failed), enabled, 5 restarts"),
        ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=1", "1 restart by itself"),
        ("LoadState=loaded\nActiveState=active\nSubState=exited", "active (exited)"),
        (
            "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled",
            "active (running), disabled",
        ),
    ],
)
def test_a_unit_that_is_not_running_and_enabled_fails(site: Site, state: str, seen: str) -> None:
    site.nodes["node1"].units["kvrocks@d0.service"] = state
    check = ask(site, Layer.HOST, "host.unit")
    assert check.status is Status.FAIL
    assert check.what == "kvrocks@d0.service"
    assert seen in check.seen
    assert check.hint == "ssh root@10.9.0.11 journalctl -u kvrocks@d0.service -n 50 --no-pager"


def test_units_that_cannot_be_asked_are_errors_and_not_failures(site: Site) -> None:
    del site.nodes["node1"].shell.answers["systemctl show"]
    check = ask(site, Layer.HOST, "host.unit")
    assert check.status is Status.ERROR
    assert "exited 127" in check.seen


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"fstype": "ext4"}, "ext4 from /dev/nvme0n1"),
        ({"fstype": "xfs", "maj:min": "0:45", "source": "tmpfs"}, "not from a block device"),
        ({"fsroot": "/some/folder"}, "the folder /some/folder of another file system"),
        ({"options": "ro,noatime"}, "read-only"),
    ],
)
def test_a_mount_of_another_kind_fails(site: Site, change: dict[str, str], seen: str) -> None:
    found = {"filesystems": [FINDMNT["filesystems"][0] | change]}
    site.nodes["node1"].shell.answers["findmnt"] = json.dumps(found)
    check = ask(site, Layer.HOST, "host.mount")
    assert check.status is Status.FAIL
    assert seen in check.seen


def test_a_folder_that_is_no_mount_point_fails(site: Site) -> None:
    shell = site.nodes["node1"].shell
    shell.answers["findmnt"], shell.exits["findmnt"] = "", 1
    check = ask(site, Layer.HOST, "host.mount")
    assert (check.status, check.seen) == (Status.FAIL, "not a mount point")


# -- engine ----------------------------------------------------------------------------------------


def test_an_engine_that_is_not_healthy_fails(site: Site) -> None:
    site.engine["node1"].routes["/health"] = lambda body: Code(503)
    check = ask(site, Layer.ENGINE, "engine.health")
    assert (check.status, check.seen) == (Status.FAIL, "/health answers 503")


@pytest.mark.parametrize(
    ("served", "seen"),
    [
        ([{"id": "other", "max_model_len": 8192}], "other with 8192 tokens"),
        ([{"id": "m", "max_model_len": 4096}], "m with 4096 tokens"),
        ([], "no model"),
    ],
)
def test_an_engine_with_another_model_fails(site: Site, served: list[dict[str, Any]], seen: str) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: {"data": served}
    check = ask(site, Layer.ENGINE, "engine.model")
    assert (check.status, check.seen) == (Status.FAIL, seen)
    assert check.expected == "m with 8192 tokens"


# -- router ----------------------------------------------------------------------------------------


def test_a_router_that_is_down_fails(site: Site) -> None:
    site.nodes["node1"].shell.ports["10.9.0.11", 9000] = closed_port()
    for check_id in ("router.health", "router.completion"):
        assert ask(site, Layer.ROUTER, check_id).status is Status.FAIL


def test_a_router_that_is_not_healthy_fails(site: Site) -> None:
    site.router.routes["/health"] = lambda body: Code(503)
    check = ask(site, Layer.ROUTER, "router.health")
    assert (check.status, check.seen) == (Status.FAIL, "/health answers 503")


def test_missing_unknown_and_unhealthy_workers_fail_by_name(site: Site) -> None:
    workers = [
        {"url": "http://10.9.0.11:8000", "is_healthy": False},
        {"url": "http://10.9.0.99:8000", "is_healthy": True},
    ]
    site.router.routes["/workers"] = lambda body: {"workers": workers}
    check = ask(site, Layer.ROUTER, "router.workers")
    assert check.status is Status.FAIL
    assert check.seen == (
        "missing http://10.9.0.12:8000; unknown http://10.9.0.99:8000; unhealthy http://10.9.0.11:8000"
    )


def test_a_router_that_lists_no_workers_is_a_loud_skip(site: Site) -> None:
    del site.router.routes["/workers"]
    check = ask(site, Layer.ROUTER, "router.workers")
    assert check.status is Status.SKIP
    assert check.seen.startswith("NOT CHECKED: ")


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ({"model": "other", "choices": [{}], "usage": {"completion_tokens": 8}}, "an answer of 'other'"),
        ({"model": "m", "choices": [], "usage": {"completion_tokens": 0}}, "an empty answer"),
        (Code(500), "answered 500"),
        ("<html>", "not JSON"),
    ],
)
def test_a_bad_completion_through_the_router_fails(site: Site, answer: object, seen: str) -> None:
    site.router.routes["/v1/chat/completions"] = lambda body: answer
    check = ask(site, Layer.ROUTER, "router.completion")
    assert check.status is Status.FAIL
    assert seen in check.seen
