"""The scaler steers the group by the miss rate that CloudWatch has: misses grow the group, hits shrink it, one decision at a
time although a scaler runs on every instance, and the alarms trigger nothing meanwhile."""

from __future__ import annotations

import threading

from ..lab import GROUP, Lab
from ..load import MIB, Files
from .chosen_size import command, pool, wait_alarms
from .setup import METRICS_EACH_SECOND, Setup, expect

LARGEST = 4
SCALER = {"CHORDFS_SCALER_PERIOD": "5s", "CHORDFS_SCALER_COOLDOWN": "10s", "CHORDFS_STATISTICS_PERIOD": "2s"}
FILES = ("hot-0", "hot-1")


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=1, maximum=LARGEST, extra={**METRICS_EACH_SECOND, **SCALER})
        lab.wait_ring(1, 60)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        for name in FILES:
            files.write(name, 4 * MIB)
        limits = (f"pool.largest={LARGEST}", "pool.max_miss_rate=0.5", "pool.min_miss_rate=0.2")
        configure(lab, "cache.capacity=1M", "pool.mode=automatic", *limits)
        with Readers(lab):
            lab.wait_ring(LARGEST, 240)
            wait_alarms(lab, enabled=False)
            configure(lab, "cache.capacity=64M")
            lab.wait_ring(1, 400)
        check_decisions(lab)
        files.check_all()
        desk.unmount()


def configure(lab: Lab, *settings: str) -> None:
    done = command(lab, "config", "set", *settings)
    expect(done.returncode == 0, f"`config set` is accepted: {done.stdout}{done.stderr}")


def check_decisions(lab: Lab) -> None:
    decisions = pool(lab)["decisions"]
    assert isinstance(decisions, list)
    steps = [(one["from"], one["to"]) for one in reversed(decisions)]
    expect(steps == [(1, 1), (1, 2), (2, 4), (4, 2), (2, 1)], f"each step was decided once: {decisions}")
    expect(all(one["by"] == "scaler" for one in decisions), f"by the scaler alone: {decisions}")
    asked = lab.proxy.used_by_instances()["cloudwatch:GetMetricStatistics"]
    expect(asked > 0, "the scaler asked CloudWatch")


class Readers:
    """Reads the files over HTTP, over and over, from every node in turn."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for instance in self._lab.serving():
                for name in FILES:
                    instance.ask(f"/{name}", port=5058)
