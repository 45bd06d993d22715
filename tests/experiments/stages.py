"""A run of a pool that is resized under load, divided into stages: times at one size, and the changes between them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    """One operation of a client: when it ended, on a clock that all processes share, and how long it took."""

    ended: float
    seconds: float
    failed_attempts: int
    # Why it was given up, or what was wrong with its content; empty if it succeeded.
    failure: str


@dataclass(frozen=True)
class Change:
    """A change of the number of nodes, from its beginning until the ring has its new size."""

    before: int
    after: int
    begun: float
    ended: float

    def text(self) -> str:
        return f"{self.before} to {self.after}"


@dataclass(frozen=True)
class Stage:
    """The time `(begun, ended]` with one number of nodes, or of one change."""

    name: str
    begun: float
    ended: float
    is_change: bool

    def of(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those that ended in this stage."""
        return [sample for sample in samples if self.begun < sample.ended <= self.ended]


def stages(first_size: int, begun: float, ended: float, changes: Sequence[Change]) -> list[Stage]:
    """All stages in the order of time, without gaps."""
    found, since, size = [], begun, first_size
    for change in changes:
        found.append(Stage(str(size), since, change.begun, False))
        found.append(Stage(change.text(), change.begun, change.ended, True))
        since, size = change.ended, change.after
    return [*found, Stage(str(size), since, ended, False)]


def rates(ended: Sequence[float], begun: float, width: float) -> list[tuple[float, float]]:
    """How many events there were per second, in intervals of this width from `begun` on, each with its middle. The last
    interval counts only if it is whole."""
    whole = int((max(ended, default=begun) - begun) / width)
    counts = [0] * whole
    for time in ended:
        at = int((time - begun) / width)
        if 0 <= at < whole:
            counts[at] += 1
    return [((at + 0.5) * width, count / width) for at, count in enumerate(counts)]


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """For each value the mean of it and those before it, of so many at most."""
    found, total = [], 0.0
    for at, value in enumerate(values):
        total += value - (values[at - window] if at >= window else 0.0)
        found.append(total / min(at + 1, window))
    return found
