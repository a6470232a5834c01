"""Lookup `kvstrata_driver_repository`: a driver repository's URL, and its key on the controller, checked."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.driver.keyring import KeyringError, repository_of
from kvstrata.paths import PROJECT, cache_dir

DOCUMENTATION = """
name: kvstrata_driver_repository
short_description: A driver repository's URL, and its key on the controller, checked
description: The key is a local file with its checksum, else the download of artifacts.lock.yml.
options:
  _terms:
    description: C(nvidia) for NVIDIA's network repository, or the URL of a mirror.
    required: true
  folder:
    description: The node's folder in the network repository, as C(debian12/x86_64).
    required: true
  keyring:
    description: Path of a local key.
    default: ""
  sha256:
    description: What a local key must have.
    default: ""
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup, in Ansible's form."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Return url, keyring (a path) and suffix for each repository named."""
        self.set_options(var_options=variables, direct=kwargs)
        folder, keyring, sha256 = (str(self.get_option(name)) for name in ("folder", "keyring", "sha256"))
        try:
            locked = read_lock(PROJECT / "artifacts.lock.yml").nvidia
            return [repository_of(term, folder, locked, cache_dir(), keyring, sha256).as_dict() for term in terms]
        except (LockError, KeyringError) as error:
            raise AnsibleLookupError(str(error)) from error
