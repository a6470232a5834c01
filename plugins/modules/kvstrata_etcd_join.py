#!/usr/bin/python
"""Let a member of etcd found its cluster, or join the one that the other members are."""

from __future__ import annotations

import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kvstrata_text import place

DOCUMENTATION = """
module: kvstrata_etcd_join
short_description: Let a member of etcd found its cluster, or join the one that the others are
description: >-
  A member that has data belongs to a cluster already, and nothing is done. One without data joins the cluster of the
  first of the others that answers; where none of them has a cluster it founds one. An entry that the cluster still has
  of this member, from before its data was lost, is removed first. Run it on one member at a time, and start the member
  before the next one. C(alone) says that it has data and none of the others runs, so that it cannot be healthy yet.
options:
  name: {description: Name of the member., type: str, required: true}
  data: {description: Its data directory., type: path, required: true}
  peer_url: {description: Where the other members reach it., type: str, required: true}
  others: {description: URLs for clients of the other members., type: list, elements: str, required: true}
  tls: {description: "ca, certificate and key of a client, paths on the host.", type: dict, required: true}
  initial: {description: File for the unit that says which cluster it is., type: path, required: true}
"""

TIMEOUT_S = 5


def has_data(folder: str) -> bool:
    """Whether a member ran with this data directory."""
    return os.path.isdir(os.path.join(folder, "member"))


def started(member: dict[str, Any]) -> bool:
    """Whether a member ran after it was added: only then etcd knows its name."""
    return bool(member.get("name"))


def plan(peer_url: str, members: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return what a member without data has to do: `add`, the `remove`d id, and the others it `joins`, by their names.

    `members` are those of the cluster that answered, None where none did.
    """
    if members is None:
        return {"add": False, "remove": "", "joins": {}}
    own = [member for member in members if peer_url in member.get("peerURLs", [])]
    stale = [member for member in own if started(member)]
    joins = {member["name"]: member["peerURLs"][0] for member in members if member not in own and started(member)}
    return {"add": not own or bool(stale), "remove": f"{stale[0]['ID']:x}" if stale else "", "joins": joins}


def initial(name: str, peer_url: str, joins: dict[str, str]) -> str:
    """Return the variables that tell a member without data which cluster it belongs to."""
    cluster = ",".join(f"{key}={url}" for key, url in sorted({**joins, name: peer_url}.items()))
    return f'ETCD_INITIAL_CLUSTER="{cluster}"\nETCD_INITIAL_CLUSTER_STATE="{"existing" if joins else "new"}"\n'


def has_listener(url: str) -> bool:
    """Whether something takes connections there, or may: etcdctl itself takes a refusal for one more reason to wait."""
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname, where.port), timeout=TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


class Client:
    """etcdctl, with the certificate of a client."""

    def __init__(self, module: AnsibleModule) -> None:
        """Use the certificates that the module was given."""
        self.module = module
        tls = module.params["tls"]
        self.base = ["etcdctl", "--cacert", tls["ca"], "--cert", tls["certificate"], "--key", tls["key"]]

    def run(self, endpoint: str, *args: str) -> tuple[int, str, str]:
        """Return the exit code, the output and the errors of a command."""
        command = [*self.base, f"--command-timeout={TIMEOUT_S}s", f"--endpoints={endpoint}", *args]
        code, out, err = self.module.run_command(command, environ_update={"ETCDCTL_API": "3"})
        return code, out, err

    def members(self, endpoint: str) -> tuple[list[dict[str, Any]] | None, str]:
        """Return the members that an endpoint knows, or None and why there was no answer."""
        code, out, err = self.run(endpoint, "member", "list", "--write-out=json")
        return (
            (json.loads(out)["members"], "")
            if code == 0
            else (None, err.strip().splitlines()[-1] if err.strip() else "")
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "data": {"type": "path", "required": True},
            "peer_url": {"type": "str", "required": True},
            "others": {"type": "list", "elements": "str", "required": True},
            "tls": {"type": "dict", "required": True},
            "initial": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if has_data(params["data"]):
        # The first member to be started after all of them were stopped has no majority until the next one is.
        alone = bool(params["others"]) and not any(map(has_listener, params["others"]))
        module.exit_json(changed=False, alone=alone, msg=f"{params['data']} has the data of a member")
    client = Client(module)
    members, silent = None, {}
    for endpoint in filter(has_listener, params["others"]):
        # Who refuses the connection has no etcd yet. Anybody else may be a member in trouble, and a second cluster
        # beside it would be found by half of the site.
        members, why = client.members(endpoint)
        if members is not None:
            break
        silent[endpoint] = why
    if members is None and silent:
        told = "; ".join(f"{endpoint}: {why}" for endpoint, why in silent.items())
        module.fail_json(
            msg=f"{params['name']} founds no cluster of etcd while others may have one that does not answer: {told}"
        )
    todo = plan(params["peer_url"], members)
    if not module.check_mode:
        if todo["remove"]:
            command(module, client, endpoint, "member", "remove", todo["remove"])
        if todo["add"]:
            command(module, client, endpoint, "member", "add", params["name"], f"--peer-urls={params['peer_url']}")
    place(module, params["initial"], initial(params["name"], params["peer_url"], todo["joins"]), 0o644)
    what = f"joins {', '.join(todo['joins'])}" if todo["joins"] else "founds a cluster"
    module.exit_json(changed=True, alone=False, msg=f"{params['name']} {what}")


def command(module: AnsibleModule, client: Client, endpoint: str, *args: str) -> None:
    """Run a command that changes the cluster, and fail with what etcd said where it refuses."""
    code, out, err = client.run(endpoint, *args)
    if code:
        module.fail_json(msg=f"etcdctl {' '.join(args)} at {endpoint}: {(err or out).strip()}")


if __name__ == "__main__":
    main()
