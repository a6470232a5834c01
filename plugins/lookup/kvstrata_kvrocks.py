"""Lookup `kvstrata_kvrocks`: the Kvrocks binary on the controller, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from kvstrata.artifacts.binary import ChecksumError, resolve
from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.paths import PROJECT, cache_dir

DOCUMENTATION = """
name: kvstrata_kvrocks
short_description: The Kvrocks binary on the controller
description: The local file when it exists, else the download of artifacts.lock.yml, checked against its sha256.
options:
  _terms:
    description: Path of a local binary.
    required: true
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup, in Ansible's form."""

    def run(  # the signature is Ansible's
        self,
        terms: list[str],
        variables: dict[str, Any] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> list[dict[str, Any]]:
        """Return path (or null), sha256 and the reason, for each path named."""
        try:
            locked = read_lock(PROJECT / "artifacts.lock.yml").kvrocks
            return [resolve(Path(term), locked, cache_dir()).as_dict() for term in terms]
        except (LockError, ChecksumError) as error:
            raise AnsibleLookupError(str(error)) from error
