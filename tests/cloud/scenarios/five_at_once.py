"""Five instances that start at the same moment: one ring, whoever was first, with one policy and one alarm."""

from __future__ import annotations

from ..lab import Lab
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect


def run(setup: Setup) -> None:
    for _ in range(1 if setup.short else 5):
        with setup.lab() as lab:
            lab.create_group(minimum=5, maximum=5, parameters=QUIET, extra=METRICS_EACH_SECOND)
            lab.wait_ring(5, 90)
            lab.wait("all are seen to serve", 10, lambda: len(lab.journal.events("serving")) == 5)
            slowest = max(event.details["seconds"] for event in lab.journal.events("serving"))
            setup.figure("five.start_to_serving_max", slowest, "s")
            check_alarms_are_one(lab)


def check_alarms_are_one(lab: Lab) -> None:
    lab.wait("the alarm is there", 30, lambda: lab.cloudwatch.alarms())
    policies = lab.operator.describe_policies()["ScalingPolicies"]
    expect(len(policies) == 1, f"one policy for growing, not {[policy['PolicyName'] for policy in policies]}")
