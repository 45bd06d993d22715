"""The first instance of a new group: policies, alarms, metrics, the ring, and a mount that finds it by the group."""

from __future__ import annotations

from functools import partial

from ..instance import Instance
from ..lab import GROUP, Lab
from ..load import Files
from ..models.alarm import Alarm
from ..models.metrics import Metric
from .setup import METRICS_EACH_SECOND, Setup, expect, health

ALARM = "MyChordFileSystemASGDiskUsedAlarm"


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        put_old_alarm(lab)
        lab.create_group(minimum=1, maximum=5, extra=METRICS_EACH_SECOND)
        (node,) = lab.wait_ring(1, 60)
        served = lab.journal.wait("serving", 10, instance=node.id)
        setup.figure("first_boot.start_to_serving", served.details["seconds"], "s")
        check_alarms(lab)
        check_metrics(lab, node)
        lab.wait("/healthz is ok", 30, lambda: health(node)[0] == "ok")
        check_identity(lab, node)
        check_mount(lab)
        check_plan(lab, node)


def check_identity(lab: Lab, node: Instance) -> None:
    """The first node has made the ring's authority, which only those can read who may read the secret; a mount that
    nobody has let in gets nothing."""
    expect((node.json("/status") or {}).get("insecure") is False, "the ring has identities")
    secrets = lab.moto.sdk("secretsmanager").list_secrets()["SecretList"]
    expect([secret["Name"] for secret in secrets] == [f"chordfs/{GROUP}/authority"], f"there is one secret: {secrets}")
    stranger = lab.workstation(is_let_in=False)
    done = stranger.run("mount.chordfs", node.ip, str(stranger.point))
    expect(done.returncode != 0 and "invite --role client" in done.stderr, f"a stranger is refused: {done.stderr}")


def put_old_alarm(lab: Lab) -> None:
    """Puts the alarm of the former manager: a formula over the metrics of single instances."""
    metric = "Metrics.member.1.MetricStat.Metric"
    lab.moto.ask(
        "monitoring",
        "PutMetricAlarm",
        {
            "AlarmName": ALARM,
            "EvaluationPeriods": "2",
            "Threshold": "30",
            "ComparisonOperator": "GreaterThanThreshold",
            "Metrics.member.1.Id": "m1",
            f"{metric}.Namespace": "CWAgent",
            f"{metric}.MetricName": "disk_used_percent",
            f"{metric}.Dimensions.member.1.Name": "AutoScalingGroupName",
            f"{metric}.Dimensions.member.1.Value": GROUP,
            "Metrics.member.1.MetricStat.Period": "60",
            "Metrics.member.1.MetricStat.Stat": "Average",
            "Metrics.member.1.ReturnData": "false",
            "Metrics.member.2.Id": "e1",
            "Metrics.member.2.Expression": "AVG(METRICS())",
            "Metrics.member.2.ReturnData": "true",
        },
    )


def check_alarms(lab: Lab) -> None:
    def both() -> dict[str, Alarm] | None:
        alarms = {name: alarm for name, (alarm, _) in lab.cloudwatch.alarms().items()}
        return alarms if len(alarms) == 2 else None

    alarms = lab.wait("the alarms for growing and shrinking exist", 30, both)
    policies = {policy["PolicyARN"]: policy for policy in lab.operator.describe_policies()["ScalingPolicies"]}
    expect(len(policies) == 2, f"two policies, not {list(policies)}")
    group = Metric.of("ChordFS", "disk_used_percent", [("AutoScalingGroupName", GROUP)])
    for name, adjustment, threshold, comparison in (
        (ALARM, 1, 70.0, "GreaterThanThreshold"),
        (f"{ALARM}-ScaleIn", -1, 30.0, "LessThanThreshold"),
    ):
        alarm = alarms[name]
        expect(alarm.metric == group, f"{name} watches the group's own metric, not {alarm.metric}")
        shown = (alarm.statistic, alarm.period_seconds, alarm.evaluation_periods, alarm.threshold, alarm.comparison)
        expect(shown == ("Maximum", 60, 2, threshold, comparison), f"{name} is as promised, not {shown}")
        (arn,) = alarm.alarm_actions
        policy = policies[arn]
        steps = (policy["PolicyType"], policy["AdjustmentType"], policy["ScalingAdjustment"], policy["Cooldown"])
        expect(steps == ("SimpleScaling", "ChangeInCapacity", adjustment, 180), f"{arn} is as promised, not {steps}")


def check_metrics(lab: Lab, node: Instance) -> None:
    store, one = lab.cloudwatch.store, ("InstanceId", node.id)
    of_group = Metric.of("ChordFS", "disk_used_percent", [("AutoScalingGroupName", GROUP)])
    of_node = Metric.of("ChordFS", "disk_used_percent", [("AutoScalingGroupName", GROUP), one])
    for metric in (of_group, of_node):
        sample = lab.wait(f"{metric} is published", 30, partial(store.latest, metric))
        expect(sample.unit == "Percent", f"the unit is Percent, not {sample.unit}")
        used = node.disk_used_percent() or 0.0
        expect(abs(sample.maximum - used) < 3.0, f"{sample.maximum:.1f} % was published, df says {used:.1f} %")


def check_mount(lab: Lab) -> None:
    desk = lab.workstation()
    files = Files(desk.mount(f"asg:{GROUP}"))
    files.write("first", 3_000_001)
    files.check("first")
    desk.unmount()
    # Another machine, with the ring in /etc/chordfs.conf and without the first one's caches.
    configured = lab.workstation()
    there = Files(configured.mount_as_configured(f"asg:{GROUP}"), files.sizes)
    there.check("first")
    there.write("second", 100_001)
    there.check("second")
    configured.unmount_as_configured()


def check_plan(lab: Lab, node: Instance) -> None:
    """`aws plan` prints the plan and changes nothing."""
    before = puts(lab)
    planned = node.run("set -a; . /etc/chordfs/node.env; exec storage-node aws plan")
    expect(planned.returncode == 0, f"storage-node aws plan: {planned.stderr}")
    expect(ALARM in planned.stdout, f"the plan names the alarm:\n{planned.stdout}")
    expect(puts(lab) == before, f"a plan changes nothing, but there were {puts(lab)} and not {before} changes")


def puts(lab: Lab) -> int:
    changes = ("cloudwatch:PutMetricAlarm", "autoscaling:PutScalingPolicy")
    return sum(call.action in changes for call in lab.proxy.calls)
