"""The endpoint of the nodes' SDK: applies faults and permissions first, then the models, then moto.

It records every request with its sender and its status.
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
from .wire.http import HttpRequest, HttpResponse
from .wire.query import JSON_SERVICES, Error, Request, Unreadable, answer, error_body, parse

XML = "text/xml"
# For the fault SILENCE: the connection breaks after this time without an answer.
SILENT_SECONDS = 30.0


class _Stop(Exception):
    """Ends the handling of a request with this error as the answer."""

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
        """Access key to instance, for credentials from a metadata service."""
        self.calls: list[Call] = []

    def handle(self, http: HttpRequest) -> HttpResponse | None:
        try:
            request = parse(http.headers, http.body)
        except Unreadable as why:
            return HttpResponse(501, f"this cloud cannot parse the request: {why}\n".encode())
        instance = self.callers.get(request.access_key)
        done = self._answer(http, request, instance)
        status = done.status if done else 0
        self.calls.append(Call(time.monotonic(), instance, f"{SERVICES[request.service]}:{request.action}", status))
        return done

    def used_by_instances(self) -> Counter[str]:
        return Counter(call.action for call in self.calls if call.instance and call.status == 200)

    def _answer(self, http: HttpRequest, request: Request, instance: str | None) -> HttpResponse | None:
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
            return self._serve(http, request)
        except Refused as why:
            return _error(request, Error(why.code, str(why)))
        except _Stop as stop:
            return _error(request, stop.error)

    def _serve(self, http: HttpRequest, request: Request) -> HttpResponse:
        own = getattr(self, f"_{request.service}_{request.action}", None)
        return own(http, request) if own else self._forward(http)

    def _forward(self, http: HttpRequest) -> HttpResponse:
        return self._moto.forward(http.headers, http.body)

    def _changed(self, http: HttpRequest, change: Callable[[bytes], bytes]) -> HttpResponse:
        """moto's answer, corrected unless it is an error."""
        found = self._forward(http)
        return HttpResponse(found.status, change(found.body), XML) if found.status == 200 else found

    # Auto Scaling: the actions that moto lacks or handles differently from the service.

    def _autoscaling_DescribeAutoScalingGroups(self, http: HttpRequest, request: Request) -> HttpResponse:
        corrections = self._groups.corrections()
        return self._changed(http, lambda body: rewrite.describe_groups(body, corrections))

    def _autoscaling_DescribeAutoScalingInstances(self, http: HttpRequest, request: Request) -> HttpResponse:
        corrections = self._groups.corrections()
        return self._changed(http, lambda body: rewrite.describe_group_instances(body, corrections))

    def _autoscaling_SetDesiredCapacity(self, http: HttpRequest, request: Request) -> HttpResponse:
        self._groups.set_desired(request.get("AutoScalingGroupName"), int(request.get("DesiredCapacity")))
        return _done(request)

    def _autoscaling_UpdateAutoScalingGroup(self, http: HttpRequest, request: Request) -> HttpResponse:
        if "DesiredCapacity" in request.params:
            raise Refused("this cloud changes the desired capacity only in SetDesiredCapacity")
        return self._forward(http)

    def _autoscaling_TerminateInstanceInAutoScalingGroup(self, http: HttpRequest, request: Request) -> HttpResponse:
        decrement = request.get("ShouldDecrementDesiredCapacity") == "true"
        state = self._groups.terminate(request.get("InstanceId"), decrement)
        activity = f"<StatusCode>InProgress</StatusCode><Description>{state}</Description>"
        return _done(request, f"<Activity>{activity}</Activity>")

    def _autoscaling_SetInstanceHealth(self, http: HttpRequest, request: Request) -> HttpResponse:
        """Terminates an unhealthy instance, with its hook; another one replaces it."""
        if request.get("HealthStatus") == "Unhealthy":
            self._groups.terminate(request.get("InstanceId"), decrement=False)
        return _done(request)

    def _autoscaling_RecordLifecycleActionHeartbeat(self, http: HttpRequest, request: Request) -> HttpResponse:
        self._groups.heartbeat(
            request.get("AutoScalingGroupName"),
            request.get("LifecycleHookName"),
            request.get("InstanceId"),
            request.get("LifecycleActionToken"),
        )
        return _done(request)

    def _autoscaling_CompleteLifecycleAction(self, http: HttpRequest, request: Request) -> HttpResponse:
        self._groups.complete(
            request.get("AutoScalingGroupName"),
            request.get("LifecycleHookName"),
            request.get("InstanceId"),
            request.get("LifecycleActionToken"),
            request.get("LifecycleActionResult"),
        )
        return _done(request)

    def _autoscaling_PutScalingPolicy(self, http: HttpRequest, request: Request) -> HttpResponse:
        group, name = request.get("AutoScalingGroupName"), request.get("PolicyName")
        if not self._groups.exists(group):
            raise Refused(f"Group {group} not found")
        made = self._forward(http)
        if made.status != 200:
            return made
        found = self._moto.sdk("autoscaling").describe_policies(AutoScalingGroupName=group, PolicyNames=[name])
        arn = found["ScalingPolicies"][0]["PolicyARN"]
        return HttpResponse(200, rewrite.policy_arn(made.body, arn), XML)

    def _autoscaling_DescribeLifecycleHooks(self, http: HttpRequest, request: Request) -> HttpResponse:
        group = request.get("AutoScalingGroupName")
        if not self._groups.exists(group):
            raise Refused(f"AutoScalingGroup name not found - AutoScalingGroup '{group}' not found")
        return self._forward(http)

    # EC2 and CloudWatch.

    def _ec2_DescribeInstances(self, http: HttpRequest, request: Request) -> HttpResponse:
        corrections = self._groups.corrections()
        return self._changed(http, lambda body: rewrite.describe_instances(body, corrections))

    def _monitoring_PutMetricData(self, http: HttpRequest, request: Request) -> HttpResponse:
        return self._unless(self._cloudwatch.put_metric_data(request), http)

    def _monitoring_GetMetricStatistics(self, http: HttpRequest, request: Request) -> HttpResponse:
        return _done(request, self._cloudwatch.get_metric_statistics(request))

    def _monitoring_PutMetricAlarm(self, http: HttpRequest, request: Request) -> HttpResponse:
        made = self._forward(http)
        wrong = self._cloudwatch.put_alarm(request) if made.status == 200 else None
        if wrong:
            raise _Stop(wrong)
        return made

    def _monitoring_DeleteAlarms(self, http: HttpRequest, request: Request) -> HttpResponse:
        self._cloudwatch.delete_alarms(request.values("AlarmNames"))
        return self._forward(http)

    def _unless(self, wrong: Error | None, http: HttpRequest) -> HttpResponse:
        if wrong:
            raise _Stop(wrong)
        return self._forward(http)


def _done(request: Request, result: str = "") -> HttpResponse:
    return HttpResponse(200, answer(request, result), XML)


def _error(request: Request, wrong: Error) -> HttpResponse:
    kind = "application/x-amz-json-1.1" if request.service in JSON_SERVICES else XML
    return HttpResponse(wrong.status, error_body(request.service, wrong), kind)
