"""A group that grows by the mean of its disks: one full disk among empty ones does not make it grow."""

from __future__ import annotations

from ..instance import Instance
from ..lab import GROUP, Lab
from ..models.alarm import State
from ..models.metrics import Metric
from .first_boot import ALARM
from .setup import METRICS_EACH_SECOND, Setup, expect

THRESHOLD = 50.0
SETTINGS = {"ScaleOn": "avg", "ScaleOutAbove": THRESHOLD, "ScaleInBelow": 0}
# MiB of a disk of 256 MiB. FULL alone makes the mean of both disks 40 %; with HALF_FULL it is 65 %.
FULL, HALF_FULL = 205, 130


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=2, maximum=3, parameters=SETTINGS, extra=METRICS_EACH_SECOND)
        one, other = lab.wait_ring(2, 90)
        fill(one, FULL)
        since = lab.clock.now()
        lab.wait("the fullest disk is published", 30, lambda: statistic(lab, "Maximum", since) > THRESHOLD)
        lab.wait("the alarm was evaluated for several periods", 60, lambda: periods_since(lab, since) >= 4)
        (_, state) = lab.cloudwatch.alarms()[ALARM]
        expect(state == State.OK, f"the alarm is OK at a mean of {statistic(lab, 'Average', since):.0f} %, not {state}")
        expect(not lab.journal.events("policy"), "the policy was not executed")
        fill(other, HALF_FULL)
        lab.journal.wait("policy", 60, group=GROUP, size=3)
        lab.wait_ring(3, 90)


def fill(node: Instance, mib: int) -> None:
    """Fills the disk with a file that is not the node's."""
    done = node.run(f"head -c {mib}M /dev/zero >/srv/chordfs/filler")
    expect(done.returncode == 0, f"the disk takes {mib} MiB: {done.stderr}")


def statistic(lab: Lab, name: str, since: float) -> float:
    of_group = Metric.of("ChordFS", "disk_used_percent", [("AutoScalingGroupName", GROUP)])
    return lab.cloudwatch.store.statistic(of_group, name, since, lab.clock.now(), "Percent") or 0.0


def periods_since(lab: Lab, since: float) -> float:
    (alarm, _) = lab.cloudwatch.alarms()[ALARM]
    return (lab.cloudwatch.evaluated_until(ALARM) - since) / lab.clock.lasts(alarm.period_seconds)
