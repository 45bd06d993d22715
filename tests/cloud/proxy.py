"""The endpoint that the daemon's SDK meets: faults and rights first, then the models, then moto.

Every request is recorded with who sent it and what came of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .cloudwatch import CloudWatch
from .faults import SILENCE, Faults, error
from .groups import Groups, Refused
from .models.rights import EVERYTHING, SERVICES, Rights
from .moto import ACCOUNT, Moto
from .wire import rewrite
from .wire.http import Answer, Asked
from .wire.query import Error, Request, Unreadable, answer, error_body, parse

XML = "text/xml"
# How long a request that gets no answer is held before its connection breaks.
SILENT_SECONDS = 30.0


class _Stop(Exception):
    """The request's answer is this error."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class Call:
    """`instance` is None for the operator and for mounts."""

    at: float
    instance: str | None
    action: str
    status: int
    code: str = ""


class Proxy:
    def __init__(self, moto: Moto, groups: Groups, cloudwatch: CloudWatch, faults: Faults) -> None:
        self._moto, self._groups, self._cloudwatch, self.faults = moto, groups, cloudwatch, faults
        self.rights: Rights = EVERYTHING
        self.callers: dict[str, str] = {}
        """Access key to instance: those whose credentials came from a metadata service."""
        self.calls: list[Call] = []

    def handle(self, asked: Asked) -> Answer | None:
        try:
            request = parse(asked.headers, asked.body)
        except Unreadable as why:
            return Answer(501, f"this cloud cannot read the request: {why}\n".encode())
        instance = self.callers.get(request.access_key)
        done = self._answer(asked, request, instance)
        status = done.status if done else 0
        self.calls.append(Call(time.monotonic(), instance, f"{SERVICES[request.service]}:{request.action}", status))
        return done

    def used_by_instances(self) -> Counter[str]:
        return Counter(call.action for call in self.calls if call.instance and call.status == 200)

    def _answer(self, asked: Asked, request: Request, instance: str | None) -> Answer | None:
        principal = f"arn:aws:sts::{ACCOUNT}:assumed-role/chordfs-node/{instance or 'operator'}"
        fault = self.faults.strike(request, instance, principal)
        if fault == SILENCE:
            time.sleep(SILENT_SECONDS)
            return None
        try:
            if isinstance(fault, Error):
                raise _Stop(fault)
            if instance and not self.rights.allow(f"{SERVICES[request.service]}:{request.action}"):
                raise _Stop(error("denied", request, principal))
            return self._serve(asked, request)
        except Refused as why:
            return _error(request, Error(why.code, str(why)))
        except _Stop as stop:
            return _error(request, stop.error)

    def _serve(self, asked: Asked, request: Request) -> Answer:
        own = getattr(self, f"_{request.service}_{request.action}", None)
        return own(asked, request) if own else self._forward(asked)

    def _forward(self, asked: Asked) -> Answer:
        return self._moto.forward(asked.headers, asked.body)

    def _changed(self, asked: Asked, change: Callable[[bytes], bytes]) -> Answer:
        """moto's answer, corrected if it is one."""
        found = self._forward(asked)
        return Answer(found.status, change(found.body), XML) if found.status == 200 else found

    # Auto Scaling: what moto lacks, or does not do as the service does.

    def _autoscaling_DescribeAutoScalingGroups(self, asked: Asked, request: Request) -> Answer:
        known = self._groups.known()
        return self._changed(asked, lambda body: rewrite.describe_groups(body, known))

    def _autoscaling_DescribeAutoScalingInstances(self, asked: Asked, request: Request) -> Answer:
        known = self._groups.known()
        return self._changed(asked, lambda body: rewrite.describe_group_instances(body, known))

    def _autoscaling_SetDesiredCapacity(self, asked: Asked, request: Request) -> Answer:
        self._groups.set_desired(request.get("AutoScalingGroupName"), int(request.get("DesiredCapacity")))
        return _done(request)

    def _autoscaling_UpdateAutoScalingGroup(self, asked: Asked, request: Request) -> Answer:
        if "DesiredCapacity" in request.params:
            raise Refused("this cloud changes the desired capacity by SetDesiredCapacity only")
        return self._forward(asked)

    def _autoscaling_TerminateInstanceInAutoScalingGroup(self, asked: Asked, request: Request) -> Answer:
        decrement = request.get("ShouldDecrementDesiredCapacity") == "true"
        state = self._groups.terminate(request.get("InstanceId"), decrement)
        activity = f"<StatusCode>InProgress</StatusCode><Description>{state}</Description>"
        return _done(request, f"<Activity>{activity}</Activity>")

    def _autoscaling_SetInstanceHealth(self, asked: Asked, request: Request) -> Answer:
        """An instance that is unhealthy is ended, by the hook, and another one takes its place."""
        if request.get("HealthStatus") == "Unhealthy":
            self._groups.terminate(request.get("InstanceId"), decrement=False)
        return _done(request)

    def _autoscaling_RecordLifecycleActionHeartbeat(self, asked: Asked, request: Request) -> Answer:
        self._groups.heartbeat(
            request.get("AutoScalingGroupName"),
            request.get("LifecycleHookName"),
            request.get("InstanceId"),
            request.get("LifecycleActionToken"),
        )
        return _done(request)

    def _autoscaling_CompleteLifecycleAction(self, asked: Asked, request: Request) -> Answer:
        self._groups.complete(
            request.get("AutoScalingGroupName"),
            request.get("LifecycleHookName"),
            request.get("InstanceId"),
            request.get("LifecycleActionToken"),
            request.get("LifecycleActionResult"),
        )
        return _done(request)

    def _autoscaling_PutScalingPolicy(self, asked: Asked, request: Request) -> Answer:
        group, name = request.get("AutoScalingGroupName"), request.get("PolicyName")
        if not self._groups.exists(group):
            raise Refused(f"Group {group} not found")
        made = self._forward(asked)
        if made.status != 200:
            return made
        found = self._moto.sdk("autoscaling").describe_policies(AutoScalingGroupName=group, PolicyNames=[name])
        arn = found["ScalingPolicies"][0]["PolicyARN"]
        return Answer(200, rewrite.policy_arn(made.body, arn), XML)

    def _autoscaling_DescribeLifecycleHooks(self, asked: Asked, request: Request) -> Answer:
        group = request.get("AutoScalingGroupName")
        if not self._groups.exists(group):
            raise Refused(f"AutoScalingGroup name not found - AutoScalingGroup '{group}' not found")
        return self._forward(asked)

    # EC2 and CloudWatch.

    def _ec2_DescribeInstances(self, asked: Asked, request: Request) -> Answer:
        known = self._groups.known()
        return self._changed(asked, lambda body: rewrite.describe_instances(body, known))

    def _monitoring_PutMetricData(self, asked: Asked, request: Request) -> Answer:
        return self._unless(self._cloudwatch.put_metric_data(request), asked)

    def _monitoring_PutMetricAlarm(self, asked: Asked, request: Request) -> Answer:
        made = self._forward(asked)
        wrong = self._cloudwatch.put_alarm(request) if made.status == 200 else None
        if wrong:
            raise _Stop(wrong)
        return made

    def _monitoring_DeleteAlarms(self, asked: Asked, request: Request) -> Answer:
        self._cloudwatch.delete_alarms(request.values("AlarmNames"))
        return self._forward(asked)

    def _unless(self, wrong: Error | None, asked: Asked) -> Answer:
        if wrong:
            raise _Stop(wrong)
        return self._forward(asked)


def _done(request: Request, result: str = "") -> Answer:
    return Answer(200, answer(request, result), XML)


def _error(request: Request, wrong: Error) -> Answer:
    return Answer(wrong.status, error_body(request.service, wrong), XML)
