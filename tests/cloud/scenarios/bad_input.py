"""What is wrong between a node and AWS: a clear line that names action and resource, a state in /healthz, and data that
is served all the same; and when it is in order again, /healthz says so.

Each case is a group of its own in one cloud.
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
    tells(lab, node, "PutScalingPolicy", "NoAlarmRights")
    tells(lab, node, "PutMetricData", "not authorized")
    lab.faults.remove(denied)
    recovers(lab, node)


def throttled(lab: Lab) -> None:
    """A few answers "Rate exceeded" are what retries are for: nobody hears of them."""
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
    tells(lab, node, "PutMetricData", "expired")
    expect(node.serves(), "it serves without its metric")
    lab.faults.remove(fault)
    recovers(lab, node)


def skewed(lab: Lab) -> None:
    fault = lab.faults.add("cloudwatch:*", "skewed")
    node = boot(lab, "Skewed")
    serves(lab, node)
    tells(lab, node, "PutMetricData", "clock")
    lab.faults.remove(fault)
    recovers(lab, node)


def silent(lab: Lab) -> None:
    """CloudWatch does not answer at all."""
    fault = lab.faults.add("cloudwatch:*", "silence")
    node = boot(lab, "Silent")
    serves(lab, node)
    tells(lab, node, "cloudwatch:")
    lab.faults.remove(fault)
    recovers(lab, node)


def two_groups(lab: Lab) -> None:
    """Alarms' names are an account's: the second group leaves the first one's alarm alone, and has a ring of its own."""
    one = boot(lab, "One", AlarmName="shared")
    serves(lab, one)
    recovers(lab, one)
    two = boot(lab, "Two", AlarmName="shared")
    serves(lab, two)
    tells(lab, two, "shared", "One")
    expect(lab.ring_members(one) == {one.ip}, f"the first group's ring is its own: {lab.ring_members(one)}")
    expect(lab.ring_members(two) == {two.ip}, f"the second group's ring is its own: {lab.ring_members(two)}")
    alarm, _ = lab.cloudwatch.alarms()["shared"]
    expect(alarm.metric and ("AutoScalingGroupName", "One") in alarm.metric.dimensions, f"it watches One: {alarm}")


def no_group(lab: Lab) -> None:
    """The settings name a group that is not there. Founding a ring on a guess could make a second one, so it waits."""
    node = boot(lab, "Real", GroupName="NoSuchGroup")
    tells(lab, node, "NoSuchGroup")


def no_rights(lab: Lab) -> None:
    """A node that may not list the other members waits, reports why, and continues once it may."""
    fault = lab.faults.add("*", "denied")
    node = boot(lab, "NoRights")
    tells(lab, node, "DescribeAutoScaling", "not authorized")
    lab.faults.remove(fault)
    serves(lab, node)
    recovers(lab, node)


def no_role(lab: Lab) -> None:
    """User data alone makes no credentials; an operator gives the instance its role while it waits."""

    def without(identity: Identity) -> None:
        knows(identity)
        identity.has_role = False

    knows, lab.hypervisor.on_boot = lab.hypervisor.on_boot, without
    node = boot(lab, "NoRole")
    lab.hypervisor.on_boot = knows
    tells(lab, node, "DescribeAutoScaling", "there are no credentials")
    node.identity.has_role = True
    serves(lab, node)
    recovers(lab, node)


def no_metadata(lab: Lab) -> None:
    """`--aws` on a machine that is not at Amazon, or whose metadata service is switched off: it says so and waits."""
    machine = lab.hypervisor.machine
    lab.hypervisor.machine = replace(machine, has_metadata=False)
    node = boot(lab, "NoMetadata")
    tells(lab, node, "metadata service", "run without --aws")
    lab.hypervisor.machine = machine


def back_without_a_word(lab: Lab) -> None:
    """A node that remembers its ring serves although nobody says who it is, which group it belongs to, or anything else;
    and learns all that beside it."""
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
    tells(lab, node, "metadata service")
    Files(desk.mount(node.ip), files.sizes).check_all()
    node.identity.is_off = False
    tells(lab, node, "DescribeAutoScalingInstances", "not authorized")
    expect(group_of(node) is None, f"nobody has told it its group: {group_of(node)}")
    lab.faults.remove(denied)
    recovers(lab, node)
    expect(group_of(node) == "Returns", f"it has found out its group: {group_of(node)}")
    desk.unmount()


def group_of(node: Instance) -> object:
    return ((node.json("/healthz") or {}).get("aws") or {}).get("group")


def a_mount_without_a_group(lab: Lab) -> None:
    """At a workstation: mount(8)'s exit code for a failed mount, and one line that names the group."""
    desk = lab.workstation()
    done = desk.run("mount.chordfs", "asg:NoSuchGroup", str(desk.point))
    expect(done.returncode == MOUNT_FAILED, f"mount.chordfs asg:NoSuchGroup ends with {MOUNT_FAILED}, not {done.returncode}")
    lines = done.stderr.strip().splitlines()
    said = len(lines) == 1 and all(word in lines[0] for word in ("DescribeAutoScalingGroups", "NoSuchGroup"))
    expect(said, f"it says in one line what it asked for: {done.stderr}")


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
    back_without_a_word,
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


def tells(lab: Lab, node: Instance, *words: str) -> None:
    """/healthz is degraded by a problem with these words in it, and the console has the line too."""

    def told() -> bool:
        state, problems = health(node)
        return state == "degraded" and all(word in problems for word in words)

    try:
        lab.wait(f"/healthz tells of {words}", 60, told)
    except TimeoutError as error:
        raise AssertionError(f"{error}; it says {health(node)}; the console:\n{node.log()[-3000:]}") from None
    lines = [line for line in node.log().splitlines() if all(word in line for word in words)]
    expect(lines, f"the console has a line with {words}:\n{node.log()[-3000:]}")


def recovers(lab: Lab, node: Instance) -> None:
    try:
        lab.wait("AWS is in order again", 90, lambda: health(node)[0] == "ok")
    except TimeoutError as error:
        raise AssertionError(f"{error}; /healthz says {health(node)}") from None
