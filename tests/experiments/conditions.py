"""The conditions of a run, which belong in every picture: the machine, its load, and the version of the programs."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Conditions:
    """The conditions at the start of a run."""

    machine: str
    version: str
    data: str
    load_before: str
    date: str

    def lines(self, seed: int, repetitions: int, more: list[str]) -> list[str]:
        """Everything in sentences, with the load as it is now beside that of the start."""
        return [
            *more,
            f"{repetitions} {'repetition' if repetitions == 1 else 'repetitions'}, seed {seed}; {self.version}; {self.date}",
            f"{self.machine}; load average {self.load_before} before, {load()} after; {self.data}",
        ]


def observe(programs: Path, data: Path) -> Conditions:
    version = output([str(programs / "storage-node"), "--version"]) or "storage-node of an unknown version"
    commit = output(["git", "-C", str(ROOT), "describe", "--always", "--dirty=-changed", "--abbrev=10"]) or "unknown"
    return Conditions(
        machine(),
        f"{version}, {programs.name} programs; repository at commit {commit}",
        f"data on {file_system(data)}",
        load(),
        datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name") and ": " in line), None)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model or platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}"


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def file_system(folder: Path) -> str:
    return output(["stat", "--file-system", "--format=%T", str(folder)]) or "an unknown file system"


def output(command: list[str]) -> str | None:
    """What a program prints; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
