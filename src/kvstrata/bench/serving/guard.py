"""`python -m kvstrata.bench.serving.guard`: ends what a benchmark started, if the benchmark dies without doing so.

Standard input carries lines `+PID` and `-PID`, sessions that began and that ended. When it closes, every session that
is still there is killed. Killing the benchmark itself (SIGKILL, memory) closes it, so no engine keeps a GPU.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

PROC = Path("/proc")


def members(session: int) -> list[int]:
    """Return the processes of a session: a process started in one of its own, and its children, however deep."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        # Gone meanwhile.
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name, in parentheses, may hold spaces: count from its end. proc_pid_stat(5), field 6.
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(entry.name))
    return found


def kill(session: int) -> None:
    """Kill every process of a session, and those that they started meanwhile."""
    while alive := [pid for pid in members(session) if not _is_zombie(pid)]:
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def main() -> None:
    """Read until the benchmark is gone, then kill."""
    # Ctrl-C and the terminal's end are the benchmark's to handle, and it is then that it needs its guard.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sessions: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        (sessions.add if line[0] == "+" else sessions.discard)(pid)
    for session in sessions:
        kill(session)


if __name__ == "__main__":
    main()
