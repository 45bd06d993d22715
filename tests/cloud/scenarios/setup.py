"""The environment of a scenario: labs with the real programs, and a list for its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..instance import Instance
from ..lab import Lab

# At the usual rate one second here is a third of the cloud's minute, so the nodes publish three times a minute.
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
        """Notes the permissions of the role that no instance used in any scenario."""
        unused = set(lab.proxy.rights.unused(lab.proxy.used_by_instances()))
        self.unused_rights = unused if self.unused_rights is None else self.unused_rights & unused


def expect(condition: object, what: str) -> None:
    """Asserts with a description of what was expected; works under `python -O` too."""
    if not condition:
        raise AssertionError(what)


def health(instance: Instance) -> tuple[str, str]:
    """The state of AWS and the problems that a node's /healthz reports; empty without an answer."""
    told = (instance.json("/healthz") or {}).get("aws") or {}
    return str(told.get("state", "")), "; ".join(told.get("problems", []))
