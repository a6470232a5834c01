"""LMCache's way to the stores: the circuit breakers, what it writes, and the namespace it writes under."""

from __future__ import annotations

from kvstrata.cluster import LMCache
from kvstrata.verify import nodefiles, resp, tls, wait
from kvstrata.verify.check import Json, NotCheckedError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.cache.state import LOOPBACK, Place, State, places
from kvstrata.verify.layers.following import Once

TIMEOUT_S = 5.0
SETTLE_S = 6.0
"""A breaker asks again after at most 2 s, and waits at most a second for an answer: one that is open for longer than
this towards a store that answers is stuck."""
_NAMED = 5


def breaker(ctx: NodeContext, known_state: Once[State], numbers: dict[str, Json]) -> str:
    """Whether the adapter uses every store that answers this node; the state is fetched anew while it settles."""
    state = known_state()
    known = places(ctx.cluster)
    open_now = {name for name in state.left_alone if name in known}
    answers = {name: _unanswered(ctx, known[name]) for name in sorted(open_now)}
    dead = {name for name, why in answers.items() if why is None}
    if dead:
        state = _settled(known_state, dead)
        dead &= state.left_alone.keys()
    told = state.endpoints
    opened = sum(int(one.get("breaker_opened", 0)) for one in told.values())
    numbers |= {"stores": len(told), "stores_up": len(told) - len(state.left_alone), "opened_since_start": opened}
    if dead:
        reasons = [f"{known[name].label} ({told[name].get('last_failure') or 'no reason'})" for name in sorted(dead)]
        raise UnmetError(f"{_several(reasons)}: open, though the store answers this node")
    away = [f"{known[name].label}: {why}" for name, why in answers.items() if why is not None]
    if away:
        raise NotCheckedError(f"whether it takes back a store that does not answer this node either: {_several(away)}")
    return f"closed towards all {len(told)} stores; opened {opened} times since its start"


def _settled(state: Once[State], dead: set[str]) -> State:
    """The state as soon as none of these breakers is open, or when the time for that is over."""

    def closed() -> bool | None:
        return True if not dead & state.renew().left_alone.keys() else None

    wait.until(closed, SETTLE_S, poll_s=1.0)
    return state()


def _unanswered(ctx: NodeContext, place: Place) -> str | None:
    """Why the store does not answer this node, asked as the adapter asks; None when it does."""
    store = place.store
    try:
        if store.tls_ca and store.tls_port:
            authority = nodefiles.read(ctx.shell, [store.tls_ca])[store.tls_ca]
            if authority is None:
                return f"{store.tls_ca} cannot be read"
            tls.judge(ctx.shell, store.host, store.tls_port, TIMEOUT_S, tls.trusting(authority))
        with resp.authenticated(ctx.shell, store, TIMEOUT_S) as client:
            client.ping()
    except UnmetError as error:
        return str(error)
    return None


def l2(ctx: NodeContext, lmcache: LMCache, state: State, numbers: dict[str, Json]) -> str:
    """Whether the adapter has exactly the stores of the inventory, and what is written to them arrives."""
    if not state.adapters:
        raise UnmetError("no L2 adapter: nothing is kept beyond this node's DRAM")
    told = state.endpoints
    _same_stores(ctx, state)
    metrics = ctx.service(LOOPBACK, lmcache.http_port).metrics()
    submitted = metrics.total("lmcache_mp_l2_store_submitted_objects_chunks_total")
    completed = metrics.total("lmcache_mp_l2_store_completed_objects_chunks_total")
    active = metrics.total("lmcache_mp_l2_store_adapters", state="active")
    up = len(told) - len(state.left_alone)
    used = sum(one.get("used_bytes", 0) for one in told.values())
    capacity = sum(one.get("capacity_bytes", 0) for one in told.values())
    damaged = sum(one.get("counters", {}).get("damaged", 0) for one in told.values())
    numbers |= {"adapters": len(state.adapters), "submitted_chunks": submitted, "completed_chunks": completed}
    numbers |= {"stores": len(told), "stores_up": up, "used_bytes": used, "capacity_bytes": capacity}
    seen = (
        f"{up} of {len(told)} in use, {used / 2**30:.2f} of {capacity / 2**30:.2f} GiB; "
        f"stored {completed:.0f} of {submitted:.0f} chunks since its start"
    )
    if damaged:
        raise UnmetError(f"{seen}; {damaged} damaged pieces were read")
    if told and not up:
        raise NotCheckedError(f"whether chunks reach the stores: none is in use, see cache.breaker ({seen})")
    if state.sick_adapters:
        raise UnmetError(f"{seen}; not healthy: {', '.join(state.sick_adapters)}")
    if active < 1:
        raise UnmetError(f"{seen}; {active:.0f} active")
    # Chunks that were never stored while everything says healthy: a dead store looks so.
    if submitted > 0 and completed == 0:
        if state.left_alone:
            raise NotCheckedError(f"whether chunks reach the stores: some are left alone, see cache.breaker ({seen})")
        if state.counted("store_full") or state.counted("store_refused"):
            raise NotCheckedError(f"whether chunks reach the stores: they were refused, see store.capacity ({seen})")
        raise UnmetError(f"{seen}: its stores never succeed")
    return seen


def _same_stores(ctx: NodeContext, state: State) -> None:
    """Raise UnmetError where the adapter runs with other stores than the inventory's."""
    known, told = places(ctx.cluster), state.endpoints
    if not told:
        return
    problems = [f"it does not know {known[name].label}" for name in sorted(known.keys() - told.keys())]
    problems += [f"it uses {name}, which is not in the inventory" for name in sorted(told.keys() - known.keys())]
    for name in sorted(known.keys() & told.keys()):
        has, should = told[name].get("capacity_bytes"), known[name].store.capacity_bytes
        if has != should:
            problems.append(f"it takes {has} bytes for the capacity of {known[name].label}, which has {should}")
    if problems:
        raise UnmetError(_several(problems))


def identity(lmcache: LMCache, state: State, numbers: dict[str, Json]) -> str:
    """Whether it files its chunks under the inventory's namespace; what others have there is a number."""
    found = [str(adapter["namespace"]) for adapter in state.adapters if adapter.get("namespace")]
    if not found:
        raise NotCheckedError("what its chunks are filed under: it has no adapter that says, see cache.l2")
    others: dict[str, int] = {}
    for told in state.endpoints.values():
        for namespace, used in told.get("namespaces", {}).items():
            if namespace not in found:
                others[namespace] = others.get(namespace, 0) + int(used)
    numbers |= {"namespace": found[0], "other_namespaces_bytes": sum(others.values()), "others": dict(others)}
    if lmcache.namespace is None:
        raise NotCheckedError(
            f"that its chunks are of the inventory's model: its wheelhouse is not locked (LMCache uses {found[0]})"
        )
    wrong = [namespace for namespace in found if namespace != lmcache.namespace]
    if wrong:
        raise UnmetError(f"{', '.join(wrong)}: its chunks are not those of the model that the inventory serves")
    beside = f"; {sum(others.values()) / 2**30:.2f} GiB of {len(others)} others on the stores" if others else ""
    return f"{found[0]}{beside}"


def _several(items: list[str]) -> str:
    more = f"; and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return "; ".join(items[:_NAMED]) + more
