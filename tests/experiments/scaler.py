"""scaler: the scaler grows and shrinks a pool by the miss rate of its caches; miss rate against number of nodes, and both
against time, with the thresholds drawn in.

The caches are small. First the clients read more than the caches of a small pool hold, until the pool has grown; then
they read little, until it has shrunk to its smallest size. Every read is compared with what was stored.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from . import drawing
from .clients import CONTEXT, Client, Crowd, OperationFailed
from .measuring import spread
from .miss_rates import Decision, Limits, Period, counters, is_at_rest, miss_rate, rates_by_nodes, wrong_decisions
from .plans import RetryRule
from .pool_clients import Membership, RovingClient
from .pools import LocalPool
from .report import Report, Setup

SUMMARY = "miss rate against number of nodes while the scaler grows and shrinks the pool"
RULE = RetryRule()
CACHE_BYTES = 1 << 20
GROWING, SHRINKING = "reads of much", "reads of little"
SHOWN_FAILURES = 5


@dataclass(frozen=True)
class Plan:
    largest: int
    period_seconds: float
    cooldown_seconds: float
    clients: int
    # All keys are read at first, and then only these few.
    keys: int
    few_keys: int
    key_bytes: int
    # For how many periods the pool has to keep its size.
    rest_periods: int
    repetitions: int

    def limits(self) -> Limits:
        return Limits(smallest=1, largest=self.largest, min_miss_rate=0.1, max_miss_rate=0.5)


LONG = Plan(
    largest=8, period_seconds=10, cooldown_seconds=25, clients=5, keys=128, few_keys=8, key_bytes=65536, rest_periods=4,
    repetitions=2,
)
SHORT = Plan(
    largest=2, period_seconds=2, cooldown_seconds=2, clients=3, keys=36, few_keys=2, key_bytes=65536, rest_periods=2,
    repetitions=1,
)


@dataclass
class Reads:
    """What one client saw."""

    count: int = 0
    failed_attempts: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Run:
    """One repetition: measurements by phase, all decisions, and the reads of all clients."""

    periods: dict[str, list[Period]]
    decisions: list[Decision]
    reads: list[Reads]


def run(setup: Setup, plan: Plan) -> Report:
    report = Report("scaler", "A pool that the scaler grows and shrinks: miss rate against number of nodes")
    runs = [one_run(setup, plan, setup.seed + 1000 * repetition) for repetition in range(plan.repetitions)]
    limits = plan.limits()
    report.conditions = [
        f"storage-node pool --local and storage-node autoscaler --period {plan.period_seconds:g}s --cooldown"
        f" {plan.cooldown_seconds:g}s; grow above a miss rate of {limits.max_miss_rate} by the ratio 2.0, shrink below"
        f" {limits.min_miss_rate} by 0.5; {limits.smallest} to {limits.largest} nodes, each with a cache of"
        f" {CACHE_BYTES >> 20} MiB (LRU)",
        f"{plan.clients} clients read keys of {plan.key_bytes >> 10} KiB at random, each at the next node: at first any of"
        f" {plan.keys} ({mib(plan.keys, plan):g} MiB), then any of {plan.few_keys} ({mib(plan.few_keys, plan):g} MiB); miss rate: mean"
        " of the nodes' own rates over one period",
        f"checked: every read is compared with what was stored, every decision with thresholds and limits; {RULE.text()}",
    ]
    fill_table(report, runs)
    find_problems(report, plan, runs)
    report.figure = draw(plan, runs)
    return report


def mib(keys: int, plan: Plan) -> float:
    return keys * plan.key_bytes / (1 << 20)


def one_run(setup: Setup, plan: Plan, seed: int) -> Run:
    with LocalPool(setup.programs) as pool:
        pool.begin(plan.largest)
        configure(pool, plan.limits())
        store(pool, plan, seed)
        hot, stop = CONTEXT.Value("q", plan.keys), CONTEXT.Event()
        crowd = Crowd(read, [(pool.first.ip, plan, at, seed, hot, stop) for at in range(plan.clients)])
        begun, begun_at = time.monotonic(), time.time()
        pool.begin_scaler(plan.period_seconds, plan.cooldown_seconds)
        periods = {GROWING: watch(pool, plan, begun, plan.largest, setup)}
        hot.value = plan.few_keys
        periods[SHRINKING] = watch(pool, plan, begun, plan.limits().smallest, setup)
        decisions = decisions_of(pool.first.admin("/pool"), begun_at)
        stop.set()
        return Run(periods, decisions, crowd.results(setup.deadline_seconds))


def configure(pool: LocalPool, limits: Limits) -> None:
    """The scaler steers, and the caches are small."""
    pool.first.admin("/config", {
        "cache": {"capacity": str(CACHE_BYTES), "policy": "lru"},
        "pool": {
            "mode": "automatic", "smallest": limits.smallest, "largest": limits.largest, "expand_ratio": 2.0, "shrink_ratio": 0.5,
            "max_miss_rate": limits.max_miss_rate, "min_miss_rate": limits.min_miss_rate,
        },
    })


def store(pool: LocalPool, plan: Plan, seed: int) -> None:
    client = Client([pool.first.ip])
    for at in range(plan.keys):
        client.write(key(at), content(plan, at, seed))


def key(at: int) -> str:
    return f"key-{at:04}"


def content(plan: Plan, at: int, seed: int) -> bytes:
    return random.Random(f"{seed}/{at}").randbytes(plan.key_bytes)


def read(node: str, plan: Plan, at: int, seed: int, hot: Synchronized, stop: Event) -> Reads:
    """One client: reads one of the hot keys after the other until it is stopped."""
    client, source, reads = RovingClient(Membership([node]), rule=RULE), random.Random(seed + at), Reads()
    expected = [content(plan, number, seed) for number in range(plan.keys)]
    while not stop.is_set():
        number = source.randrange(hot.value)
        reads.count += 1
        try:
            if client.read(key(number)) != expected[number]:
                raise OperationFailed(f"{key(number)} is not what was stored")
        except OperationFailed as error:
            reads.failures.append(str(error))
    reads.failed_attempts = client.failed_attempts
    return reads


def watch(pool: LocalPool, plan: Plan, begun: float, nodes: int, setup: Setup) -> list[Period]:
    """Measures once a period, until the pool is at rest with so many nodes."""
    periods: list[Period] = []
    deadline, next_at = time.monotonic() + setup.deadline_seconds, time.monotonic()
    before, nodes_before = counters(pool.first.admin("/ring")), pool.first.admin("/pool")["serving"]
    while not is_at_rest(periods, plan.rest_periods, nodes):
        pool.check_runs()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the pool does not come to rest with {nodes} nodes; the last periods: {periods[-3:]}")
        next_at += plan.period_seconds
        time.sleep(max(0.0, next_at - time.monotonic()))
        after, status = counters(pool.first.admin("/ring")), pool.first.admin("/pool")
        seconds, rate = time.monotonic() - begun, miss_rate(before, after)
        periods.append(Period(seconds, nodes_before, status["serving"], is_settled(status), rate))
        before, nodes_before = after, status["serving"]
    return periods


def is_settled(status: dict) -> bool:
    return status["serving"] == status["wanted"] and not any(status[what] for what in ("arriving", "filling", "draining"))


def decisions_of(status: dict, begun_at: float) -> list[Decision]:
    """Oldest first. Their times are whole seconds."""
    return [
        Decision(max(0.0, line["time"] - begun_at), line["from"], line["to"], line["miss_rate"], line["reason"])
        for line in reversed(status["decisions"])
    ]


def fill_table(report: Report, runs: Sequence[Run]) -> None:
    """The decisions of each repetition; then the periods of all repetitions, by phase and number of nodes."""
    report.columns("repetition", "what", "at s", "nodes", "miss rate", "±", "periods", "failed reads", "reason")
    for repetition, one in enumerate(runs, 1):
        for decision in one.decisions:
            rate = f"{decision.rate:.3f}" if decision.rate is not None else "-"
            report.row(repetition, "decision", f"{decision.seconds:.0f}", decision.text(), rate, "-", "-", "-", decision.reason)
    for phase in (GROWING, SHRINKING):
        for nodes, rates in rates_of(runs, phase).items():
            mean = spread(rates)
            report.row("all", phase, "-", nodes, f"{mean.mean:.3f}", f"{mean.deviation:.3f}", len(rates), "-", "-")
    failed = sum(len(reads.failures) for one in runs for reads in one.reads)
    count = sum(reads.count for one in runs for reads in one.reads)
    attempts = sum(reads.failed_attempts for one in runs for reads in one.reads)
    report.row("all", "all reads", "-", "-", "-", "-", "-", failed, f"{count} reads; {attempts} failed attempts")


def rates_of(runs: Sequence[Run], phase: str) -> dict[int, list[float]]:
    return rates_by_nodes([period for one in runs for period in one.periods[phase]])


def find_problems(report: Report, plan: Plan, runs: Sequence[Run]) -> None:
    for repetition, one in enumerate(runs, 1):
        for text in wrong_decisions(one.decisions, plan.limits()):
            report.problem(f"repetition {repetition}: {text}")
        failures = [text for reads in one.reads for text in reads.failures]
        if failures:
            report.problem(f"repetition {repetition}: {len(failures)} reads failed: {'; '.join(failures[:SHOWN_FAILURES])}")


def draw(plan: Plan, runs: Sequence[Run]) -> drawing.Figure:
    figure, (over_time, against_nodes) = drawing.sheet(2, width=14, height=5.2)
    draw_over_time(over_time, runs[0])
    draw_against_nodes(against_nodes, plan, runs)
    for axes in (over_time, against_nodes):
        draw_thresholds(axes, plan.limits())
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("miss rate of the nodes' caches")
    over_time.legend(frameon=False, fontsize=8, loc="center right")
    against_nodes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def draw_thresholds(axes: object, limits: Limits) -> None:
    for rate, what in ((limits.max_miss_rate, "grow above"), (limits.min_miss_rate, "shrink below")):
        axes.axhline(rate, color=drawing.COLOURS[1], linewidth=1, linestyle=":")
        axes.annotate(f"{what} {rate}", (0.005, rate), xycoords=("axes fraction", "data"), fontsize=8, color=drawing.COLOURS[1],
                      va="bottom")


def draw_over_time(axes: object, one: Run) -> None:
    periods = one.periods[GROWING] + one.periods[SHRINKING]
    rates = [float("nan") if period.rate is None else period.rate for period in periods]
    axes.plot([period.seconds for period in periods], rates, ".-", color=drawing.COLOURS[0], label="miss rate of a period")
    for decision in one.decisions:
        if decision.after != decision.before:
            axes.axvline(decision.seconds, color=drawing.GREY, linewidth=0.8)
            axes.annotate(decision.text(), (decision.seconds, 0.97), xycoords=("data", "axes fraction"), fontsize=8, ha="right",
                          va="top", rotation=90, color=drawing.GREY)
    changed = one.periods[GROWING][-1].seconds
    axes.axvspan(changed, periods[-1].seconds, color=drawing.COLOURS[4], alpha=0.1, linewidth=0, label=SHRINKING)
    drawing.draw_counts(axes, [period.seconds for period in periods], [period.nodes for period in periods], "nodes (dashed)")
    axes.set_title("repetition 1", fontsize=9)
    axes.set_xlabel("time, s")


def draw_against_nodes(axes: object, plan: Plan, runs: Sequence[Run]) -> None:
    """Periods without a change, their means in the order of time, and what follows from the sizes alone."""
    for colour, phase, shift in ((drawing.COLOURS[0], GROWING, -0.06), (drawing.COLOURS[4], SHRINKING, 0.06)):
        rates = rates_of(runs, phase)
        points = [(nodes + shift, rate) for nodes, some in rates.items() for rate in some]
        axes.plot([x for x, _ in points], [y for _, y in points], ".", color=colour, alpha=0.4)
        means = [(nodes + shift, spread(some).mean) for nodes, some in rates.items()]
        axes.plot([x for x, _ in means], [y for _, y in means], "o-", color=colour, label=f"{phase}: periods and their mean")
    sizes = range(1, plan.largest + 1)
    share = CACHE_BYTES / (plan.keys * plan.key_bytes)
    axes.plot(sizes, [max(0.0, 1 - nodes * share) for nodes in sizes], "--", color=drawing.GREY,
              label=f"share of {mib(plan.keys, plan):g} MiB beyond the caches")
    axes.set_xticks(sizes)
    axes.set_title("all repetitions; periods in which the number of nodes changed are left out", fontsize=9)
    axes.set_xlabel("number of nodes")
