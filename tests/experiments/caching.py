"""caching: reads of a hot set, each followed by a write of the same key with some probability, with the caches of the nodes
on and off in alternating turns on one ring.

The caches follow the ring's configuration, so both sides use the same processes, files and chunks. Before each
measurement every key is read uncounted, with the caches on and off alike.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from . import drawing
from .clients import Client, Crowd
from .load import key, store_keys
from .measuring import Spread, gain_percent, spread, summarize
from .nodes import Ring
from .plans import follow_ups, turns
from .report import Report, Setup
from .waiting import wait_for

SUMMARY = "reads with follow-up writes of probability 0 to .8; latencies with the nodes' caches on and off"
SIDES = ("on", "off")
PUBLISHED_READ_MS = {"on": (47.0, 45.6, 43.0, 41.9, 45.9), "off": (47.5, 47.7, 48.5, 47.8, 49.3)}
CONFIG_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    nodes: int
    probabilities: tuple[float, ...]
    reads: int
    keys: int
    key_bytes: int
    repetitions: int


PROBABILITIES = (0.0, 0.2, 0.4, 0.6, 0.8)
LONG = Plan(nodes=5, probabilities=PROBABILITIES, reads=1000, keys=100, key_bytes=32768, repetitions=8)
SHORT = Plan(nodes=3, probabilities=PROBABILITIES, reads=20, keys=5, key_bytes=32768, repetitions=2)


@dataclass(frozen=True)
class Turn:
    """What one side did at one probability in one repetition."""

    read_ms: float
    write_ms: float | None
    cpu_ms: float
    hits: int
    misses: int


# By probability and side, one for each repetition.
Turns = dict[tuple[float, str], list[Turn]]


def run(setup: Setup, plan: Plan) -> Report:
    done: Turns = {(probability, side): [] for probability in plan.probabilities for side in SIDES}
    with Ring(setup.programs) as ring:
        ring.grow(plan.nodes)
        store_keys([node.ip for node in ring.nodes], plan, setup.seed)
        for repetition in range(plan.repetitions):
            for at, probability in enumerate(plan.probabilities):
                # Both sides do the same reads and writes.
                seed = setup.seed + 1000 * repetition + at
                for side in turns(repetition + at):
                    done[probability, side].append(one_turn(ring, plan, side, probability, seed, setup))
    report = Report("caching", "What the nodes' caches save: latency of reads and of follow-up writes")
    report.conditions = [
        f"{plan.nodes} nodes, one client; {plan.reads} reads of {plan.keys} keys of {plan.key_bytes} random bytes at each point; the"
        " page cache of the kernel holds the nodes' files in both cases; points: mean ± standard deviation over repetitions",
        "gain: how much shorter the reads of a repetition are with the caches on than with them off, in alternating turns of one"
        " run. Published figures are of another program on other machines.",
    ]
    fill_table(report, plan, done)
    report.figure = draw(plan, done)
    return report


def one_turn(ring: Ring, plan: Plan, side: str, probability: float, seed: int, setup: Setup) -> Turn:
    switch_caches(ring, side)
    nodes = [node.ip for node in ring.nodes]
    warm(nodes, plan)
    before, cpu = counts(ring), ring.cpu_seconds()
    ((reads, writes),) = Crowd(work, [(nodes, plan, probability, seed)]).results(setup.deadline_seconds)
    cpu, after = ring.cpu_seconds() - cpu, counts(ring)
    return Turn(
        read_ms=summarize(reads).mean_ms,
        write_ms=summarize(writes).mean_ms if writes else None,
        cpu_ms=1000 * cpu / (len(reads) + len(writes)),
        hits=after[0] - before[0],
        misses=after[1] - before[1],
    )


def switch_caches(ring: Ring, side: str) -> None:
    """Changes the configuration of the ring; returns when every node follows it."""
    ring.nodes[0].admin("/config", {"cache": {"capacity": "default" if side == "on" else "off"}})

    def all_follow() -> bool:
        capacities = [node.admin("/status")["cache"]["capacity_bytes"] for node in ring.nodes]
        return all((capacity > 0) == (side == "on") for capacity in capacities)

    wait_for(f"the caches of all nodes are {side}", CONFIG_SECONDS, all_follow)


def warm(nodes: list[str], plan: Plan) -> None:
    client = Client(nodes)
    for at in range(plan.keys):
        client.read(key(at))


def counts(ring: Ring) -> tuple[int, int]:
    """Hits and misses of all nodes so far."""
    caches = [node.admin("/status")["cache"] for node in ring.nodes]
    return sum(cache["hits"] for cache in caches), sum(cache["misses"] for cache in caches)


def work(nodes: list[str], plan: Plan, probability: float, seed: int) -> tuple[list[float], list[float]]:
    """The seconds of each read and of each write."""
    client, source = Client(nodes), random.Random(seed)
    reads, writes = [], []
    for writes_too in follow_ups(plan.reads, probability, seed):
        name = key(source.randrange(plan.keys))
        begun = time.perf_counter()
        content = client.read(name)
        reads.append(time.perf_counter() - begun)
        if len(content) != plan.key_bytes:
            raise ValueError(f"a read of {name} got {len(content)} bytes, not {plan.key_bytes}")
        if writes_too:
            content = source.randbytes(plan.key_bytes)
            begun = time.perf_counter()
            client.write(name, content)
            writes.append(time.perf_counter() - begun)
    return reads, writes


def gains(plan: Plan, done: Turns, probability: float) -> list[float]:
    """In per cent, one for each repetition."""
    pairs = zip(done[probability, "on"], done[probability, "off"])
    return [gain_percent(on.read_ms, off.read_ms) for on, off in pairs]


def gains_over_all(plan: Plan, done: Turns) -> list[float]:
    """In per cent, for each repetition the mean over all probabilities."""
    each = [gains(plan, done, probability) for probability in plan.probabilities]
    return [spread(one).mean for one in zip(*each)]


def published_gain(at: int) -> float:
    return gain_percent(PUBLISHED_READ_MS["on"][at], PUBLISHED_READ_MS["off"][at])


def latency(turns_of_side: list[Turn], figure: str) -> Spread | None:
    values = [getattr(turn, figure) for turn in turns_of_side]
    return None if None in values else spread(values)


def fill_table(report: Report, plan: Plan, done: Turns) -> None:
    sides = [f"{what} {side}" for what in ("read ms", "write ms", "node CPU ms/op") for side in SIDES]
    counted = ("hits on", "misses on", "hits off")
    report.columns("probability", *sides, "read gain %", *counted, "published read ms on/off", "published gain %")
    for at, probability in enumerate(plan.probabilities):
        on, off = done[probability, "on"], done[probability, "off"]
        cells = [latency(side, figure) for figure in ("read_ms", "write_ms", "cpu_ms") for side in (on, off)]
        hits = [sum(turn.hits for turn in on), sum(turn.misses for turn in on), sum(turn.hits for turn in off)]
        published = " / ".join(str(PUBLISHED_READ_MS[side][at]) for side in SIDES)
        report.row(
            f"{probability:.1f}", *(cell.text(2) if cell else "-" for cell in cells),
            spread(gains(plan, done, probability)).text(1), *hits, published, f"{published_gain(at):.1f}",
        )
        if not hits[0] or hits[2]:
            report.problem(f"probability {probability}: {hits[0]} hits with the caches on, {hits[2]} with them off")
    report.row("all", *["-"] * 6, spread(gains_over_all(plan, done)).text(1), *["-"] * 3, "-", "7 as published")


def draw(plan: Plan, done: Turns) -> drawing.Figure:
    figure, (reads, writes, gain) = drawing.sheet(3, width=12)
    for axes, what in ((reads, "read"), (writes, "write")):
        for colour, side in zip(drawing.COLOURS, SIDES):
            line(axes, plan, {p: latency(done[p, side], f"{what}_ms") for p in plan.probabilities}, f"caches {side}", colour)
        axes.set_ylabel(f"mean latency of a {what}, ms")
        axes.legend(frameon=False)
    line(gain, plan, {p: spread(gains(plan, done, p)) for p in plan.probabilities}, "measured", drawing.COLOURS[2])
    published = [published_gain(at) for at in range(len(plan.probabilities))]
    gain.plot(plan.probabilities, published, "s--", color=drawing.GREY, label="published (mean 7 %)")
    gain.axhline(0, color="black", linewidth=0.5)
    gain.set_ylabel("gain of reads by the caches, %")
    gain.set_title(f"over all: {spread(gains_over_all(plan, done)).text(1)} %", fontsize=9)
    gain.legend(frameon=False)
    for axes in (reads, writes, gain):
        axes.set_xlabel("probability of a write after a read")
        axes.set_xticks(plan.probabilities)
    reads.set_ylim(bottom=0)
    writes.set_ylim(bottom=0)
    return figure


def line(axes: object, plan: Plan, values: dict[float, Spread | None], label: str, colour: str) -> None:
    points = [(probability, value) for probability, value in values.items() if value]
    axes.errorbar(
        [probability for probability, _ in points], [value.mean for _, value in points],
        [value.deviation for _, value in points], marker="o", capsize=3, label=label, color=colour,
    )
