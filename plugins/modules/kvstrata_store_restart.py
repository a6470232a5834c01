#!/usr/bin/python
"""Restart stores one after the other, each only when the one before answers again."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_resp import STORES, await_ready

DOCUMENTATION = """
module: kvstrata_store_restart
short_description: Restart stores one at a time
description: Ends at the first store that does not answer an authenticated PING; those after it are not touched.
options:
  stores: {description: The stores to restart as the filter kvstrata_stores describes them., type: list, required: true}
  timeout: {description: Seconds that one store has to answer after its restart., type: int, default: 120}
"""

JOURNAL_LINES = 20


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"stores": STORES, "timeout": {"type": "int", "default": 120}},
        supports_check_mode=True,
    )
    stores = module.params["stores"]
    drives = [store["drive"] for store in stores]
    if module.check_mode:
        module.exit_json(changed=bool(drives), restarted=drives)
    for done, store in enumerate(stores):
        code, _, error = module.run_command(["systemctl", "restart", store["unit"]])
        try:
            if code:
                raise TimeoutError(error.strip())
            await_ready(store["host"], store["port"], store["password"], module.params["timeout"]).close()
        except TimeoutError as reason:
            command = ["journalctl", "-u", store["unit"], "-n", str(JOURNAL_LINES), "-o", "cat", "--no-pager"]
            _, journal, _ = module.run_command(command)
            left = ", ".join(drives[done + 1 :]) or "none"
            module.fail_json(
                msg=f"{store['unit']} did not come back: {reason}. Not restarted, and still running: {left}",
                restarted=drives[:done],
                journal=journal.splitlines(),
            )
    module.exit_json(changed=bool(drives), restarted=drives)


if __name__ == "__main__":
    main()
