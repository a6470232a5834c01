"""Lookup `kvstrata_release`: the id of the release that the runtime role installs from a wheelhouse."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from kvstrata.artifacts.lock import LockError, read_lock
from kvstrata.artifacts.release import release_id
from kvstrata.artifacts.wheelhouse import digest
from kvstrata.paths import PROJECT

DOCUMENTATION = """
name: kvstrata_release
short_description: Id of the release that a wheelhouse makes
description: Computed on the controller from artifacts.lock.yml; downloads nothing.
options:
  _terms:
    description: Names of wheelhouses.
    required: true
  kind:
    description: C(release) covers the wheels and kvstrata's own node package, C(wheels) the wheels alone;
      C(python) is the Python of the nodes.
    choices: [release, wheels, python]
    default: release
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup, in Ansible's form."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return one id for each wheelhouse named."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            lock = read_lock(PROJECT / "artifacts.lock.yml")
            houses = [lock.wheelhouse(term) for term in terms]
        except LockError as error:
            raise AnsibleLookupError(str(error)) from error
        if self.get_option("kind") == "wheels":
            return [digest(house) for house in houses]
        if self.get_option("kind") == "python":
            return [house.python for house in houses]
        return [release_id(house, PROJECT) for house in houses]
