"""ring: a ring grows from one node to two and to five while it holds a file of seven chunks; who holds which chunk.

`storage-node ls` says what each node really keeps, and is compared with what follows from the positions.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from . import drawing
from .clients import Client
from .nodes import Ring
from .placement import CIRCLE, COPIES, differences, holders, key_of, stored
from .report import Report, Setup
from .waiting import wait_for

SUMMARY = "1, 2 and 5 nodes and a file of seven chunks: who holds what"
CHUNK_BYTES = 4096
NAME = "seven"
PLACED_SECONDS = 180.0


@dataclass(frozen=True)
class Plan:
    sizes: tuple[int, ...]
    chunks: int
    repetitions: int


LONG = SHORT = Plan(sizes=(1, 2, 5), chunks=7, repetitions=1)


@dataclass(frozen=True)
class Step:
    """The ring at one size: positions of the nodes, and the nodes that keep each chunk."""

    positions: dict[str, int]
    kept: dict[str, list[str]]


def run(setup: Setup, plan: Plan) -> Report:
    content = random.Random(setup.seed).randbytes(CHUNK_BYTES * plan.chunks - CHUNK_BYTES // 2)
    report, steps = Report("ring", f"A ring grows from 1 to {plan.sizes[-1]} nodes: who holds which chunk"), []
    with Ring(setup.programs) as ring:
        for size in plan.sizes:
            ring.grow(size)
            if not steps:
                Client([ring.nodes[0].ip]).write(NAME, content)
            steps.append(observe(ring, plan))
            for node in ring.nodes:
                if Client([node.ip]).read(NAME) != content:
                    report.problem(f"with {size} nodes {node.ip} serves something else than was stored")
        labels = {node.address: f"n{number}" for number, node in enumerate(ring.nodes, 1)}
    report.conditions = [
        f"one file of {plan.chunks} chunks of {CHUNK_BYTES} bytes; key: low 32 bits of MD5 of NAME_chunk_I; a chunk is kept by its"
        f" owner, the first node at or after its key, and the next {COPIES - 1}; as storage-node ls lists it when all is in its place",
        ", ".join(f"{label} = {address}" for address, label in labels.items()),
    ]
    fill_table(report, plan, steps, labels)
    report.figure = draw(plan, steps, labels)
    return report


def observe(ring: Ring, plan: Plan) -> Step:
    """The ring as it is once every chunk is where it belongs, and nowhere else."""
    positions, names = ring.positions(), chunk_names(plan)
    listed: dict[str, dict[str, int]] = {}

    def all_in_place() -> bool:
        listed.update({node.address: stored(ring.listing(node)) for node in ring.nodes})
        found = differences(names, positions, listed)
        if found:
            raise ConnectionError("; ".join(found))
        return True

    wait_for(f"with {len(ring.nodes)} nodes every chunk is in its place", PLACED_SECONDS, all_in_place)
    return Step(positions, {name: [node for node in listed if name in listed[node]] for name in names})


def chunk_names(plan: Plan) -> list[str]:
    return [f"{NAME}_chunk_{number}" for number in range(1, plan.chunks + 1)]


def fill_table(report: Report, plan: Plan, steps: list[Step], labels: dict[str, str]) -> None:
    report.columns("nodes", "chunk", "key", "owner", "holders", "positions")
    for step in steps:
        clockwise = sorted(step.positions, key=step.positions.get)
        positions = ", ".join(f"{labels[node]} {step.positions[node]}" for node in clockwise)
        for name, kept in step.kept.items():
            key = key_of(name)
            owner = holders(key, step.positions)[0]
            at = " ".join(sorted(labels[node] for node in kept))
            report.row(len(step.positions), name, key, labels[owner], at, positions)


def draw(plan: Plan, steps: list[Step], labels: dict[str, str]) -> drawing.Figure:
    figure, panels = drawing.sheet(len(steps), rows=2, width=12, height=8)
    for at, step in enumerate(steps):
        draw_circle(panels[at], step, labels)
        draw_matrix(panels[len(steps) + at], step, labels)
    return figure


def draw_circle(axes: object, step: Step, labels: dict[str, str]) -> None:
    axes.set_title(f"{len(step.positions)} {'node' if len(step.positions) == 1 else 'nodes'}")
    axes.add_patch(drawing.plt.Circle((0, 0), 1, fill=False, color=drawing.GREY))
    axes.text(0, 1.03, "0", ha="center", va="bottom", fontsize=8, color=drawing.GREY)
    for node, position in step.positions.items():
        x, y = on_circle(position)
        axes.plot(x, y, "o", markersize=13, color=colour_of(labels[node]))
        axes.text(1.22 * x, 1.22 * y, labels[node], ha="center", va="center")
    for number, name in enumerate(step.kept, 1):
        key = key_of(name)
        x, y = on_circle(key)
        axes.plot(x, y, "s", markersize=5, color=colour_of(labels[holders(key, step.positions)[0]]))
        # Numbers at two distances, so that those of close chunks stay apart.
        distance = 0.88 if number % 4 < 2 else 0.76
        axes.text(distance * x, distance * y, str(number), ha="center", va="center", fontsize=8)
    axes.set_xlim(-1.4, 1.4)
    axes.set_ylim(-1.4, 1.4)
    axes.set_aspect("equal")
    axes.axis("off")


def draw_matrix(axes: object, step: Step, labels: dict[str, str]) -> None:
    """Filled: the owner; pale: a further holder."""
    nodes = sorted(step.positions, key=labels.get)
    for row, (name, kept) in enumerate(step.kept.items()):
        owner = holders(key_of(name), step.positions)[0]
        for column, node in enumerate(nodes):
            if node in kept:
                strength = 1.0 if node == owner else 0.3
                corner, colour = (column - 0.45, row - 0.45), colour_of(labels[node])
                axes.add_patch(drawing.plt.Rectangle(corner, 0.9, 0.9, color=colour, alpha=strength))
    axes.set_xticks(range(len(nodes)), [labels[node] for node in nodes])
    axes.set_yticks(range(len(step.kept)), [f"chunk {number}" for number in range(1, len(step.kept) + 1)])
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylim(len(step.kept) - 0.4, -0.6)
    axes.set_xlabel("holder (full colour: the owner)")


def on_circle(position: int) -> tuple[float, float]:
    """Clockwise from the top, as in the README's picture."""
    angle = math.pi / 2 - 2 * math.pi * position / CIRCLE
    return math.cos(angle), math.sin(angle)


def colour_of(label: str) -> str:
    return drawing.COLOURS[(int(label[1:]) - 1) % len(drawing.COLOURS)]
