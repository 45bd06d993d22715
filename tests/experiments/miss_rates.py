"""Miss rates of the caches of a pool, and what a scaler decided from them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# By the address of a node: hits and misses since its start.
Counters = dict[str, tuple[int, int]]


def counters(ring: dict) -> Counters:
    """From the status of the ring."""
    return {node["address"]: (node["cache"]["hits"], node["cache"]["misses"]) for node in ring["nodes"] if node.get("cache")}


def miss_rate(before: Counters, after: Counters) -> float | None:
    """The mean of the miss rates of the nodes that were read from in between, as the scaler takes it; None if none was."""
    rates = []
    for node, (hits, misses) in after.items():
        then = before.get(node, (0, 0))
        # A node that was started again counts from 0.
        hits_before, misses_before = then if then[0] <= hits and then[1] <= misses else (0, 0)
        reads = hits - hits_before + misses - misses_before
        if reads:
            rates.append((misses - misses_before) / reads)
    return sum(rates) / len(rates) if rates else None


@dataclass(frozen=True)
class Limits:
    """What the configuration of the ring tells the scaler."""

    smallest: int
    largest: int
    min_miss_rate: float
    max_miss_rate: float


@dataclass(frozen=True)
class Period:
    """One measurement, at a time since the run began. The nodes are those that served at its beginning and at its end. A
    settled pool has the wanted number of nodes, and none that arrives, is filled or drains."""

    seconds: float
    nodes_before: int
    nodes: int
    is_settled: bool
    rate: float | None


@dataclass(frozen=True)
class Decision:
    """One decision, at a time since the run began. The rate is that on which it rests."""

    seconds: float
    before: int
    after: int
    rate: float | None
    reason: str

    def text(self) -> str:
        return f"{self.before} → {self.after}"


def rates_by_nodes(periods: Sequence[Period]) -> dict[int, list[float]]:
    """The miss rates of the periods in which the number of nodes did not change, by this number, in the order of time."""
    found: dict[int, list[float]] = {}
    for one in periods:
        if one.nodes_before == one.nodes and one.rate is not None:
            found.setdefault(one.nodes, []).append(one.rate)
    return found


def is_at_rest(periods: Sequence[Period], count: int, nodes: int) -> bool:
    """Whether the pool has had this number of nodes during the last so many periods, and was settled and read from."""
    last = periods[-count:]
    return len(last) == count and all(one.nodes == nodes and one.is_settled and one.rate is not None for one in last)


def wrong_decisions(decisions: Sequence[Decision], limits: Limits) -> list[str]:
    """In words, the decisions that the thresholds or the limits do not allow."""
    found = []
    for one in decisions:
        if not limits.smallest <= one.after <= limits.largest:
            found.append(f"{one.text()} is outside {limits.smallest} to {limits.largest}: {one.reason}")
        if one.after > one.before and not (one.rate is not None and one.rate > limits.max_miss_rate):
            found.append(f"{one.text()} grew at a miss rate of {one.rate}: {one.reason}")
        if one.after < one.before and not (one.rate is not None and one.rate < limits.min_miss_rate):
            found.append(f"{one.text()} shrank at a miss rate of {one.rate}: {one.reason}")
    return found
