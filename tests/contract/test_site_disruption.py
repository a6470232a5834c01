"""Point 4 on a site of fakes: what is done to it, what is waited for, and that it is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstrata.contract import site_disruption
from kvstrata.contract.disruption import KILLED, RESTARTED, Disruption
from kvstrata.contract.load import Load
from kvstrata.contract.site import SiteTarget
from kvstrata.contract.site_disruption import DRAINED, Disrupter, disrupt
from kvstrata.contract.site_load import salt, scale_of, shape_for
from kvstrata.contract.workload import Conversations
from tests.contract import test_site_load
from tests.contract.site_fakes import DeployedSite

soon = test_site_load._soon


class Nodes:
    """What systemd and the router of a site do when they are told to."""

    def __init__(self, site: DeployedSite) -> None:
        self.site, self.pid, self.ordered = site, 100, list[str]()
        urls = dict.fromkeys(site.router.urls, True)
        self.urls = urls
        plain = site.router.answer

        def answer(path: str, body: dict[str, object]) -> object:
            verb, _, query = path.partition("?url=")
            if verb == "/workers":
                return {"workers": [{"url": url, "is_healthy": well} for url, well in urls.items()]}
            if verb in ("/remove_worker", "/add_worker"):
                url = query.replace("%3A", ":").replace("%2F", "/")
                self.ordered.append(f"{verb} {url}")
                _ = urls.pop(url, None) if verb == "/remove_worker" else urls.setdefault(url, True)
                return "done"
            return plain(path, body)

        site.router.answer = answer  # type: ignore[method-assign]
        first = site.shells["node1"]
        first.answers["systemctl show --property=MainPID"] = lambda argv: str(self.pid)
        first.answers["kill -KILL"] = self._kill
        first.answers["systemctl restart"] = self._note
        for shell in site.shells.values():
            shell.answers["systemctl start"] = self._note
            shell.answers["systemctl reset-failed"] = self._note
            shell.answers["systemctl show --no-pager"] = (
                "Id=vllm@0.service\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success"
            )

    def _kill(self, argv: Sequence[str]) -> str:
        assert argv[-1] == str(self.pid)
        self.pid += 1
        self.site.engines["node1"].blocks.clear()
        return self._note(argv)

    def _note(self, argv: Sequence[str]) -> str:
        self.ordered.append(" ".join(argv))
        return ""


def held(site: DeployedSite, folder: Path, after_s: float = 2.0) -> tuple[list[Disruption], list[str]]:
    with SiteTarget(site.site, folder) as target:
        disrupter = Disrupter(target)
        shape, slots = shape_for(target, 40.0, 0.0)
        talk = Conversations(shape, 1, salt("disrupted"), scale_of(target))
        load = Load(shape, slots, 600.0)
        try:
            return asyncio.run(disrupt(target, disrupter, load, talk, 1, after_s, site.said.append))
        finally:
            disrupter.restore()


@pytest.mark.usefixtures("soon")
def test_all_three_events_are_done_judged_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstrata.contract.disruption.WINDOW_S", 0.5)
    with DeployedSite(tmp_path) as site:
        nodes = Nodes(site)
        found, wrong = held(site, tmp_path)
        assert wrong == []
        assert [one.what for one in found] == [KILLED, RESTARTED, DRAINED]
        assert all(one.requests > 0 and one.failed == 0 for one in found)
        # The router of the fakes keeps conversations where they are, and so does the judgement.
        assert all(one.back_s is not None for one in found)
        second = site.router.urls[1]
        assert nodes.ordered[:4] == [
            "kill -KILL -- 100",
            "systemctl restart -- vllm-router.service",
            f"/remove_worker {second}",
            f"/add_worker {second}",
        ]
        assert nodes.urls == dict.fromkeys(site.router.urls, True)
        assert nodes.ordered[-1] == "systemctl reset-failed -- vllm@0.service"
        assert site.units == {"node1": set(), "node2": set()}


@pytest.mark.usefixtures("soon")
def test_what_does_not_come_back_is_an_error_and_the_rest_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_disruption, "_BACK_S", 0.5)
    with DeployedSite(tmp_path) as site:
        nodes = Nodes(site)
        site.shells["node1"].answers["kill -KILL"] = ""
        found, wrong = held(site, tmp_path, after_s=0.5)
        assert len(wrong) == 1
        assert "worker killed and back: waited 0.5 s in vain until systemd starts vllm@0.service on node1" in wrong[0]
        # It is judged all the same, and so are those after it.
        assert [one.what for one in found] == [KILLED, RESTARTED, DRAINED]
        assert nodes.ordered[0] == "systemctl start -- vllm-router.service"
        assert nodes.urls == dict.fromkeys(site.router.urls, True)
        assert site.units == {"node1": set(), "node2": set()}
