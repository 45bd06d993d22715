"""Five instances that start at the same moment: one ring, whoever was first; and a chunk's holders in three zones."""

from __future__ import annotations

from collections import defaultdict

from ..lab import GROUP, Lab
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect


def run(setup: Setup) -> None:
    for _ in range(1 if setup.short else 5):
        with setup.lab() as lab:
            lab.create_group(minimum=5, maximum=5, parameters=QUIET, extra=METRICS_EACH_SECOND)
            nodes = lab.wait_ring(5, 90)
            setup.figure("five.start_to_serving_max", max(node.serving_after or 0.0 for node in nodes), "s")
            check_alarms_are_one(lab)
            check_zones(lab)


def check_alarms_are_one(lab: Lab) -> None:
    lab.wait("the alarm is there", 30, lambda: lab.cloudwatch.alarms())
    policies = lab.operator.describe_policies()["ScalingPolicies"]
    expect(len(policies) == 1, f"one policy for growing, not {[policy['PolicyName'] for policy in policies]}")


def check_zones(lab: Lab) -> None:
    desk = lab.workstation()
    files = Files(desk.mount(f"asg:{GROUP}"))
    files.write("spread", 2 * MIB)
    desk.unmount()
    lab.wait_whole()
    zones: dict[str, list[str]] = defaultdict(list)
    for instance in lab.instances():
        listed = lab.storage_node("ls", "--node", instance.ip)
        expect(listed.returncode == 0, f"storage-node ls --node {instance.ip}: {listed.stderr}")
        for line in listed.stdout.splitlines():
            zones[line.rsplit(" ", 2)[0]].append(instance.identity.zone)
    expect(zones, "there are chunks")
    apart = [chunk for chunk, where in zones.items() if len(set(where)) == 3]
    expect(len(apart) == len(zones), f"{len(apart)} of {len(zones)} chunks have holders in three zones")
