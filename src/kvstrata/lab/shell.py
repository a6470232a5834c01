"""Run host commands: argv lists, captured output, errors that quote the command."""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence

from kvstrata.lab.errors import LabError

# Plain users and minimal environments miss the sbin folders where losetup and iptables live.
_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


class CommandError(LabError):
    """A command that exited with another status than 0."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        """Keep the exit status, and put command and last output lines into the message."""
        tail = "\n".join(output.strip().splitlines()[-15:])
        super().__init__(f"`{shlex.join(argv)}` exited with {returncode}:\n{tail}")
        self.returncode = returncode
        self.output = output


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with the sbin folders on PATH and `extra` on top."""
    return {**os.environ, "PATH": _PATH, **(extra or {})}


def run(argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 120) -> str:
    """Run `argv` and return its standard output; CommandError when it fails or takes too long."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment(),
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandError(argv, 127, f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, 124, f"no end within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout_s: float = 120) -> bool:
    """Say whether `argv` exits with 0."""
    try:
        run(argv, timeout_s=timeout_s)
    except CommandError:
        return False
    return True


def stream(argv: Sequence[str], on_line: Callable[[str], None], extra_env: Mapping[str, str]) -> None:
    """Run `argv`, handing every line of its output to `on_line` as it comes; CommandError when it fails."""
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(extra_env),
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker: PIPE was asked for
        for line in process.stdout:
            lines.append(line)
            on_line(line.rstrip())
    if process.returncode != 0:
        raise CommandError(argv, process.returncode, "".join(lines))
