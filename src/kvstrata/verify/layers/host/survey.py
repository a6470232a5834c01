"""All that the host layer wants to know of a node, by one command: a node far away costs one round trip.

The command prints parts, each after a line `@@ TITLE`. What each part means is known to the module that asks for it.
Nothing is written on the node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from kvstrata.verify.check import UnableError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.shell import CommandTimeoutError

TITLE = "@@ "
START = ": kvstrata host survey"
SURVEY_S = 60.0

# Each program that could hang has a limit of its own, so that one silent drive or GPU costs its own part only.
SCRIPT = (
    START
    + r"""
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
gpus=$1 hours=$2 units=$3
shift 3
part() { printf '\n@@ %s\n' "$*"; }
leaves() (
    own=$1
    set -- /sys/dev/block/"$own"/slaves/*
    [ -e "$1" ] || { echo "leaf $own $(basename "$(readlink -f /sys/dev/block/"$own")")"; exit; }
    for below; do leaves "$(cat "$below"/dev)"; done
)
part begin; date +%s.%N
part container; systemd-detect-virt --container 2>/dev/null
for entry; do
    path=${entry%%=*} devices=${entry#*=}
    part mount "$path"
    found=$(findmnt --json --output TARGET,SOURCE,FSTYPE,FSROOT,MAJ:MIN,OPTIONS,UUID --mountpoint "$path" 2>&1)
    echo "exit $?"; printf '%s\n' "$found"
    part block "$path"
    number=$(findmnt --noheadings --output MAJ:MIN --mountpoint "$path" 2>/dev/null | tail -n 1 | tr -d ' ')
    [ -z "$number" ] || leaves "$number"
    part devices "$path"
    for device in $(echo "$devices" | tr , ' '); do
        echo "$device $(readlink -f "$device") $(stat -L -c '%t %T' "$device" 2>/dev/null)"
    done
done
part units
# shellcheck disable=SC2086 - a list of words
[ -z "$units" ] || shown=$(systemctl show --no-pager --property=Id,MainPID,LimitNOFILE,LimitNOFILESoft,LimitMEMLOCK,\
LimitMEMLOCKSoft,CPUAffinity,NUMAPolicy,NUMAMask,AllowedCPUs,DropInPaths -- $units)
printf '%s\n' "$shown"
for pid in 1 $(printf '%s\n' "$shown" | sed -n 's/^MainPID=\([1-9][0-9]*\)$/\1/p'); do
    part process "$pid"
    cat /proc/"$pid"/limits 2>/dev/null
    grep -E '^(Cpus|Mems)_allowed_list:' /proc/"$pid"/status 2>/dev/null
    head -n 1 /proc/"$pid"/numa_maps 2>/dev/null
done
part drives; cat /etc/ansible/facts.d/kvstrata_drives.fact 2>/dev/null
part numa; cat /etc/ansible/facts.d/kvstrata_numa.fact 2>/dev/null
part sysctl; cat /etc/sysctl.d/90-kvstrata.conf 2>/dev/null
part sysctl-now
for name in $(sed -n 's/^ *-\{0,1\}\([a-z][^#;= ]*\) *=.*/\1/p' /etc/sysctl.d/90-kvstrata.conf 2>/dev/null); do
    # Where "/" comes first it is what separates the parts, and a dot belongs to a name (sysctl.d(5)).
    case ${name%%.*} in */*) file=$name ;; *) file=$(echo "$name" | tr ./ /.) ;; esac
    value= && read -r value < /proc/sys/"$file" && echo "$name = $value"
done 2>/dev/null
part boot; cat /etc/tmpfiles.d/kvstrata.conf 2>/dev/null
part boot-now
for glob in $(sed -n 's/^w \([^ ]*\) .*/\1/p' /etc/tmpfiles.d/kvstrata.conf 2>/dev/null); do
    for file in $glob; do value= && read -r value < "$file" && echo "$glob $file = $value"; done
done 2>/dev/null
part clock; timeout 5 timedatectl show --property=NTPSynchronized --value 2>&1
part addresses; ip -o address 2>/dev/null
for link in /sys/class/net/*; do echo "mtu ${link##*/} $(cat "$link"/mtu 2>/dev/null)"; done
part smart; command -v nvme || echo missing
for disk in $(for entry; do leaves "$(findmnt --noheadings --output MAJ:MIN --mountpoint "${entry%%=*}" 2>/dev/null |
        tail -n 1 | tr -d ' ')"; done 2>/dev/null | sed -n 's/^leaf [^ ]* \(nvme.*\)$/\1/p' | sort -u); do
    part smart "$disk"; timeout 10 nvme smart-log --output-format=json /dev/"$disk" 2>&1; echo; echo "exit $?"
done
if [ "$gpus" -gt 0 ]; then
    part smi; found=$(timeout 30 nvidia-smi -q -x 2>&1); echo "exit $?"
    printf '%s\n' "$found" | sed '/<supported_clocks>/,/<\/supported_clocks>/d'
    part module; cat /sys/module/nvidia/version 2>/dev/null
    part installed; modinfo --field version nvidia 2>/dev/null
    part library; ls /usr/lib/*-linux-gnu/libnvidia-ml.so.*.* /usr/lib64/libnvidia-ml.so.*.* 2>/dev/null
    part pci
    for folder in $(grep -l -E '0x10de|0x15b3' /sys/bus/pci/devices/*/vendor 2>/dev/null); do
        folder=${folder%/vendor}
        switches=no
        head -c 1024 "$folder"/vpd 2>/dev/null | grep -q -a SW_MNG && switches=yes
        echo "${folder##*/} $(cat "$folder"/vendor) $(cat "$folder"/device) $(cat "$folder"/class) $switches"
    done
    part fabricmanager
    systemctl show --property=LoadState,ActiveState,SubState,Result nvidia-fabricmanager.service
    timeout 10 nv-fabricmanager --version 2>&1
    part kernel-log
    if journalctl --boot _TRANSPORT=kernel --lines=1 --quiet --no-pager --output=cat 2>/dev/null | grep -q .; then
        echo journal
        timeout 20 journalctl --boot _TRANSPORT=kernel --since="-${hours}h" --quiet --no-pager --output=short-unix |
            grep -E 'NVRM: Xid|SXid' | tail -n 500
    elif dmesg >/dev/null 2>&1; then
        echo "dmesg $(cut -d ' ' -f 1 /proc/uptime)"
        dmesg | grep -E 'NVRM: Xid|SXid' | tail -n 500
    else
        echo "unreadable: $(dmesg 2>&1 | head -n 1)"
    fi
fi
part end; date +%s.%N
"""
)


@dataclass(frozen=True)
class Survey:
    """What a node said. `asked_at` and `answered_at` are the controller's clock before and after, in seconds."""

    parts: Mapping[str, str] = field(default_factory=dict)
    asked_at: float = 0.0
    answered_at: float = 0.0
    failure: str = ""

    def part(self, title: str) -> str:
        """The text of a part without the space around it; UnableError where the survey did not get so far."""
        if self.failure:
            raise UnableError(self.failure)
        if title not in self.parts:
            raise UnableError(f"the survey of the node ended before its part `{title}`")
        return self.parts[title]

    def get(self, title: str) -> str:
        """The same, and nothing where it is not there."""
        return self.parts.get(title, "")

    @property
    def container(self) -> str:
        """The kind of container that the node is, or nothing."""
        kind = self.get("container")
        return "" if kind == "none" else kind


def parse(text: str, asked_at: float = 0.0, answered_at: float = 0.0) -> Survey:
    """The survey that a node printed."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(TITLE):
            lines = parts.setdefault(line[len(TITLE) :].strip(), [])
        else:
            lines.append(line)
    return Survey({title: "\n".join(found).strip() for title, found in parts.items()}, asked_at, answered_at)


def command(ctx: NodeContext) -> list[str]:
    """The command that surveys a node."""
    mounts = [
        f"{mount.path}={','.join(mount.devices or ([mount.device] if mount.device else []))}"
        for mount in ctx.node.mounts
    ]
    gpus = ctx.node.gpus if ctx.cluster.accelerator == "cuda" else 0
    hours = f"{ctx.cluster.verify.limits.xid_hours:g}"
    return ["sh", "-c", SCRIPT, "kvstrata", str(gpus), hours, " ".join(ctx.node.units), *mounts]


def look(ctx: NodeContext) -> Survey:
    """Ask the node; what keeps it from answering is in `failure`, and told by each check that needed it."""
    asked_at = time.time()
    limit = min(SURVEY_S, ctx.timeout_s)
    try:
        done = ctx.shell.run(command(ctx), limit)
    except CommandTimeoutError:
        # Its own message would hold the whole script.
        return Survey(failure=f"the survey of the node did not end within {limit:g} s")
    except UnableError as error:
        return Survey(failure=str(error))
    if TITLE + "end" not in done.stdout:
        said = done.stderr.strip() or done.stdout.strip()[-200:] or "nothing"
        return Survey(failure=f"the survey of the node exited {done.exit_code} and said: {said}")
    return parse(done.stdout, asked_at, time.time())
