"""A mounted file system that is measured, and the CPU time that it takes."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .figures import Figure


@dataclass(frozen=True)
class Target:
    """`remount` is a command that empties its caches by mounting it again; without one, only the kernel's are dropped."""

    name: str
    mount: Path
    remount: str | None = None

    def go_cold(self) -> None:
        subprocess.run(["sync", "-f", self.mount], check=True, timeout=600)
        if self.remount:
            subprocess.run(self.remount, shell=True, check=True, timeout=600)
        Path("/proc/sys/vm/drop_caches").write_text("3")


@dataclass(frozen=True)
class Scale:
    """How much a load does."""

    size_mib: int
    files: int
    tree_files: int
    synced_operations: int

    @property
    def bytes(self) -> int:
        return self.size_mib << 20


@dataclass
class Bench:
    """One load on one file system in one round: its folder, and the figures that it measures."""

    target: Target
    scale: Scale
    figures: list[Figure] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.target.mount / "bench"

    def rate(self, row: str, count: int, action: Callable[[], object], work: str = "operation") -> None:
        """Measures how often in a second `action` does what it does `count` times."""
        seconds, cpu = measured(action)
        self.figures.append(Figure(row, "1/s", count / seconds, work, cpu * 1000 / count))

    def throughput(self, row: str, size: int, action: Callable[[], object]) -> None:
        """Measures how many bytes `action` moves in a second, in units of 10^6."""
        seconds, cpu = measured(action)
        self.figures.append(Figure(row, "MB/s", size / 1e6 / seconds, "GiB", cpu * 1000 / (size / (1 << 30))))

    def duration(self, row: str, action: Callable[[], object]) -> None:
        seconds, _ = measured(action)
        self.figures.append(Figure(row, "s", seconds))


def measured(action: Callable[[], object]) -> tuple[float, float]:
    """Returns the wall time and the CPU time of the machine without this program and its children, in seconds."""
    machine, own, start = machine_cpu_seconds(), own_cpu_seconds(), time.monotonic()
    action()
    seconds = time.monotonic() - start
    return seconds, max(0.0, machine_cpu_seconds() - machine - (own_cpu_seconds() - own))


def own_cpu_seconds() -> float:
    times = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(spent.ru_utime + spent.ru_stime for spent in times)


def machine_cpu_seconds() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(ticks) for ticks in fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
