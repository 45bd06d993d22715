"""Ends processes by pid, and verifies that they have ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

END_SECONDS = 10.0


def started(pid: int) -> str | None:
    """The kernel's start time of a process, which with the pid identifies it for good. None when it has ended."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc_pid_stat(5): only the name in parentheses may contain spaces. Field 3 is the state.
    fields = line.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else fields[19]


def end(pids: Callable[[], Sequence[int]], signals: Sequence[signal.Signals], timeout: float = END_SECONDS) -> None:
    """Sends the signals one after the other to the processes that `pids` still finds; each signal gets `timeout`
    seconds."""
    for number in signals:
        deadline = time.monotonic() + timeout
        for pid in _running(pids):
            send(pid, number)
        while time.monotonic() < deadline:
            left = _running(pids)
            if not left:
                return
            if number == signal.SIGKILL:
                for pid in left:  # They may have been forked meanwhile.
                    send(pid, number)
            time.sleep(0.02)
    raise TimeoutError(f"processes {_running(pids)} do not end")


def wait_for_end(pids: Callable[[], Sequence[int]], seconds: float) -> None:
    """Waits until the processes of `pids` have ended by themselves."""
    deadline = time.monotonic() + seconds
    while left := _running(pids):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} have not ended after {seconds:.0f} s")
        time.sleep(0.02)


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _running(pids: Callable[[], Sequence[int]]) -> list[int]:
    return [pid for pid in pids() if started(pid) is not None]
