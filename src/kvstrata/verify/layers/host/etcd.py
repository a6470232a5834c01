"""The site's etcd, by which Dynamo's processes find each other: its members well, and closed to strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kvstrata.cluster import Etcd
from kvstrata.verify import nodefiles, tls
from kvstrata.verify.check import Check, Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.layers import certificate
from kvstrata.verify.layers.following import upon
from kvstrata.verify.layers.host.survey import Survey

TIMEOUT_S = 10.0


def checks(ctx: NodeContext, _survey: Survey) -> Iterator[Check]:
    """Rows of a node that is a member."""
    etcd = ctx.node.etcd
    if etcd is None:
        return
    members = [node.etcd.url for node in ctx.cluster.nodes if node.etcd is not None]
    command = _command(etcd, "endpoint", "health", "--cluster")
    health = ctx.question(
        "host.etcd",
        f"etcd {etcd.url}",
        f"all {len(members)} members healthy over TLS, and no answer without a certificate",
        ctx.command(" ".join(command)),
    ).ask(lambda: _health(ctx, etcd, members))
    yield health
    numbers: dict[str, Json] = {}
    yield ctx.question(
        "host.etcd_certificate",
        f"etcd {etcd.url} certificate",
        f"trusted by its clients, for {etcd.host}, valid for {ctx.cluster.verify.limits.certificate_days:g} days more",
        ctx.command(f"openssl x509 -noout -dates -in {etcd.certificate}"),
    ).ask(upon(health, lambda: _certificate(ctx, etcd, numbers)), numbers)


def _command(etcd: Etcd, *words: str) -> list[str]:
    files = [f"--cacert={etcd.ca}", f"--cert={etcd.certificate}", f"--key={etcd.key}"]
    # Version 2 of the API is what an older etcdctl would speak.
    return ["env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={etcd.url}", *files, *words]


def _health(ctx: NodeContext, etcd: Etcd, members: list[str]) -> str:
    # It exits with 1 where a member is not well, and says so all the same.
    done = ctx.shell.run(_command(etcd, "endpoint", "health", "--cluster", "--write-out=json"), TIMEOUT_S * 2)
    try:
        told = {str(one["endpoint"]): one.get("health") is True for one in json.loads(done.stdout)}
    except (ValueError, KeyError, TypeError):
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UnmetError(f"etcdctl said: {said[:200]}") from None
    problems = [f"missing {url}" for url in members if url not in told]
    problems += [f"unknown {url}" for url in told if url not in members]
    problems += [f"unhealthy {url}" for url, healthy in told.items() if not healthy]
    problems += _open(ctx, etcd)
    if problems:
        raise UnmetError("; ".join(problems))
    return f"{len(told)} members, all healthy; no answer without a certificate"


def _open(ctx: NodeContext, etcd: Etcd) -> list[str]:
    """How somebody gets in who has no certificate."""
    ways = {"without a certificate": tls.believing(), "without TLS": None}
    found = []
    for how, context in ways.items():
        try:
            code = Service(ctx.shell, etcd.host, etcd.port, TIMEOUT_S, context).status("/health")
        except UnansweredError:
            continue
        # To plain HTTP it may answer that it wants TLS.
        if code != 400:
            found.append(f"it answers {code} {how}")
    return found


def _certificate(ctx: NodeContext, etcd: Etcd, numbers: dict[str, Json]) -> str:
    authority = nodefiles.read(ctx.shell, [etcd.ca]).get(etcd.ca)
    if authority is None:
        raise NotCheckedError(f"whether clients trust it: {etcd.ca} is not on {ctx.node.name}, or unreadable")
    limits = ctx.cluster.verify.limits
    at = (etcd.host, etcd.port)
    return certificate.judge(ctx.shell, *at, tls.trusting(authority), limits, numbers, [etcd.host])
