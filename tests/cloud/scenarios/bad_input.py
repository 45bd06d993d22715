"""Errors between a node and AWS: a clear log line names action and resource, /healthz reports the problem, and the node
serves its data all the same. When the error is gone, /healthz is ok again.

Each case has a group of its own in one cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..imds import Identity
from ..instance import Instance
from ..lab import Lab
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect, health

MOUNT_FAILED = 32


def run(setup: Setup) -> None:
    with setup.lab(disk="128m") as lab:
        for case in CASES:
            case(lab)
            print(f"  {case.__name__}: as it should be", flush=True)


def no_alarm_rights(lab: Lab) -> None:
    denied = lab.faults.add("*:Put*", "denied")
    node = boot(lab, "NoAlarmRights")
    serves(lab, node)
    reports(lab, node, "PutScalingPolicy", "NoAlarmRights")
    reports(lab, node, "PutMetricData", "not authorized")
    lab.faults.remove(denied)
    recovers(lab, node)


def throttled(lab: Lab) -> None:
    """Retries handle a few answers "Rate exceeded"; they cause no problem in /healthz."""
    slow = lab.faults.add("*", "throttled", times=6)
    node = boot(lab, "Throttled")
    serves(lab, node)
    recovers(lab, node)
    lab.faults.remove(slow)


def expired(lab: Lab) -> None:
    node = boot(lab, "Expired")
    serves(lab, node)
    recovers(lab, node)
    fault = lab.faults.add("cloudwatch:*", "expired", instance=node.id)
    reports(lab, node, "PutMetricData", "expired")
    expect(node.serves(), "it serves without its metric")
    lab.faults.remove(fault)
    recovers(lab, node)


def skewed(lab: Lab) -> None:
    fault = lab.faults.add("cloudwatch:*", "skewed")
    node = boot(lab, "Skewed")
    serves(lab, node)
    reports(lab, node, "PutMetricData", "clock")
    lab.faults.remove(fault)
    recovers(lab, node)


def silent(lab: Lab) -> None:
    """CloudWatch does not answer at all."""
    fault = lab.faults.add("cloudwatch:*", "silence")
    node = boot(lab, "Silent")
    serves(lab, node)
    reports(lab, node, "cloudwatch:")
    lab.faults.remove(fault)
    recovers(lab, node)


def two_groups(lab: Lab) -> None:
    """Alarm names are unique in an account: the second group leaves the first one's alarm alone, and has its own
    ring."""
    one = boot(lab, "One", AlarmName="shared")
    serves(lab, one)
    recovers(lab, one)
    two = boot(lab, "Two", AlarmName="shared")
    serves(lab, two)
    reports(lab, two, "shared", "One")
    expect(lab.ring_members(one) == {one.ip}, f"the first group's ring is its own: {lab.ring_members(one)}")
    expect(lab.ring_members(two) == {two.ip}, f"the second group's ring is its own: {lab.ring_members(two)}")
    alarm, _ = lab.cloudwatch.alarms()["shared"]
    expect(alarm.metric and ("AutoScalingGroupName", "One") in alarm.metric.dimensions, f"it watches One: {alarm}")


def no_group(lab: Lab) -> None:
    """The settings name a group that does not exist. The node waits: founding a ring could create a second one."""
    node = boot(lab, "Real", GroupName="NoSuchGroup")
    reports(lab, node, "NoSuchGroup")


def no_rights(lab: Lab) -> None:
    """A node that may not list the other members waits, reports why, and continues once it may."""
    fault = lab.faults.add("*", "denied")
    node = boot(lab, "NoRights")
    reports(lab, node, "DescribeAutoScaling", "not authorized")
    lab.faults.remove(fault)
    serves(lab, node)
    recovers(lab, node)


def no_role(lab: Lab) -> None:
    """An instance without a role has no credentials; it waits until an operator gives it the role."""

    def without_role(identity: Identity) -> None:
        register(identity)
        identity.has_role = False

    register, lab.hypervisor.on_boot = lab.hypervisor.on_boot, without_role
    node = boot(lab, "NoRole")
    lab.hypervisor.on_boot = register
    reports(lab, node, "DescribeAutoScaling", "there are no credentials")
    node.identity.has_role = True
    serves(lab, node)
    recovers(lab, node)


def no_metadata(lab: Lab) -> None:
    """`--aws` on a machine outside EC2, or with the metadata service off: the node reports that and waits."""
    machine = lab.hypervisor.machine
    lab.hypervisor.machine = replace(machine, has_metadata=False)
    node = boot(lab, "NoMetadata")
    reports(lab, node, "metadata service", "run without --aws")
    lab.hypervisor.machine = machine


def a_restart_without_aws(lab: Lab) -> None:
    """A node that remembers its ring serves although it learns neither its identity nor its group; it learns both
    later, while it serves."""
    node = boot(lab, "Returns", {"CHORDFS_ASG": ""})
    serves(lab, node)
    recovers(lab, node)
    desk = lab.workstation()
    files = Files(desk.mount(node.ip))
    files.write("kept", MIB)
    desk.unmount()
    denied = lab.faults.add("*", "denied", instance=node.id)
    node.identity.is_off = True
    node.restart()
    serves(lab, node)
    reports(lab, node, "metadata service")
    Files(desk.mount(node.ip), files.sizes).check_all()
    node.identity.is_off = False
    reports(lab, node, "DescribeAutoScalingInstances", "not authorized")
    expect(group_of(node) is None, f"the node does not know its group yet: {group_of(node)}")
    lab.faults.remove(denied)
    recovers(lab, node)
    expect(group_of(node) == "Returns", f"the node has found its group: {group_of(node)}")
    desk.unmount()


def group_of(node: Instance) -> object:
    return ((node.json("/healthz") or {}).get("aws") or {}).get("group")


def a_mount_without_a_group(lab: Lab) -> None:
    """On a workstation: mount(8)'s exit code for a failed mount, and one line that names the group."""
    desk = lab.workstation()
    done = desk.run("mount.chordfs", "asg:NoSuchGroup", str(desk.point))
    expect(done.returncode == MOUNT_FAILED, f"mount.chordfs asg:NoSuchGroup ends with {MOUNT_FAILED}, not {done.returncode}")
    lines = done.stderr.strip().splitlines()
    clear = len(lines) == 1 and all(word in lines[0] for word in ("DescribeAutoScalingGroups", "NoSuchGroup"))
    expect(clear, f"one line names the request and the group: {done.stderr}")


CASES = (
    no_alarm_rights,
    throttled,
    expired,
    skewed,
    silent,
    two_groups,
    no_group,
    no_rights,
    no_role,
    no_metadata,
    a_restart_without_aws,
    a_mount_without_a_group,
)


def boot(lab: Lab, group: str, environment: Mapping[str, str] = {}, **parameters: object) -> Instance:
    before = {instance.id for instance in lab.hypervisor.all()}
    settings = {**QUIET, "AlarmName": f"{group}-alarm", **parameters}
    lab.create_group(minimum=1, maximum=2, name=group, parameters=settings, extra={**METRICS_EACH_SECOND, **environment})

    def new() -> Instance | None:
        return next((instance for instance in lab.hypervisor.all() if instance.id not in before), None)

    return lab.wait(f"the instance of {group} boots", 30, new)


def serves(lab: Lab, node: Instance) -> None:
    lab.wait(f"the node serves; its console:\n{node.log()}", 90, node.serves)


def reports(lab: Lab, node: Instance, *words: str) -> None:
    """Waits until /healthz is degraded by a problem with these words; the console must have the line too."""

    def reported() -> bool:
        state, problems = health(node)
        return state == "degraded" and all(word in problems for word in words)

    try:
        lab.wait(f"/healthz reports {words}", 60, reported)
    except TimeoutError as error:
        raise AssertionError(f"{error}; it reports {health(node)}; the console:\n{node.log()[-3000:]}") from None
    lines = [line for line in node.log().splitlines() if all(word in line for word in words)]
    expect(lines, f"the console has a line with {words}:\n{node.log()[-3000:]}")


def recovers(lab: Lab, node: Instance) -> None:
    try:
        lab.wait("/healthz is ok again", 90, lambda: health(node)[0] == "ok")
    except TimeoutError as error:
        raise AssertionError(f"{error}; /healthz reports {health(node)}") from None
