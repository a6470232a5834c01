from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kvstrata.l2 import config as module
from kvstrata.l2.config import EndpointConfig, TierConfig

SECRET = "Tr0ub4dor&3"
GIB = 1 << 30


def store(**changes: Any) -> dict[str, Any]:
    return {"host": "10.0.0.1", "port": 6666, "capacity_bytes": GIB, **changes}


def config(**changes: Any) -> dict[str, Any]:
    return {"endpoints": [store(password=SECRET)], "namespace": "kvs-0123456789abcdef", **changes}


def refusal(values: Any) -> str:
    with pytest.raises(ValueError, match=r"allowed|missing|cannot be read|has no password") as caught:
        TierConfig.from_dict(values)
    message = str(caught.value)
    assert SECRET not in message
    return message


def test_the_least_configuration_is_taken_with_its_defaults() -> None:
    taken = TierConfig.from_dict(config())
    assert taken == TierConfig((EndpointConfig("10.0.0.1", 6666, GIB, password=SECRET),), "kvs-0123456789abcdef")
    assert taken.piece_bytes == 1 << 20
    assert taken.endpoints[0].name == "10.0.0.1:6666"


def test_every_field_is_taken_from_json_as_it_stands() -> None:
    given = config(
        identity={"model": "m"},
        local_node="a",
        placement="local_first",
        stripe_width=0,
        piece_bytes=4096,
        load_connections=64,
        connect_timeout_s=1,
        evict_from=1.0,
        evict_to=0.5,
        policy={"name": "second_use", "window": 2048},
        min_load_gbps=2,
        endpoints=[store(node="a", user="u", password=SECRET, unix="/run/s", tls_ca="/ca.pem"), store(port=1)],
    )
    taken = TierConfig.from_dict(json.loads(json.dumps(given)))
    for name, value in given.items():
        if name != "endpoints":
            assert getattr(taken, name) == value
    assert taken.endpoints[0] == EndpointConfig("10.0.0.1", 6666, GIB, "a", "u", SECRET, "/run/s", "/ca.pem")


REFUSED: list[tuple[str, Any, str]] = [
    ("endpoints", [], "endpoints is (); allowed: at least one"),
    ("endpoints", "redis://x:Tr0ub4dor&3@host", "endpoints is a str; allowed: a list"),
    ("endpoints", store(password=SECRET), "endpoints is a dict; allowed: a list"),
    ("endpoints", ["x:Tr0ub4dor&3@host"], "endpoints[0] is a str; allowed: a mapping"),
    ("endpoints", [store(), [SECRET]], "endpoints[1] is a list; allowed: a mapping"),
    ("endpoints", [store(), store()], "endpoints names 10.0.0.1:6666 twice; allowed: each once"),
    ("namespace", "a:b", "namespace is 'a:b'; allowed: 1 to 64 of"),
    ("namespace", 7, "namespace is 7; allowed: str"),
    ("placement", "nearest", "placement is 'nearest'; allowed: fleet or local_first"),
    ("placement", "local_first", "local_node is ''; allowed: a node's name with local_first"),
    ("stripe_width", 256, "stripe_width is 256; allowed: 0"),
    ("stripe_width", -1, "stripe_width is -1; allowed: 0"),
    ("stripe_width", 1.5, "stripe_width is 1.5; allowed: int"),
    ("stripe_width", True, "stripe_width is True; allowed: int"),
    ("piece_bytes", 4095, "piece_bytes is 4095; allowed: 4096 to 67108864 bytes"),
    ("piece_bytes", (64 << 20) + 1, "allowed: 4096 to 67108864 bytes"),
    ("load_connections", 65, "load_connections is 65; allowed: 1 to 64, or 0"),
    ("store_connections", 65, "store_connections is 65; allowed: 1 to 64"),
    ("pipeline_depth", 0, "pipeline_depth is 0; allowed: 1 to 64"),
    ("store_queue_bytes", 1, "store_queue_bytes is 1; allowed: at least one piece"),
    ("evict_from", 1.1, "evict_from is 1.1; allowed: more than 0, at most 1"),
    ("evict_to", 0.98, "evict_to is 0.98; allowed: more than 0, less than evict_from"),
    ("evict_to", 0, "evict_to is 0; allowed: more than 0"),
    ("compact_share", 0, "compact_share is 0; allowed: more than 0, at most 1"),
    ("min_load_gbps", -1, "min_load_gbps is -1; allowed: 0 (off)"),
    ("min_load_gbps", math.inf, "min_load_gbps is inf; allowed: 0 (off)"),
    ("min_load_gbps", math.nan, "min_load_gbps is nan; allowed: 0 (off)"),
    ("identity", "llama", "identity is 'llama'; allowed: a mapping"),
    ("policy", "all", "policy is 'all'; allowed: a mapping"),
    ("policy", {}, "policy is {}; allowed: a mapping with a name"),
    ("surprise", 1, "surprise is unknown; allowed: compact_share, connect_timeout_s, endpoints"),
    *[
        (name, value, f"{name} is {value}; allowed: more than 0 seconds, at most 86400")
        for name in (
            "connect_timeout_s",
            "stall_s",
            "lookup_deadline_s",
            "load_deadline_s",
            "store_deadline_s",
            "tick_s",
        )
        for value in (0, -1, 86401, math.inf, math.nan)
    ],
    ("tick_s", "1", "tick_s is '1'; allowed: float"),
]


@pytest.mark.parametrize(("field", "value", "message"), REFUSED)
def test_a_refusal_names_the_field_what_was_given_and_what_is_allowed(field: str, value: Any, message: str) -> None:
    assert message in refusal(config(**{field: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": ""}, "endpoints[0].host is ''; allowed: a host's name or address"),
        ({"host": "a b"}, "endpoints[0].host is 'a b'; allowed: a host's name"),
        ({"host": None}, "endpoints[0].host is None; allowed: str"),
        ({"port": 0}, "endpoints[0].port is 0; allowed: 1 to 65535"),
        ({"port": 65536}, "endpoints[0].port is 65536; allowed: 1 to 65535"),
        ({"port": "6666"}, "endpoints[0].port is '6666'; allowed: int"),
        ({"capacity_bytes": 0}, "endpoints[0].capacity_bytes is 0; allowed: more than 0 bytes"),
        ({"capacity_bytes": 1e9}, "endpoints[0].capacity_bytes is 1000000000.0; allowed: int"),
        ({"user": "u"}, "endpoints[0].user is 'u'; allowed: empty without a password"),
        ({"password": 123}, "endpoints[0].password is (not shown); allowed: str"),
        ({"passwd": SECRET}, "endpoints[0].passwd is unknown; allowed: capacity_bytes, host, node, password"),
    ],
)
def test_a_refused_endpoint_is_named_by_its_number(change: dict[str, Any], message: str) -> None:
    assert message in refusal(config(endpoints=[store(**change)]))
    assert message.replace("[0]", "[1]") in refusal(config(endpoints=[store(host="other"), store(**change)]))


def test_all_that_is_wrong_is_told_at_once() -> None:
    message = refusal(config(piece_bytes=1, tick_s=0, namespace="", endpoints=[store(port=0)]))
    for field in ("piece_bytes", "tick_s", "namespace", "endpoints[0].port"):
        assert f"{field} is" in message
    message = refusal({"surprise": 1, "tick_s": "x", "endpoints": []})
    for part in ("surprise is unknown", "namespace is missing", "tick_s is 'x'"):
        assert part in message


@pytest.mark.parametrize("field", ["endpoints", "namespace"])
def test_a_missing_field_is_named(field: str) -> None:
    given = config()
    del given[field]
    assert f"{field} is missing" in refusal(given)
    for name in ("host", "port", "capacity_bytes"):
        entry = store()
        del entry[name]
        assert f"endpoints[0].{name} is missing" in refusal(config(endpoints=[entry]))


@pytest.mark.parametrize("given", [None, 7, "Tr0ub4dor&3", ["passwords_file"], []])
def test_what_is_no_mapping_is_refused_without_being_shown(given: Any) -> None:
    assert "the configuration is a" in refusal(given)


def test_a_password_is_in_no_representation() -> None:
    taken = TierConfig.from_dict(config())
    for text in (repr(taken), str(taken), repr(taken.endpoints), f"{taken.endpoints[0]}"):
        assert SECRET not in text
    assert taken.endpoints[0].password == SECRET


def test_endpoints_that_manifests_could_not_tell_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "endpoint_id", lambda name: 7)
    assert "no two have the same placement.endpoint_id" in refusal(config(endpoints=[store(), store(port=1)]))


# -- passwords in a file of their own ----------------------------------------------------------------


def test_passwords_come_from_a_file_by_the_endpoints_names(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text(json.dumps({"10.0.0.1:6666": SECRET, "b:1": "other", "gone:1": "unused"}))
    given = config(endpoints=[store(), store(host="b", port=1)], passwords_file=str(path))
    taken = TierConfig.from_dict(given)
    assert [endpoint.password for endpoint in taken.endpoints] == [SECRET, "other"]
    assert "password" not in given["endpoints"][0], "what was given is not changed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"b:1": "Tr0ub4dor&3"}', "has no password for the endpoint 10.0.0.1:6666"),
        ('"Tr0ub4dor&3"', "holds a str; allowed: a JSON object"),
        ("Tr0ub4dor&3", "cannot be read: JSONDecodeError"),
        ("\udcff", "cannot be read"),
        ('{"10.0.0.1:6666": ["Tr0ub4dor&3"]}', "endpoints[0].password is (not shown)"),
    ],
)
def test_a_file_of_passwords_that_does_not_fit_is_refused_without_being_shown(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "passwords"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert message in refusal(config(endpoints=[store()], passwords_file=str(path)))


def test_a_file_of_passwords_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "passwords_file /nowhere/p cannot be read: FileNotFoundError" in refusal(config(passwords_file="/nowhere/p"))


@pytest.mark.parametrize("endpoints", [SECRET, {"a": SECRET}, [SECRET], 5])
def test_endpoints_that_are_none_are_refused_with_a_file_of_passwords_too(tmp_path: Path, endpoints: Any) -> None:
    path = tmp_path / "passwords"
    path.write_text("{}")
    assert "endpoints" in refusal(config(endpoints=endpoints, passwords_file=str(path)))


# -- where to connect --------------------------------------------------------------------------------


def test_the_unix_socket_is_used_where_it_exists_and_never_encrypted(tmp_path: Path) -> None:
    there = tmp_path / "s"
    endpoint = EndpointConfig("h", 1, GIB, unix=str(there), tls_ca="/nowhere/ca.pem")
    assert (endpoint.address,) == (("h", 1),)
    with pytest.raises(OSError, match="No such file"):
        endpoint.tls()
    there.touch()
    assert (endpoint.address,) == (str(there),)
    assert endpoint.tls() is None
    assert EndpointConfig("h", 1, GIB).tls() is None
