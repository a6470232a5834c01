"""Lookup `kvstrata_kvrocks`: the Kvrocks binary on the controller, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from kvstrata.artifacts.binary import ArtifactError, resolve
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
  sha256:
    description: What a local file must have; any is taken without.
    default: ""
  version:
    description: What the binary must say of itself; without, what the lock says of its download.
    default: ""
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup, in Ansible's form."""

    def run(  # the signature is Ansible's
        self,
        terms: list[str],
        variables: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Return path (or null), sha256, version and the reason, for each path named."""
        self.set_options(var_options=variables, direct=kwargs)
        sha256, version = self.get_option("sha256"), self.get_option("version")
        try:
            locked = read_lock(PROJECT / "artifacts.lock.yml").kvrocks
            return [resolve(Path(term), locked, cache_dir(), sha256, version).as_dict() for term in terms]
        except (LockError, *ArtifactError) as error:
            raise AnsibleLookupError(str(error)) from error
