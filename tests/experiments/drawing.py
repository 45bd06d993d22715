"""Pictures: SVG and PNG with axes, units, a legend, and the conditions below them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

# Colours that people with any colour vision can tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#888888"
FOOT_CHARACTERS_PER_INCH = 16
FOOT_LINE_INCHES = 0.14
TITLE_INCHES = 0.4


def sheet(columns: int, rows: int = 1, width: float = 10, height: float = 4.8) -> tuple[Figure, list]:
    """A figure with so many panels, and these row by row."""
    plt.rcParams.update({"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    return figure, list(axes.flat)


def draw_counts(axes: object, times: Sequence[float], counts: Sequence[int], label: str) -> None:
    """Whole numbers, each from its time on, on an axis of their own at the right."""
    beside = axes.twinx()
    beside.step(times, counts, where="post", color=COLOURS[2], linewidth=1, linestyle="--")
    beside.set_ylim(0, max(counts) + 2)
    beside.set_yticks(range(0, max(counts) + 1))
    beside.set_ylabel(label, color=COLOURS[2], fontsize=8)


def save(figure: Figure, title: str, conditions: list[str], out: Path, name: str) -> list[Path]:
    """Writes NAME.svg and NAME.png, with the conditions at the foot."""
    width, height = figure.get_size_inches()
    lines = [part for line in conditions for part in textwrap.wrap(line, int(width * FOOT_CHARACTERS_PER_INCH))]
    foot = FOOT_LINE_INCHES * (len(lines) + 1)
    figure.set_size_inches(width, height + foot)
    share = foot / (height + foot)
    figure.suptitle(title, fontsize=12, y=1 - 0.1 / (height + foot), va="top")
    figure.text(0.01, 0.01, "\n".join(lines), fontsize=7.5, va="bottom", ha="left", color="#333333", linespacing=1.3)
    figure.tight_layout(rect=(0, share, 1, 1 - TITLE_INCHES / (height + foot)))
    paths = [out / f"{name}.svg", out / f"{name}.png"]
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths
