"""Five instances that start at the same moment, and in the long form ten: they form one ring, in any order, with one
policy and one alarm."""

from __future__ import annotations

from ..lab import Lab
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect


def run(setup: Setup) -> None:
    for _ in range(1 if setup.short else 5):
        at_once(setup, 5, "five")
    if not setup.short:
        at_once(setup, 10, "ten")


def at_once(setup: Setup, count: int, name: str) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=count, maximum=count, parameters=QUIET, extra=METRICS_EACH_SECOND)
        lab.wait_ring(count, 90)
        lab.wait("all instances serve", 10, lambda: len(lab.journal.events("serving")) == count)
        slowest = max(event.details["seconds"] for event in lab.journal.events("serving"))
        setup.figure(f"{name}.start_to_serving_max", slowest, "s")
        check_alarms_are_one(lab)


def check_alarms_are_one(lab: Lab) -> None:
    lab.wait("the alarm is there", 30, lambda: lab.cloudwatch.alarms())
    policies = lab.operator.describe_policies()["ScalingPolicies"]
    expect(len(policies) == 1, f"one policy for growing, not {[policy['PolicyName'] for policy in policies]}")
