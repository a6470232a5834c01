"""docs/cache.md names what the code has."""

from __future__ import annotations

import re
from typing import Any

from kvstrata.cache import cli
from kvstrata.cache.drop import Compaction
from kvstrata.l2.names import INDEX_REGISTRY, IndexName
from kvstrata.paths import PROJECT
from tests.cache.conftest import Caches
from tests.cache.servers import NEW_NS, OLD_NS

PAGE = (PROJECT / "docs" / "cache.md").read_text()


def fields(value: Any) -> set[str]:
    """Every key of a document, but not those of identities and of sizes by namespace."""
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if not isinstance(value, dict):
        return set()
    own = {key for key in value if not key.startswith("kvs-")}
    return own.union(*(fields(inner) for key, inner in value.items() if key != "identity"))


def test_every_field_of_the_documents_is_explained(caches: Caches) -> None:
    documents = [caches.json("ls"), caches.json("du"), caches.json("drop", OLD_NS, "--yes")]
    refused = caches.json("drop", NEW_NS, "--yes", status=1)
    found = fields([*documents, refused])
    assert {"share", "files_limit_bytes", "unindexed_chunks"} <= found
    assert {name for name in found if f"`{name}`" not in PAGE} == set()


def test_every_exit_status_is_explained() -> None:
    explained = set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))
    assert {str(int(status)) for status in cli.Exit} == explained


def test_every_outcome_of_compaction_is_explained() -> None:
    assert {outcome for outcome in Compaction if f"`{outcome.value}`" not in PAGE} == set()


def test_the_keys_are_those_of_the_format() -> None:
    assert f"`{IndexName('NS', 1).key.decode()[:-1]}BYTES`" in PAGE
    assert f"`{INDEX_REGISTRY.decode()}`" in PAGE
