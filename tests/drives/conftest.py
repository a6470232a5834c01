"""The node-side code of drives, found where Ansible would have packed it."""

from __future__ import annotations

import sys

import ansible.module_utils

from kvstrata.paths import PROJECT

ansible.module_utils.__path__.append(str(PROJECT / "plugins" / "module_utils"))
sys.path.insert(0, str(PROJECT / "plugins" / "modules"))
