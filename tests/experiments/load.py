"""load: several clients at once read, write and list; how long an operation takes for the client that waits for it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from . import drawing
from .clients import Client, Crowd
from .measuring import Latencies, Spread, spread, summarize
from .nodes import Ring
from .plans import shuffled_kinds
from .report import Report, Setup

SUMMARY = "5 clients at once, 1000 of each: read a key, write a key, list; latency seen by a client"
KINDS = ("read", "write", "list")
PUBLISHED_MS = {"read": 72.6, "write": 80.2, "list": 61.3}


@dataclass(frozen=True)
class Plan:
    nodes: int
    clients: int
    each: int
    keys: int
    key_bytes: int
    repetitions: int


LONG = Plan(nodes=5, clients=5, each=1000, keys=100, key_bytes=8192, repetitions=3)
SHORT = Plan(nodes=3, clients=5, each=10, keys=10, key_bytes=8192, repetitions=2)


def run(setup: Setup, plan: Plan) -> Report:
    with Ring(setup.programs) as ring:
        ring.grow(plan.nodes)
        nodes = [node.ip for node in ring.nodes]
        store_keys(nodes, plan, setup.seed)
        rounds = [one_round(nodes, plan, setup.seed + 1000 * (at + 1), setup) for at in range(plan.repetitions)]
    report = Report("load", f"{plan.clients} clients at once: latency of an operation, as a client sees it")
    report.conditions = [
        f"{plan.nodes} nodes and {plan.clients} clients on one machine; each client: {plan.each} of each operation, in a"
        f" shuffled order; {plan.keys} keys of {plan.key_bytes} random bytes; bars: mean ± standard deviation over repetitions",
        "Published figures are of another program on other machines; they are shown for their size.",
    ]
    fill_table(report, rounds)
    report.figure = draw(rounds)
    return report


def store_keys(nodes: list[str], plan: Plan, seed: int) -> None:
    client, source = Client(nodes), random.Random(seed)
    for at in range(plan.keys):
        client.write(key(at), source.randbytes(plan.key_bytes))


def key(at: int) -> str:
    return f"key-{at:04}"


def one_round(nodes: list[str], plan: Plan, seed: int, setup: Setup) -> tuple[dict[str, Latencies], int]:
    """The latencies of all clients by kind, and how many attempts failed."""
    begin_at = time.monotonic() + 0.5
    crowd = Crowd(work, [(nodes, at, plan, seed + at, begin_at) for at in range(plan.clients)])
    done = crowd.results(setup.deadline_seconds)
    seconds = {kind: [value for measured, _ in done for value in measured[kind]] for kind in KINDS}
    return {kind: summarize(seconds[kind]) for kind in KINDS}, sum(failed for _, failed in done)


def work(nodes: list[str], at: int, plan: Plan, seed: int, begin_at: float) -> tuple[dict[str, list[float]], int]:
    """One client's work; clients begin at the same moment, each at its own node."""
    client, source = Client(nodes, first=at), random.Random(seed)
    measured: dict[str, list[float]] = {kind: [] for kind in KINDS}
    time.sleep(max(0.0, begin_at - time.monotonic()))
    for kind in shuffled_kinds(KINDS, plan.each, seed):
        name, content = key(source.randrange(plan.keys)), source.randbytes(plan.key_bytes)
        begun = time.perf_counter()
        answer = operate(client, kind, name, content)
        measured[kind].append(time.perf_counter() - begun)
        check(kind, answer, plan)
    return measured, client.failed_attempts


def operate(client: Client, kind: str, name: str, content: bytes) -> object:
    if kind == "read":
        return client.read(name)
    if kind == "list":
        return client.list_keys()
    return client.write(name, content)


def check(kind: str, answer: object, plan: Plan) -> None:
    """Fast answers count only if they are right."""
    if kind == "read" and len(answer) != plan.key_bytes:
        raise ValueError(f"a read got {len(answer)} bytes, not {plan.key_bytes}")
    if kind == "list" and len(answer) != plan.keys:
        raise ValueError(f"a list has {len(answer)} keys, not {plan.keys}")


def fill_table(report: Report, rounds: list[tuple[dict[str, Latencies], int]]) -> None:
    columns = ("operation", "measured", "mean ms", "± ms", "p50 ms", "p99 ms", "published mean ms", "failed attempts")
    report.columns(*columns)
    failed = sum(failed for _, failed in rounds)
    for kind in KINDS:
        mean, p99 = over_rounds(rounds, kind, "mean_ms"), over_rounds(rounds, kind, "p99_ms")
        p50, count = over_rounds(rounds, kind, "p50_ms"), sum(one[kind].count for one, _ in rounds)
        report.row(kind, count, mean.mean, mean.deviation, p50.mean, p99.mean, PUBLISHED_MS[kind], failed)
    if failed:
        report.problem(f"{failed} attempts failed although no node was disturbed")


def over_rounds(rounds: list[tuple[dict[str, Latencies], int]], kind: str, figure: str) -> Spread:
    return spread([getattr(latencies[kind], figure) for latencies, _ in rounds])


def draw(rounds: list[tuple[dict[str, Latencies], int]]) -> drawing.Figure:
    figure, (axes,) = drawing.sheet(1)
    series = (
        ("mean", [over_rounds(rounds, kind, "mean_ms") for kind in KINDS]),
        ("p99", [over_rounds(rounds, kind, "p99_ms") for kind in KINDS]),
        ("published mean", [Spread(PUBLISHED_MS[kind], 0.0) for kind in KINDS]),
    )
    for at, (label, values) in enumerate(series):
        places = [place + 0.27 * (at - 1) for place in range(len(KINDS))]
        means, errors = [value.mean for value in values], [value.deviation for value in values]
        colour = drawing.GREY if label.startswith("published") else drawing.COLOURS[at]
        bars = axes.bar(places, means, 0.25, yerr=errors if any(errors) else None, capsize=3, label=label, color=colour)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_xticks(range(len(KINDS)), [f"{kind} a key" if kind != "list" else "list" for kind in KINDS])
    axes.set_ylabel("latency of an operation, ms")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure
