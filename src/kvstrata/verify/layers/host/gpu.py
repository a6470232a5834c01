"""Driver, Fabric Manager and memory of a node's GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from kvstrata.driver.pciids import Device, devices_of
from kvstrata.verify.check import Check, Json, NotCheckedError, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.layers.host import xid
from kvstrata.verify.layers.host.gpuhealth import kvstrata_gpuhealth as health
from kvstrata.verify.layers.host.survey import Survey

_FABRIC_MANAGER = re.compile(r"[Vv]ersion is\s*:?\s*(\d+(?:\.\d+)+)")
_NO_SERVICE = "not-found"


def checks(ctx: NodeContext, survey: Survey) -> Iterator[Check]:
    """What is asked of a node with GPUs; nothing of any other."""
    if ctx.cluster.accelerator != "cuda" or not ctx.node.gpus:
        return
    gpus = ctx.node.gpus
    versions: dict[str, Json] = {}
    yield ctx.question(
        "host.driver",
        "driver of the GPUs",
        f"nvidia-smi sees {gpus} GPU{'s' if gpus != 1 else ''}; loaded and installed module and library of one version",
        ctx.command("nvidia-smi"),
    ).ask(partial(_driver, survey, gpus, versions), versions)
    # Where there is no NVSwitch there is nothing to manage, and nothing to ask.
    if any(device.is_nvswitch or device.is_nvlink5_switch for device in devices(survey)):
        yield ctx.question(
            "host.fabric_manager",
            "Fabric Manager of the NVSwitches",
            "active, of the driver's version, and every GPU registered with the fabric",
            ctx.journal("nvidia-fabricmanager"),
        ).ask(partial(_fabric_manager, survey))
    yield from xid.checks(ctx, survey)
    yield ctx.question(
        "host.ecc",
        "memory of the GPUs",
        "ECC on; no uncorrectable error since the driver was loaded, no repair that failed or waits",
        ctx.command("nvidia-smi -q -d ECC,ROW_REMAPPER,PAGE_RETIREMENT"),
    ).ask(partial(_memory, survey))


def devices(survey: Survey) -> tuple[Device, ...]:
    """NVIDIA's PCI functions, and ConnectX bridges; none where that was not asked."""
    words = [line.split() for line in survey.get("pci").splitlines()]
    return devices_of(
        {
            "address": address,
            "vendor": vendor,
            "device": device,
            "class": kind,
            "numa_node": -1,
            "driver": "",
            "switch_management": switches == "yes",
        }
        for address, vendor, device, kind, switches in (found for found in words if len(found) == 5)
    )


def _smi(survey: Survey) -> dict[str, Any]:
    """What nvidia-smi tells; NotCheckedError where it does not answer, which `host.driver` fails for."""
    status, _, text = survey.part("smi").partition("\n")
    if status != "exit 0":
        raise NotCheckedError(f"this: nvidia-smi does not answer ({status}), see host.driver")
    try:
        found: dict[str, Any] = health.parse_smi(text)
    except ValueError as error:
        raise UnableError(str(error)) from error
    return found


def _driver(survey: Survey, gpus: int, versions: dict[str, Json]) -> str:
    status, _, said = survey.part("smi").partition("\n")
    loaded, installed = survey.get("module"), survey.get("installed")
    libraries = [PurePosixPath(line).name.partition(".so.")[2] for line in survey.get("library").splitlines()]
    library = max(libraries, default="")
    versions |= {"module": loaded or None, "installed": installed or None, "library": library or None}
    known = {"loaded module": loaded, "installed module": installed, "library": library}
    differ = ", ".join(f"{what} {version}" for what, version in known.items() if version)
    if status != "exit 0":
        why = f" ({differ})" if differ else ""
        raise UnmetError(f"nvidia-smi ended with {status}: {' '.join(said.split())[:200] or 'and said nothing'}{why}")
    found = _smi(survey)
    versions |= {"driver": found["driver_version"]}
    if len(found["gpus"]) != gpus:
        on_bus = sum(device.is_gpu for device in devices(survey))
        raise UnmetError(f"nvidia-smi sees {len(found['gpus'])} GPUs, the PCI bus has {on_bus}")
    if len({version for version in known.values() if version}) > 1:
        raise UnmetError(f"{differ}: the node waits for a restart, and until then programs may fail")
    if asking := _texts(found, {health.RECOVERY}):
        raise UnmetError(asking)
    names = sorted({gpu["product_name"] for gpu in found["gpus"]})
    return f"{gpus} x {', '.join(names)}, driver {found['driver_version']}"


def _fabric_manager(survey: Survey) -> str:
    text = survey.part("fabricmanager")
    values = dict(line.partition("=")[::2] for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    if values.get("LoadState") == _NO_SERVICE:
        raise UnmetError("the node has NVSwitches, and no service nvidia-fabricmanager")
    state = f"{values.get('ActiveState', '?')} ({values.get('SubState', '?')})"
    if values.get("ActiveState") != "active":
        raise UnmetError(f"{state}, result {values.get('Result', '?')}: CUDA fails with error 802 without it")
    match = _FABRIC_MANAGER.search(text)
    version, loaded = match[1] if match else "", survey.get("module")
    if version and loaded and version != loaded:
        raise UnmetError(f"{state}, version {version}, and the driver is {loaded}: it does not start the fabric then")
    if waiting := _texts(_smi(survey), {health.FABRIC}):
        raise UnmetError(f"{state}; {waiting}")
    if not version:
        raise NotCheckedError(f"that its version is the driver's ({loaded or 'unknown'}): it does not tell; {state}")
    return f"{state}, version {version}"


def _memory(survey: Survey) -> str:
    found = _smi(survey)
    if bad := _texts(found, {health.MEMORY}):
        raise UnmetError(bad)
    if off := _texts(found, {health.ECC}):
        raise NotCheckedError(f"that the GPUs' memory is sound: {off}")
    before = _texts(found, {health.LIFETIME})
    return f"{len(found['gpus'])} GPUs without errors since the driver was loaded{'; ' + before if before else ''}"


def _texts(found: dict[str, Any], about: set[str]) -> str:
    """The findings of some kinds, in one line; nothing where there are none."""
    return "; ".join(f"GPU {each['gpu']}: {each['text']}" for each in found["findings"] if each["about"] in about)
