"""Figures of a benchmark and what they become: medians over rounds, ratios to the first file system. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiments.tables import Table


@dataclass(frozen=True)
class Figure:
    """What one load has measured once. `cpu_ms` is the CPU time of everything but the load, for each unit of `work`."""

    row: str
    unit: str
    value: float
    work: str = ""
    cpu_ms: float | None = None


@dataclass(frozen=True)
class Key:
    """A figure's place in the table."""

    row: str
    unit: str


class Rounds:
    """All figures of all file systems, in the order in which rows first came."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = list(targets)
        self.figures: dict[Key, dict[str, list[Figure]]] = {}

    def add(self, target: str, figures: Iterable[Figure]) -> None:
        for figure in figures:
            row = self.figures.setdefault(Key(figure.row, figure.unit), {})
            row.setdefault(target, []).append(figure)

    def median(self, key: Key, target: str) -> float | None:
        values = [figure.value for figure in self.figures[key].get(target, [])]
        return statistics.median(values) if values else None

    def median_cpu(self, key: Key, target: str) -> tuple[float, str] | None:
        measured = [figure for figure in self.figures[key].get(target, []) if figure.cpu_ms is not None]
        if not measured:
            return None
        return statistics.median(figure.cpu_ms or 0.0 for figure in measured), measured[0].work

    def ratio(self, key: Key, target: str) -> float | None:
        """How many times better the first file system is; for seconds, less is better."""
        first, other = self.median(key, self.targets[0]), self.median(key, target)
        if not first or not other:
            return None
        return other / first if key.unit == "s" else first / other

    def table(self) -> Table:
        others = self.targets[1:]
        columns = ("row", "unit", *self.targets, *(f"against {name}" for name in others), "CPU beside the load")
        table = Table(columns)
        for key in self.figures:
            medians = (shown(self.median(key, target)) for target in self.targets)
            ratios = (shown(self.ratio(key, target)) for target in others)
            table.add(key.row, key.unit, *medians, *ratios, "; ".join(self.cpu_cells(key)))
        return table

    def cpu_cells(self, key: Key) -> list[str]:
        cells = []
        for target in self.targets:
            cpu = self.median_cpu(key, target)
            if cpu:
                name = f"{target} " if len(self.targets) > 1 else ""
                cells.append(f"{name}{cpu[0]:.2f} ms a {cpu[1]}")
        return cells


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
