"""Action `kvstrata_certificate`: make and renew an authority and the certificate that it signs, on the controller."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from kvstrata.tls import Issued, Terms, ensure

DOCUMENTATION = """
module: kvstrata_certificate
short_description: Make and renew an authority and the certificate that it signs, on the controller
description:
  - Keeps ca.pem, ca.key, cert.pem and key.pem in a folder of the controller. Asks no host.
  - C(certificate) and C(key) name other files than the last two, where one authority signs several.
options:
  folder: {description: The folder; made if missing, for its owner alone., type: path, required: true}
  owner: {description: What the authority is called., type: str, required: true}
  names: {description: Names and addresses that clients will use., type: list, elements: str, required: true}
  certificate: {description: File name of the certificate., type: str, default: cert.pem}
  key: {description: File name of its key., type: str, default: key.pem}
  usages: {description: "What it may be shown as, server and client.", type: list, elements: str, default: [server]}
  days: {description: Days that a certificate is valid., type: int, default: 365}
  renew_days: {description: Days before its end that it is renewed., type: int, default: 30}
"""


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action, in Ansible's form."""

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"folder", "owner", "names", "certificate", "key", "usages", "days", "renew_days"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed`, and `done`: what was made or renewed, and why."""
        super().run(tmp, task_vars)
        args = self._task.args
        terms = Terms(certificate=int(args.get("days", 365)), renew=int(args.get("renew_days", 30)))
        folder = Path(args["folder"]).expanduser()
        issued = Issued(
            args.get("certificate", "cert.pem"), args.get("key", "key.pem"), tuple(args.get("usages", ["server"]))
        )
        now, write = datetime.now(UTC), not self._task.check_mode
        try:
            done = ensure(folder, args["owner"], args["names"], now, terms, issued=issued, write=write)
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"{folder}: {error}") from error
        return {"changed": bool(done), "done": done, "msg": "; ".join(done) or "nothing to renew"}
