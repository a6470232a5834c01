"""What has to happen for the installed module to be the loaded one."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.driver.model import Flavour, Module, Probe


@dataclass(frozen=True)
class Activation:
    """How the installed module becomes the loaded one: at most one of the two is set."""

    reboot: str = ""
    """Why the node must restart, or nothing."""
    load: bool = False
    """Whether loading the module is enough: none is loaded, and nothing else holds the GPUs."""


def activation(probe: Probe) -> Activation:
    """Return what the node needs, as it is now."""
    if probe.installed is None:
        return Activation()
    return needed(probe, probe.installed)


def needed(probe: Probe, installed: Module) -> Activation:
    """Return what the node would need with that module installed."""
    loaded = probe.loaded
    if loaded is None and probe.nouveau:
        return Activation(reboot=f"nouveau holds the GPUs, and the module {described(installed)} is not loaded")
    if loaded is None:
        return Activation(load=True)
    if loaded.version != installed.version or _other(loaded.flavour, installed.flavour):
        text = f"the loaded module is {described(loaded)}, the installed one {described(installed)}"
        return Activation(reboot=text)
    return Activation()


def described(module: Module) -> str:
    """Return version and flavour in words."""
    return f"{module.version} ({module.flavour})" if module.flavour else module.version


def _other(one: Flavour | None, two: Flavour | None) -> bool:
    return one is not None and two is not None and one is not two
