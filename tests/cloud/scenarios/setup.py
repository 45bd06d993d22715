"""What a scenario is given: labs with the real binaries, and a place for its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..instance import Instance
from ..lab import Lab

# One second here is the third of a minute at the usual rate, so this is CloudWatch's agent at three times its zeal.
METRICS_EACH_SECOND = {"CHORDFS_METRIC_PERIOD": "1s"}
# For scenarios that do not test scaling: the group never shrinks by itself.
QUIET: Mapping[str, object] = {"ScaleInBelow": 0}


@dataclass
class Setup:
    """`rate`: how much faster than the machine's the cloud's clock runs; `short`: less data, fewer repetitions."""

    binaries: Path
    rate: float
    short: bool
    echo: Callable[[str], None] | None = None
    figures: list[tuple[str, float, str]] = field(default_factory=list)
    unused_rights: set[str] | None = None

    def lab(self, disk: str = "256m") -> Lab:
        lab = Lab(self.binaries, self.rate, disk, self.echo)
        lab.on_close = self._note_rights
        return lab

    def figure(self, name: str, value: float, unit: str) -> None:
        self.figures.append((name, value, unit))
        print(f"  {name} {value:.2f} {unit}", flush=True)

    def _note_rights(self, lab: Lab) -> None:
        """What the role allows and no instance used, in any of the scenarios."""
        unused = set(lab.proxy.rights.unused(lab.proxy.used_by_instances()))
        self.unused_rights = unused if self.unused_rights is None else self.unused_rights & unused


def expect(condition: object, what: str) -> None:
    """An assertion that says in words what was expected, and is there under `python -O` too."""
    if not condition:
        raise AssertionError(what)


def health(instance: Instance) -> tuple[str, str]:
    """The state of a node's dealings with AWS and its problems, as /healthz tells them; empty when it answers nothing."""
    told = (instance.json("/healthz") or {}).get("aws") or {}
    return str(told.get("state", "")), "; ".join(told.get("problems", []))
