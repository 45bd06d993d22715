"""resizing: clients work while nodes join and leave, in a pool that stays, one that grows and one that shrinks; latency
against the number of requests, and throughput against time.

Every operation is checked: a read is compared with what was last written, and at the end of each run every key is read
once more from the nodes that are left. One operation that fails, or a ring that lacks copies, fails the experiment.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from multiprocessing.synchronize import Event

from . import drawing
from .clients import CONTEXT, Client, Crowd, OperationFailed
from .measuring import spread, summarize
from .nodes import Ring
from .plans import RetryRule, pool_sizes
from .pool_clients import Membership, RovingClient
from .report import Report, Setup
from .stages import Change, Sample, Stage, moving_mean, rates, stages
from .voters import wait_for_every_holder
from .waiting import wait_for

SUMMARY = "latency and throughput while nodes join and leave: a pool that stays, grows and shrinks"
RULE = RetryRule()
WINDOW = 100
INTERVAL_SECONDS = 1.0
SHOWN_FAILURES = 5
KNOWN_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    stays: int
    largest: int
    clients: int
    # Requests of all clients at each number of nodes, beside those during the changes.
    each: int
    keys: int
    key_bytes: int
    # How long a client pauses after each operation.
    pause_ms: int
    repetitions: int


LONG = Plan(stays=4, largest=8, clients=5, each=1000, keys=20, key_bytes=8192, pause_ms=0, repetitions=3)
SHORT = Plan(stays=2, largest=3, clients=3, each=20, keys=4, key_bytes=8192, pause_ms=10, repetitions=1)


@dataclass
class Work:
    """What one client did: its operations in order, and what was wrong with its keys at the end."""

    samples: list[Sample]
    lost: list[str]


@dataclass
class Run:
    """One pool in one repetition. Samples of all clients are in the order in which they ended."""

    samples: list[Sample]
    stages: list[Stage]
    lost: list[str]

    @property
    def begun(self) -> float:
        return self.stages[0].begun


# By the name of the pool, one run for each repetition.
Runs = dict[str, list[Run]]


def run(setup: Setup, plan: Plan) -> Report:
    report = Report("resizing", "A pool that stays, one that grows and one that shrinks, under load")
    pools = pool_sizes(plan.stays, plan.largest)
    runs: Runs = {name: [] for name in pools}
    for repetition in range(plan.repetitions):
        for name in turned(list(pools), repetition):
            runs[name].append(one_run(setup, plan, pools[name], setup.seed + 1000 * repetition))
    pause = f", {plan.pause_ms} ms of pause after each" if plan.pause_ms else ""
    report.conditions = [
        f"{plan.clients} clients, one operation at a time{pause}: half reads, half writes of {plan.keys} keys each of"
        f" {plan.key_bytes} random bytes; each operation goes to the next node of those that /api/events names;"
        f" {plan.each} requests at each number of nodes, and those during a change",
        "a node joins by being started and leaves by storage-node drain, the youngest first; a change has ended when the ring"
        " is whole and every client knows the new size. All nodes share the cores of one machine, so more nodes mean more"
        " copies (up to three) and not more speed",
        f"checked: every read is compared with what was last written, and afterwards every key; {RULE.text()}",
    ]
    fill_table(report, runs)
    report_failures(report, runs)
    report.figure = draw(runs)
    return report


def turned(names: list[str], repetition: int) -> list[str]:
    """Another pool begins in each repetition, so that a drift of the machine counts for all."""
    at = repetition % len(names)
    return names[at:] + names[:at]


def one_run(setup: Setup, plan: Plan, sizes: tuple[int, ...], seed: int) -> Run:
    with Ring(setup.programs) as ring:
        ring.grow(sizes[0])
        clients = Clients(ring, plan, seed, setup.deadline_seconds)
        changes = resize(ring, sizes, clients)
        done = clients.end()
        lost = [text for one in done for text in one.lost]
        wait_for_every_holder(ring)
    samples = sorted(sample for one in done for sample in one.samples)
    begun = min(sample.ended - sample.seconds for sample in samples)
    return Run(samples, stages(sizes[0], begun, samples[-1].ended, changes), lost)


class Clients:
    """The clients of a run, each a process, and what they share with it."""

    def __init__(self, ring: Ring, plan: Plan, seed: int, deadline_seconds: float):
        self.each, self.deadline_seconds = plan.each, deadline_seconds
        self.requests, self.stop = CONTEXT.Value("q", 0), CONTEXT.Event()
        # How many nodes each client knows.
        self.known = CONTEXT.Array("i", plan.clients)
        nodes, shared = [node.ip for node in ring.nodes], (self.requests, self.known, self.stop)
        self.crowd = Crowd(work, [(nodes, plan, at, seed, *shared) for at in range(plan.clients)])

    def work_on(self) -> None:
        """Returns when they have done so many more requests as belong to one number of nodes."""
        target, deadline = self.requests.value + self.each, time.monotonic() + self.deadline_seconds
        while self.requests.value < target and not self.crowd.is_done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the clients have done {self.requests.value} requests in time, not {target}")
            time.sleep(0.005)

    def wait_until_all_know(self, nodes: int) -> None:
        def all_know() -> bool:
            return self.crowd.is_done() or all(known == nodes for known in self.known)

        wait_for(f"every client knows by events that there are {nodes} nodes", KNOWN_SECONDS, all_know)

    def end(self) -> list[Work]:
        self.stop.set()
        return self.crowd.results(self.deadline_seconds)


def resize(ring: Ring, sizes: tuple[int, ...], clients: Clients) -> list[Change]:
    """Brings the ring to one size after the other, each after some requests; returns after those at the last size."""
    changes = []
    for before, after in zip(sizes, sizes[1:]):
        clients.work_on()
        if before != after:
            begun = time.monotonic()
            ring.grow(after) if after > before else ring.shrink(after)
            clients.wait_until_all_know(after)
            changes.append(Change(before, after, begun, time.monotonic()))
    clients.work_on()
    return changes


def work(
    nodes: list[str], plan: Plan, at: int, seed: int, requests: Synchronized, known: SynchronizedArray, stop: Event
) -> Work:
    """Reads and writes keys of its own until it is stopped."""
    client, source = RovingClient(Membership(nodes), first=at, rule=RULE), random.Random(seed + at)
    stored = {f"client-{at}/key-{number}": source.randbytes(plan.key_bytes) for number in range(plan.keys)}
    for key, content in stored.items():
        client.write(key, content)
    names, done = list(stored), Work([], [])
    while not stop.is_set():
        key, content = source.choice(names), source.randbytes(plan.key_bytes) if source.random() < 0.5 else None
        done.samples.append(measured(client, key, content, stored))
        known[at] = len(client.nodes)
        with requests.get_lock():
            requests.value += 1
        time.sleep(plan.pause_ms / 1000)
    done.lost = [text for key in names if (text := once(client, key, None, stored))]
    return done


def measured(client: Client, key: str, content: bytes | None, stored: dict[str, bytes]) -> Sample:
    before, begun = client.failed_attempts, time.monotonic()
    failure = once(client, key, content, stored)
    ended = time.monotonic()
    return Sample(ended, ended - begun, client.failed_attempts - before, failure)


def once(client: Client, key: str, content: bytes | None, stored: dict[str, bytes]) -> str:
    """Writes the content, or without one reads and compares; returns what failed."""
    try:
        if content is not None:
            # After a write that was given up nobody knows what the key has, until the next write.
            stored.pop(key, None)
            client.write(key, content)
            stored[key] = content
        elif client.read(key) != stored.get(key) and key in stored:
            return f"{key} is not what was written"
    except OperationFailed as error:
        return str(error)
    return ""


def fill_table(report: Report, runs: Runs) -> None:
    latencies = ("mean ms", "± ms", "p99 ms")
    report.columns("pool", "nodes", "requests", *latencies, "requests/s", "seconds", "failed attempts", "failed operations")
    for name, of_pool in runs.items():
        for at, stage in enumerate(of_pool[0].stages):
            fill_row(report, name, stage.name, [(one.stages[at], one.stages[at].of(one.samples)) for one in of_pool])
        whole = [Stage("all", one.begun, one.stages[-1].ended, False) for one in of_pool]
        fill_row(report, name, "all", [(stage, one.samples) for stage, one in zip(whole, of_pool)])


def fill_row(report: Report, pool: str, nodes: str, repetitions: list[tuple[Stage, list[Sample]]]) -> None:
    """One stage over all repetitions; a change that was over before an operation ended has no latencies."""
    samples = [sample for _, some in repetitions for sample in some]
    latencies = [summarize([sample.seconds for sample in some]) for _, some in repetitions if some]
    mean = spread([one.mean_ms for one in latencies]) if latencies else None
    seconds = spread([stage.ended - stage.begun for stage, _ in repetitions]).mean
    rate = spread([len(some) / (stage.ended - stage.begun) for stage, some in repetitions]).mean
    report.row(
        pool, nodes, len(samples), mean.mean if mean else "-", mean.deviation if mean else "-",
        spread([one.p99_ms for one in latencies]).mean if latencies else "-", f"{rate:.0f}", seconds,
        sum(sample.failed_attempts for sample in samples), sum(bool(sample.failure) for sample in samples),
    )


def report_failures(report: Report, runs: Runs) -> None:
    for name, of_pool in runs.items():
        failures = [sample.failure for one in of_pool for sample in one.samples if sample.failure]
        lost = [text for one in of_pool for text in one.lost]
        for what, texts in (("operations failed", failures), ("keys were lost afterwards", lost)):
            if texts:
                report.problem(f"the pool that {name}: {len(texts)} {what}: {'; '.join(texts[:SHOWN_FAILURES])}")


def draw(runs: Runs) -> drawing.Figure:
    figure, panels = drawing.sheet(len(runs), rows=2, width=14, height=8)
    latencies, throughputs = panels[: len(runs)], panels[len(runs) :]
    for row in (latencies, throughputs):
        # One scale for all pools. It is set before anything is drawn, so that it fits all of them.
        for axes in row[1:]:
            axes.sharey(row[0])
    for at, (name, of_pool) in enumerate(runs.items()):
        draw_latency(latencies[at], name, of_pool[0])
        draw_throughput(throughputs[at], of_pool)
    throughputs[0].set_ylim(bottom=0)
    return figure


def draw_latency(axes: object, name: str, one: Run) -> None:
    """Failed operations have a mark of their own, at the time that they took."""
    ms = [1000 * sample.seconds for sample in one.samples]
    numbers = range(1, len(ms) + 1)
    axes.plot(numbers, ms, ".", markersize=2, alpha=0.3, color=drawing.COLOURS[5], label="one request")
    axes.plot(numbers, moving_mean(ms, WINDOW), color=drawing.COLOURS[0], linewidth=1.2, label=f"mean of the last {WINDOW}")
    failed = [number for number, sample in zip(numbers, one.samples) if sample.failure]
    if failed:
        axes.plot(failed, [ms[number - 1] for number in failed], "x", color=drawing.COLOURS[1], label="failed operation")
    ended = [sample.ended for sample in one.samples]
    draw_nodes(axes, one, lambda time: bisect_right(ended, time))
    axes.set_title(f"a pool that {name} (shown: repetition 1)", fontsize=9)
    axes.set_yscale("log")
    axes.set_xlabel("number of requests so far")
    axes.set_ylabel("latency of a request, ms")
    axes.legend(frameon=False, loc="upper left", fontsize=8)


def draw_throughput(axes: object, of_pool: list[Run]) -> None:
    for at, one in reversed(list(enumerate(of_pool))):
        points = rates([sample.ended for sample in one.samples], one.begun, INTERVAL_SECONDS)
        label = None if at > 1 else f"repetition {at + 1}" if at == 0 else "others"
        colour, width = (drawing.COLOURS[0], 1.4) if at == 0 else (drawing.GREY, 0.6)
        axes.plot([time for time, _ in points], [rate for _, rate in points], color=colour, linewidth=width, label=label)
    draw_nodes(axes, of_pool[0], lambda time: time - of_pool[0].begun)
    axes.set_xlabel("time, s")
    axes.set_ylabel(f"requests per second, over {INTERVAL_SECONDS:.0f} s")
    axes.legend(frameon=False, loc="upper left", fontsize=8)


def draw_nodes(axes: object, one: Run, place: Callable[[float], float]) -> None:
    """The number of nodes on an axis of its own, and the changes shaded."""
    settled = [stage for stage in one.stages if not stage.is_change]
    for stage in one.stages:
        if stage.is_change:
            axes.axvspan(place(stage.begun), place(stage.ended), color=drawing.GREY, alpha=0.15, linewidth=0)
    times = [place(stage.begun) for stage in settled] + [place(one.stages[-1].ended)]
    sizes = [int(stage.name) for stage in settled]
    drawing.draw_counts(axes, times, sizes + sizes[-1:], "nodes (dashed; shaded: while it changes)")
