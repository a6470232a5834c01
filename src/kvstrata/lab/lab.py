"""Bring a lab up and down, touching only what differs from what is wanted."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from kvstrata.lab import drives, hostnet, hostpackages, image, network, nodes, paths
from kvstrata.lab.errors import LabError
from kvstrata.lab.lock import one_at_a_time
from kvstrata.lab.progress import console, step
from kvstrata.lab.releases import SharedRelease
from kvstrata.lab.spec import LabSpec
from kvstrata.lab.sshaccess import Access, await_login, host_key

BOOT_DEADLINE_S = 90


def _images_folder(spec: LabSpec) -> Path:
    return paths.lab_dir(spec.name) / "drives"


def _drive_images(spec: LabSpec, node: str) -> list[Path]:
    return [_images_folder(spec) / f"{node}-nvme{index}.img" for index in range(spec.drives)]


def _before() -> Path:
    """What the host's network was before the first of all labs."""
    return paths.labs_dir() / "host-before.json"


def _one_at_a_time() -> AbstractContextManager[None]:
    """Labs share image, loop devices and the record of the host: one command at a time changes them."""
    return one_at_a_time(paths.labs_dir() / ".lock", "lab")


def access(name: str) -> Access:
    """Return how to log in to the nodes of the lab `name`."""
    return Access(paths.lab_dir(name))


def up(spec: LabSpec, release: str | None = None) -> bool:
    """Make the lab run with at least the spec's nodes; return whether anything had to be changed.

    Running nodes are left as they are, stopped ones started, missing ones made. New nodes begin with `release`, an id,
    where an earlier lab has built it; otherwise the first one builds it for later labs. LabError says what is wrong.
    """
    with _one_at_a_time(), step(f"lab {spec.name}") as whole:
        host = nodes.this_host()
        hostpackages.ensure(cgroup_v2=host.cgroup_v2)
        ssh = access(spec.name)
        present = {container.node: container for container in nodes.containers(spec.name)}
        for node in spec.nodes:
            found = len(present[node].devices) if node in present else spec.drives
            if found != spec.drives:
                raise LabError(f"{node} has {found} drives, asked for are {spec.drives}: `lab down` first")
            for path in _drive_images(spec, node):
                drives.check_image(path, spec.drive_gib)

        # Each is its own step only when there is something to do: a lab that runs answers at once.
        tags = {suite: image.ensure(image.host_recipe(suite)) for suite in dict.fromkeys(map(spec.suite, spec.nodes))}
        _ensure_models_dir()
        mounts = _mounts(spec, ssh, release, present)
        todo = [node for node in spec.nodes if node not in present or not present[node].running]
        if todo:
            hostnet.record(_before())
            with step("network") as current:
                made = network.ensure(spec.network, spec.subnet)
                current.result = f"{spec.network} {spec.subnet} {'created' if made else 'there'}"
            with step("drives") as current:
                attached = {node: _attach(spec, node, present.get(node)) for node in todo}
                current.result = f"{sum(map(len, attached.values()))} of {spec.drive_gib} GiB attached"
            with step("nodes") as current:
                for node in todo:
                    argv = nodes.run_argv(spec, node, tags[spec.suite(node)], attached[node], mounts[node], host)
                    _start(argv, present.get(node), attached[node])
                running = {node for node, container in present.items() if container.running}
                _await(spec, ssh, todo, sorted(running | set(todo)))
                current.result = f"{len(todo)} up"
            _write_state(spec, tags)
        _check_logins(spec, ssh)
        for node in spec.nodes:
            if node in present and node not in todo:
                argv = nodes.run_argv(spec, node, tags[spec.suite(node)], present[node].devices, mounts[node], host)
                if nodes.recipe_of(argv) != present[node].recipe:
                    whole.note(f"{node} was made by another recipe; `lab down`, then `lab up` renews it")
        where = ", ".join(f"{node} {spec.address(node)}" for node in spec.nodes)
        whole.result = f"up ({where})" if todo else f"already up, nothing changed ({where})"
    return bool(todo)


def _mounts(
    spec: LabSpec, ssh: Access, release: str | None, present: Mapping[str, nodes.Container]
) -> dict[str, nodes.Mounts]:
    mounts = {}
    # Another lab may be building it just now: the nodes of this one leave that alone, and build one of their own.
    elsewhere = any(other.lab != spec.name and other.shares_release for other in nodes.containers())
    for node in spec.nodes:
        shared = SharedRelease(release, spec.suite(node)) if release else None
        if shared is not None and not present and not elsewhere:
            shared.make_room()
        volume = shared.volume(first=node == spec.nodes[0] and not elsewhere) if shared else None
        mounts[node] = nodes.Mounts(paths.models_dir(), ssh.ensure_key(), ssh.user, volume)
    return mounts


def _ensure_models_dir() -> None:
    """Make the folder that nodes see as /srv/models; services there, with users of their own, read it."""
    paths.models_dir().mkdir(parents=True, exist_ok=True)
    paths.models_dir().chmod(0o755)


def _attach(spec: LabSpec, node: str, old: nodes.Container | None) -> tuple[str, ...]:
    wanted = old.devices if old else (None,) * spec.drives
    devices = []
    for path, device in zip(_drive_images(spec, node), wanted, strict=True):
        drives.ensure_image(path, spec.drive_gib)
        devices.append(drives.attach(path, wanted=device))
    return tuple(devices)


def _start(argv: list[str], old: nodes.Container | None, devices: tuple[str, ...]) -> None:
    if old is not None and old.devices == devices:
        nodes.start(old.name)
        return
    if old is not None:
        # After a restart of the machine other loop devices may be in use: the container knows only the old.
        console.print(f"[dim]{old.node}: its loop devices are taken, so it is made anew; drives keep their data[/dim]")
        nodes.remove(old.name)
    nodes.create(argv)


def _await(spec: LabSpec, ssh: Access, started: Sequence[str], running: Sequence[str]) -> None:
    """Wait until the `started` nodes take logins, knowing the host keys of all `running` ones."""
    deadline = time.monotonic() + BOOT_DEADLINE_S
    addresses = {node: str(spec.address(node)) for node in running}
    keys = {node: host_key(spec.container(node), deadline=deadline) for node in running}
    ssh.write_known_hosts(keys, addresses)

    def settle(node: str) -> str:
        await_login(ssh, addresses[node], deadline=deadline)
        nodes.check_sysctls_are_shielded(spec.container(node))
        return nodes.system_state(spec.container(node))

    with ThreadPoolExecutor(len(started)) as pool:
        for node, state in zip(started, pool.map(settle, started), strict=True):
            console.print(f"[dim]nodes: {node} {addresses[node]} systemd is {state}[/dim]")


def _check_logins(spec: LabSpec, ssh: Access) -> None:
    """Log in to every node; write known_hosts anew once if that fails, for it may have been removed."""
    addresses = {node: str(spec.address(node)) for node in spec.nodes}
    with ThreadPoolExecutor(len(addresses)) as pool:
        if all(pool.map(ssh.login_works, addresses.values())):
            return
    _await(spec, ssh, spec.nodes, spec.nodes)


def _write_state(spec: LabSpec, tags: Mapping[str, str]) -> None:
    loops = {loop.image: loop.device for loop in drives.attached()}
    state = {
        "lab": spec.name,
        "subnet": str(spec.subnet),
        "nodes": {
            node: {
                "address": str(spec.address(node)),
                "container": spec.container(node),
                "image": tags[spec.suite(node)],
                "drives": [
                    {"image": str(path), "loop": loops.get(path), "device": f"/dev/nvme{index}n1"}
                    for index, path in enumerate(_drive_images(spec, node))
                ],
            }
            for node in spec.nodes
        },
    }
    (paths.lab_dir(spec.name) / "state.json").write_text(json.dumps(state, indent=1) + "\n")


def down(spec: LabSpec, *, keep_data: bool = False) -> bool:
    """Remove every trace of the lab, but with `keep_data` the drive images; return whether there was any.

    Key, image and models stay: they are the cache. The host's ip_forward and packet filter go back to what
    they were when this was the last lab and no other container runs.
    """
    with _one_at_a_time(), step(f"lab {spec.name}") as whole:
        if not shutil.which("podman"):
            whole.result = "not up: podman is not installed"
            return False
        done = []
        present = nodes.containers(spec.name)
        if present:
            with step("nodes") as current, ThreadPoolExecutor(len(present)) as pool:
                list(pool.map(nodes.remove, [container.name for container in present]))
                current.result = f"{len(present)} removed"
            done.append("nodes")
        loops = drives.below(drives.attached(), _images_folder(spec))
        if loops or (_images_folder(spec).exists() and not keep_data):
            with step("drives") as current:
                drives.detach(loops)
                if not keep_data:
                    shutil.rmtree(_images_folder(spec), ignore_errors=True)
                current.result = f"{len(loops)} detached, images {'kept' if keep_data else 'removed'}"
            done.append("drives")
        if network.remove(spec.network):
            done.append("network")
        for name in ("known_hosts", "state.json"):
            (paths.lab_dir(spec.name) / name).unlink(missing_ok=True)
        done += _restore_host()
        whole.result = "down" if done else "not up, nothing changed"
    return bool(done)


def _restore_host() -> list[str]:
    labs = sorted({container.lab for container in nodes.containers()})
    others = nodes.others_running()
    if not _before().exists():
        return []
    with step("host network") as current:
        if labs or others:
            current.result = f"kept for {', '.join([*(f'lab {lab}' for lab in labs), *others])}"
            return []
        done = hostnet.restore(_before())
        current.result = ", ".join(done) or "as it was"
    return done


def status(spec: LabSpec) -> list[tuple[str, str, str, str]]:
    """Return (node, address, container state, SSH) of every node the lab has, or should have."""
    ssh = access(spec.name)
    present = {container.node: container for container in nodes.containers(spec.name)}
    rows = []
    for node in spec.nodes:
        address = str(spec.address(node))
        if node not in present:
            rows.append((node, address, "absent", "-"))
        elif not present[node].running:
            rows.append((node, address, "stopped", "-"))
        else:
            rows.append((node, address, "running", "ok" if ssh.login_works(address) else "no login"))
    return rows
