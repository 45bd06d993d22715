"""Data points as CloudWatch keeps them: sums of samples, from which any statistic of any period can be computed.

A metric is identified by its namespace, its name and all its dimensions: a metric with the dimensions A and B differs
from one with A alone. So an alarm has no data if a node publishes under the wrong dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The identity of a series. `dimensions` are pairs in the order of their names."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(namespace: str, name: str, dimensions: Iterable[tuple[str, str]]) -> Metric:
        return Metric(namespace, name, tuple(sorted(dimensions)))


@dataclass(frozen=True)
class Sample:
    """One datum of PutMetricData at `time`, in seconds since 1970; one value is a sample with the count 1."""

    time: float
    minimum: float
    maximum: float
    total: float
    count: float
    unit: str = "None"

    @staticmethod
    def value(time: float, value: float, unit: str = "None") -> Sample:
        return Sample(time, value, value, value, 1.0, unit)


STATISTICS = ("Average", "Maximum", "Minimum", "Sum", "SampleCount")


class Store:
    """All samples of all metrics. It forgets none: tests are shorter than CloudWatch's retention."""

    def __init__(self) -> None:
        self._samples: dict[Metric, list[Sample]] = defaultdict(list)

    def put(self, metric: Metric, sample: Sample) -> None:
        self._samples[metric].append(sample)

    def metrics(self) -> list[Metric]:
        return list(self._samples)

    def latest(self, metric: Metric) -> Sample | None:
        return max(self._samples.get(metric, []), key=lambda sample: sample.time, default=None)

    def statistic(self, metric: Metric, name: str, start: float, end: float, unit: str | None = None) -> float | None:
        """One data point: the statistic of the samples in `[start, end)`, None without samples."""
        samples = [
            sample
            for sample in self._samples.get(metric, [])
            if start <= sample.time < end and unit in (None, sample.unit)
        ]
        return _statistic(name, samples) if samples else None


def _statistic(name: str, samples: list[Sample]) -> float:
    if name == "Maximum":
        return max(sample.maximum for sample in samples)
    if name == "Minimum":
        return min(sample.minimum for sample in samples)
    total, count = sum(sample.total for sample in samples), sum(sample.count for sample in samples)
    return {"Sum": total, "SampleCount": count, "Average": total / count if count else 0.0}[name]
