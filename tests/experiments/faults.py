"""faults: operations of a client while a follower of the namespace and then its leader are killed and come back.

Disturbed and undisturbed runs of the same operations take turns in one command. Afterwards everything is compared: what
the client was acknowledged is read again, all nodes and all voters have to have the same names, and every chunk has to
have three equal holders.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized

from . import drawing
from .clients import CONTEXT, Client, Crowd, OperationFailed
from .measuring import spread
from .nodes import Node, Ring
from .plans import FaultStep, RetryRule, fault_steps
from .report import Report, Setup
from .voters import equal_names, names_of_each_voter_alone, names_through_each_node, wait_for_three_holders

SUMMARY = "1000 operations while a follower and then the leader of the namespace are killed and come back"
PUBLISHED_LOST, PUBLISHED_TIMES = 26, 1.04
RULE = RetryRule()


@dataclass(frozen=True)
class Plan:
    nodes: int
    voters: int
    operations: int
    key_bytes: int
    # How long the client pauses after each operation: not at all, and so that an operation takes what was published.
    pauses_ms: tuple[int, ...]
    repetitions: int


LONG = Plan(nodes=5, voters=3, operations=1000, key_bytes=4000, pauses_ms=(0, 70), repetitions=3)
SHORT = Plan(nodes=5, voters=3, operations=240, key_bytes=4000, pauses_ms=(10,), repetitions=1)


@dataclass
class Work:
    """What one client saw in one run."""

    seconds: float
    latencies: list[float]
    lost: list[str]
    failed_attempts: int


@dataclass
class Pair:
    """The two runs of one repetition. `marks` are the operations at which the steps really happened."""

    calm: Work
    disturbed: Work
    marks: list[tuple[FaultStep, int]] = field(default_factory=list)
    repair_seconds: float = 0.0


def run(setup: Setup, plan: Plan) -> Report:
    report = Report("faults", f"{plan.operations} operations while a follower, then the leader, are killed and come back")
    report.conditions = [
        f"{plan.nodes} nodes, {plan.voters} of them voters; one client; every second operation writes a new key of"
        f" {plan.key_bytes} random bytes, the next reads and compares it; the leader is killed only when the follower serves again",
        f"the client's rule: {RULE.text()}",
        "Published: 26 lost operations, 1.04 times the undisturbed time, by another program whose operations took about 75 ms.",
    ]
    with Ring(setup.programs) as ring:
        ring.grow(plan.nodes)
        ring.wait_for_voters(plan.voters)
        pairs = {
            pause: [one_pair(ring, plan, setup, pause, repetition, report) for repetition in range(plan.repetitions)]
            for pause in plan.pauses_ms
        }
        compare_everything(ring, plan, setup, report)
    fill_table(report, pairs)
    report.figure = draw(plan, pairs)
    return report


def one_pair(ring: Ring, plan: Plan, setup: Setup, pause_ms: int, repetition: int, report: Report) -> Pair:
    seed = setup.seed + 1000 * repetition
    names = {kind: f"{kind}-{pause_ms}-{repetition}" for kind in ("calm", "disturbed")}
    pair = Pair(None, None)
    for kind in ("calm", "disturbed") if repetition % 2 == 0 else ("disturbed", "calm"):
        steps = fault_steps(plan.operations) if kind == "disturbed" else []
        work, marks = one_run(ring, plan, setup, names[kind], pause_ms, seed, steps)
        setattr(pair, kind, work)
        if steps:
            pair.marks, pair.repair_seconds = marks, wait_for_three_holders(ring)
    for lost in pair.calm.lost + pair.disturbed.lost:
        report.problem(f"lost: {lost}")
    for step, operation in pair.marks:
        if operation >= plan.operations:
            report.problem(f"the operations had ended when this happened: {step.text()}")
    return pair


def one_run(
    ring: Ring, plan: Plan, setup: Setup, name: str, pause_ms: int, seed: int, steps: list[FaultStep]
) -> tuple[Work, list[tuple[FaultStep, int]]]:
    counter = CONTEXT.Value("q", 0)
    crowd = Crowd(operate, [([node.ip for node in ring.nodes], plan, name, pause_ms / 1000, seed, counter)])
    deadline, marks, killed = time.monotonic() + setup.deadline_seconds, [], {}
    for step in steps:
        while counter.value < step.operation and not crowd.is_done() and time.monotonic() < deadline:
            time.sleep(0.001)
        marks.append((step, carry_out(ring, step, killed, counter)))
    (work,) = crowd.results(deadline - time.monotonic())
    return work, marks


def carry_out(ring: Ring, step: FaultStep, killed: dict[str, Node], counter: Synchronized) -> int:
    """Kills a node or brings it back; returns the number of operations at this moment."""
    if step.killed:
        node = killed[step.role] = find(ring, step.role)
        ring.kill(node)
        return counter.value
    operation = counter.value
    node = killed[step.role]
    ring.start(node)
    ring.wait_ready(node)
    return operation


def find(ring: Ring, role: str) -> Node:
    """The leader, or a follower other than the node at which the client begins."""
    leader = ring.leader()
    if role == "leader":
        return leader
    followers = [node for node in ring.voters() if node is not leader]
    return next((node for node in followers if node is not ring.nodes[0]), followers[0])


def operate(nodes: list[str], plan: Plan, name: str, pause: float, seed: int, counter: Synchronized) -> Work:
    """Writes new keys and reads each back."""
    client, source, work = Client(nodes, rule=RULE), random.Random(seed), Work(0.0, [], [], 0)
    began = time.perf_counter()
    for operation in range(plan.operations):
        key = key_of_pair(name, operation // 2)
        content = source.randbytes(plan.key_bytes) if operation % 2 == 0 else content
        begun = time.perf_counter()
        try:
            once(client, operation, key, content)
        except OperationFailed as error:
            work.lost.append(f"operation {operation}: {error}")
        work.latencies.append(time.perf_counter() - begun)
        counter.value = operation + 1
        time.sleep(pause)
    work.seconds, work.failed_attempts = time.perf_counter() - began, client.failed_attempts
    return work


def once(client: Client, operation: int, key: str, content: bytes) -> None:
    if operation % 2 == 0:
        client.write(key, content)
    elif client.read(key) != content:
        raise OperationFailed(f"{key} is not what was written")


def key_of_pair(name: str, at: int) -> str:
    return f"{name}/{at:05}"


def compare_everything(ring: Ring, plan: Plan, setup: Setup, report: Report) -> None:
    """Reads everything again, and compares names and holders. Ends the ring's nodes."""
    for lost in read_again(ring, plan, setup):
        report.problem(f"lost afterwards: {lost}")
    keys = plan.operations // 2 * 2 * len(plan.pauses_ms) * plan.repetitions
    through = names_through_each_node(ring)
    alone = names_of_each_voter_alone(ring)
    for text in equal_names({**through, **alone}, keys):
        report.problem(text)
    report.conditions.append(
        f"afterwards: {keys} keys read again; equal names through {len(through)} nodes, and in {len(alone)} voters, each of"
        " which was started alone with its own log; storage-node check --verify ended with 0: three equal holders of every chunk"
        if not report.problems
        else "afterwards: see the problems"
    )


def read_again(ring: Ring, plan: Plan, setup: Setup) -> list[str]:
    """The keys that do not have what was written."""
    client, lost = Client([node.ip for node in ring.nodes]), []
    for pause_ms in plan.pauses_ms:
        for repetition in range(plan.repetitions):
            for kind in ("calm", "disturbed"):
                source = random.Random(setup.seed + 1000 * repetition)
                keys = (key_of_pair(f"{kind}-{pause_ms}-{repetition}", at) for at in range(plan.operations // 2))
                lost += [key for key in keys if not holds(client, key, source.randbytes(plan.key_bytes))]
    return lost


def holds(client: Client, key: str, content: bytes) -> bool:
    try:
        return client.read(key) == content
    except OperationFailed:
        return False


def fill_table(report: Report, pairs: dict[int, list[Pair]]) -> None:
    report.columns(
        "pause ms", "run", "operations", "lost", "failed attempts", "seconds", "times undisturbed", "seconds more",
        "slowest operation ms", "until three holders s", "killed and back at operation",
    )
    for pause, all_of_it in pairs.items():
        for repetition, pair in enumerate(all_of_it, 1):
            fill_rows(report, pause, repetition, pair)
        times = spread([times_undisturbed(pair) for pair in all_of_it])
        lost = sum(len(pair.disturbed.lost) for pair in all_of_it)
        more = spread([pair.disturbed.seconds - pair.calm.seconds for pair in all_of_it])
        count = sum(len(pair.disturbed.latencies) for pair in all_of_it)
        report.row(pause, "all disturbed", count, lost, "-", "-", times.text(3), more.text(2), "-", "-", "-")
    report.row("-", "published", 1000, PUBLISHED_LOST, "-", "-", PUBLISHED_TIMES, "-", "-", "-", "-")


def fill_rows(report: Report, pause: int, repetition: int, pair: Pair) -> None:
    marks = ", ".join(f"{step.text()} {operation}" for step, operation in pair.marks)
    for kind, work in (("undisturbed", pair.calm), ("disturbed", pair.disturbed)):
        more = work is pair.disturbed
        report.row(
            pause, f"{kind} {repetition}", len(work.latencies), len(work.lost), work.failed_attempts, work.seconds,
            f"{times_undisturbed(pair):.3f}" if more else "-", work.seconds - pair.calm.seconds if more else "-",
            1000 * max(work.latencies), pair.repair_seconds if more else "-", marks if more else "-",
        )


def times_undisturbed(pair: Pair) -> float:
    return pair.disturbed.seconds / pair.calm.seconds


def draw(plan: Plan, pairs: dict[int, list[Pair]]) -> drawing.Figure:
    figure, panels = drawing.sheet(1, rows=len(pairs), width=11, height=0.8 + 3.2 * len(pairs))
    for axes, (pause, all_of_it) in zip(panels, pairs.items()):
        pair = all_of_it[0]
        for colour, label, work in ((drawing.GREY, "undisturbed", pair.calm), (drawing.COLOURS[0], "disturbed", pair.disturbed)):
            axes.plot([1000 * value for value in work.latencies], ".", markersize=3, color=colour, label=label)
        for step, operation in pair.marks:
            colour = drawing.COLOURS[1] if step.killed else drawing.COLOURS[2]
            axes.axvline(operation, color=colour, linewidth=1)
            axes.annotate(
                step.text(), (operation, 0.75), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right",
                fontsize=8, color=colour,
            )
        times = spread([times_undisturbed(one) for one in all_of_it])
        lost = sum(len(one.disturbed.lost) for one in all_of_it)
        axes.set_title(
            f"{f'{pause} ms of pause after each operation' if pause else 'one operation right after the other'}: {lost} lost"
            f" (published 26), {times.text(2)} times the undisturbed time (published 1.04); shown: repetition 1",
            fontsize=9,
        )
        axes.set_yscale("log")
        axes.set_xlabel("operation")
        axes.set_ylabel("latency, ms")
        axes.legend(frameon=False, loc="upper right")
    return figure
