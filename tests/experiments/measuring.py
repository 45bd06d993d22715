"""Arithmetic of measurements: mean, quantiles, spread over repetitions. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Latencies:
    """A summary of the latencies of one kind of operation, in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p99_ms: float


def summarize(seconds: Sequence[float]) -> Latencies:
    if not seconds:
        raise ValueError("there is nothing to summarize: no operation was measured")
    ms = sorted(1000 * value for value in seconds)
    return Latencies(len(ms), statistics.fmean(ms), quantile(ms, 0.5), quantile(ms, 0.99))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values that at least this share of them does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Spread:
    """A mean over repetitions, and their standard deviation (of a sample; 0 for a single one)."""

    mean: float
    deviation: float

    def text(self, digits: int) -> str:
        return f"{self.mean:.{digits}f} ± {self.deviation:.{digits}f}"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


def gain_percent(with_it: float, without: float) -> float:
    """How much less time an operation takes with something than without it; negative if it takes more."""
    return 100 * (1 - with_it / without)
