"""No password of the inventory gets into a report, whoever says it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from kvstrata.verify import junit, page
from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.document import Measured
from kvstrata.verify.masks import MASK, masked, masked_tables, passwords
from tests.verify.fakes.site import Site
from tests.verify.test_verify_run import find, printed, run

CHECK = Check("store.auth", Layer.STORE, "n", "what", "expected", "seen", Status.FAIL, "hint")


def test_a_password_that_a_service_says_is_masked_in_every_output(site: Site) -> None:
    site.engine["node1"].routes["/v1/models"] = lambda body: {"data": [{"id": "pw=secret-pw!", "max_model_len": 1}]}
    result = run(site)
    assert find(result, "engine.model", "node1").seen == f"pw={MASK}! with 1 tokens"
    document = result.as_json()
    for text in (json.dumps(document), junit.render(document), page.render(document), printed(result)):
        assert "secret-pw" not in text
        assert MASK in text


def test_every_text_of_a_check_is_masked_and_also_what_its_numbers_hold() -> None:
    said = replace(
        CHECK,
        what="a-secret",
        expected="x a-secret",
        seen="a-secret a-secret",
        hint="redis-cli -a a-secret",
        data={"a-secret": ["a-secret", {"b": "a-secret"}, 1, None]},
    )
    found = masked(said, ["a-secret"])
    assert "a-secret" not in repr(found)
    assert found.hint == f"redis-cli -a {MASK}"
    assert found.data == {MASK: [MASK, {"b": MASK}, 1, None]}


def test_a_check_without_a_secret_is_left_alone() -> None:
    assert masked(CHECK, ["other-secret"]) == CHECK
    assert masked(CHECK, []) == CHECK


def test_a_password_within_another_leaves_no_rest(site: Site) -> None:
    node = site.cluster.nodes[0]
    stores = tuple(replace(node.stores[0], password=password) for password in ("secret", "secret-longer", "see", ""))
    cluster = replace(site.cluster, nodes=(replace(node, stores=stores),))
    assert passwords(cluster) == ("secret-longer", "secret")
    assert masked(replace(CHECK, seen="secret-longer"), passwords(cluster)).seen == MASK


def test_raw_samples_are_masked_too() -> None:
    tables: Measured = {"faults": [{"error": "AUTH secret-pw refused", "sent": 3}]}
    assert masked_tables(tables, ("secret-pw",)) == {"faults": [{"error": "AUTH ******** refused", "sent": 3}]}


def test_thousands_of_passwords_cost_a_long_text_little() -> None:
    secrets = tuple(f"password-of-store-{number:05d}" for number in range(4000))
    other = tuple(f"{number:05d}-password" for number in range(4000))
    text = "ordinary words of a report, " * 400
    started = time.process_time()
    for _ in range(20):
        assert masked(replace(CHECK, seen=text), other).seen == text
    assert time.process_time() - started < 1.0, "a replacement for each password would take several times as long"
    assert masked(replace(CHECK, seen=f"{text} {secrets[7]}"), secrets).seen == f"{text} {MASK}"
