"""What an experiment gets and gives back, and how that is written: table as text and CSV, picture as SVG and PNG."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .conditions import Conditions
from .tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Setup:
    """What every experiment gets beside its plan."""

    programs: Path
    seed: int
    # Within this time each part of an experiment has to be done.
    deadline_seconds: float = 1800.0


@dataclass
class Report:
    """The outcome of an experiment. `problems` are what should not have happened; with one the run has failed."""

    name: str
    title: str
    conditions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    table: Table = field(default_factory=lambda: Table(()))
    figure: Figure | None = None

    def columns(self, *names: str) -> None:
        self.table = Table(names)

    def row(self, *cells: object) -> None:
        self.table.add(*cells)

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def write(self, out: Path, conditions: Conditions, seed: int, repetitions: int) -> str:
        """Writes all files, and returns what the terminal shows."""
        from . import drawing

        lines = conditions.lines(seed, repetitions, [*self.conditions, *(f"PROBLEM: {text}" for text in self.problems)])
        text = f"{self.title}\n\n{self.table.text()}\n" + "".join(f"{line}\n" for line in lines)
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{self.name}.txt").write_text(text)
        (out / f"{self.name}.csv").write_text(self.table.csv())
        drawing.save(self.figure, self.title, lines, out, self.name)
        return f"{text}\n{', '.join(f'{out / self.name}.{kind}' for kind in ('txt', 'csv', 'svg', 'png'))}"
