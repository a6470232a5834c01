#!/usr/bin/python
"""Await a unit's health endpoint; give up early, with the end of its journal, when the unit cannot get there."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kvstrata_await
short_description: Await the health endpoint of a systemd unit
description: >-
  Polls the URL until it answers 200. A unit that systemd gave up on, or that keeps dying, ends the wait at once.
options:
  url: {description: Health endpoint., type: str, required: true}
  unit: {description: The systemd unit behind it., type: str, required: true}
  timeout: {description: Seconds until it must be healthy., type: int, default: 300}
  restarts: {description: Automatic restarts during the wait that are taken for hopeless., type: int, default: 3}
"""

POLL_S = 0.5
JOURNAL_LINES = 40


def answers(url: str) -> str:
    """Return nothing when the URL answers 200, else why not."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the role's own URL
            return "" if response.status == 200 else f"HTTP {response.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:  # the last where something else speaks
        # Not every error has a text, so its name is said.
        return f"{type(error).__name__}: {error}"


def unit_state(module: AnsibleModule, unit: str) -> dict[str, str]:
    """Return ActiveState and NRestarts of a unit."""
    _, out, _ = module.run_command(["systemctl", "show", unit, "--property=ActiveState,NRestarts"], check_rc=True)
    return dict(line.split("=", 1) for line in out.splitlines())


def journal(module: AnsibleModule, unit: str) -> list[str]:
    """Return the last lines of a unit's journal."""
    _, out, _ = module.run_command(["journalctl", "-u", unit, "-n", str(JOURNAL_LINES), "-o", "cat", "--no-pager"])
    return str(out).splitlines()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "unit": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 300},
            "restarts": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    url, unit = module.params["url"], module.params["unit"]
    started = time.monotonic()
    restarts_before = int(unit_state(module, unit).get("NRestarts", "0"))
    while reason := answers(url):
        if module.check_mode:
            module.exit_json(changed=False, msg=f"NOT CHECKED in check mode: {url}: {reason}")
        waited = time.monotonic() - started
        state = unit_state(module, unit)
        deaths = int(state.get("NRestarts", "0")) - restarts_before
        hopeless = state["ActiveState"] == "failed" or deaths >= module.params["restarts"]
        if hopeless or waited > module.params["timeout"]:
            module.fail_json(
                msg=f"{unit} is {state['ActiveState']} after {waited:.0f} s and {deaths} restarts; {url}: {reason}",
                journal=journal(module, unit),
            )
        # The one wait here is between two looks at the condition, never instead of a look.
        time.sleep(POLL_S)
    module.exit_json(changed=False, waited_s=round(time.monotonic() - started, 1))


if __name__ == "__main__":
    main()
