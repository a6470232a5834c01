#!/usr/bin/python
"""Await a Redis-protocol store, and compare its effective configuration with what was rendered for it."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_resp import STORES, Connection, await_ready

DOCUMENTATION = """
module: kvstrata_store
short_description: Await stores and compare their configuration
description: Changes nothing.
options:
  stores: {description: Stores of this node as the filter kvstrata_stores describes them., type: list, required: true}
  engine: {description: What must answer., type: str, choices: [kvrocks, redis], required: true}
  timeout: {description: Seconds to wait until it is ready., type: int, default: 60}
"""


def engine_of(info: str) -> str:
    """Return which server wrote an INFO text."""
    return "kvrocks" if "kvrocks_version:" in info else "redis"


def differences(connection: Connection, wanted: dict[str, Any]) -> list[str]:
    """Return one line for each directive whose effective value is not the wanted one."""
    seen = connection.config()
    return [
        f"{name}: rendered {value}, effective {seen.get(name, 'unknown to the server')}"
        for name, value in wanted.items()
        if seen.get(name, "unknown to the server").strip() != str(value).strip()
    ]


def check(store: dict[str, Any], engine: str, timeout: float) -> str:
    """Await one store; return what is wrong with it, or nothing."""
    address = f"{store['host']}:{store['port']}"
    try:
        connection = await_ready(store["host"], store["port"], store["password"], timeout)
    except TimeoutError as error:
        return str(error)
    running = engine_of(connection.call("INFO", "server"))
    if running != engine:
        return f"{address} runs {running}, expected {engine}"
    lines = differences(connection, store["config"])
    connection.close()
    return f"{address}: the effective configuration is not the rendered one: {'; '.join(lines)}" if lines else ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stores": STORES,
            "engine": {"type": "str", "choices": ["kvrocks", "redis"], "required": True},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    want = module.params
    # In check mode a store that does not run yet is no error: the run would have started it.
    patience = 0 if module.check_mode else want["timeout"]
    wrong = [check(store, want["engine"], patience) for store in want["stores"]]
    wrong = [message for message in wrong if message]
    if wrong and not module.check_mode:
        module.fail_json(msg="; ".join(wrong))
    module.exit_json(changed=False, msg="NOT CHECKED in check mode: " + "; ".join(wrong) if wrong else "all ready")


if __name__ == "__main__":
    main()
