"""Auto Scaling groups: moto launches and terminates instances; the models decide when, and which.

moto has no lifecycle hooks: it counts an instance that waits for its hook as in service. So moto's desired capacity is
the true one plus the instances that are leaving.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock
from .journal import Journal
from .models import scaling
from .models.hooks import TERMINATING, EndedWait, EndReason, Hook, Hooks, NoSuchAction
from .moto import Moto
from .wire.rewrite import Corrections

GONE = ("shutting-down", "terminated")


class Refused(Exception):
    """An error answer of the API; `code` is its error code."""

    def __init__(self, message: str, code: str = "ValidationError") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Group:
    hooks: Hooks = field(default_factory=Hooks)
    cooldown: scaling.Cooldown = field(default_factory=scaling.Cooldown)
    zones: dict[str, str] = field(default_factory=dict)


class Groups:
    """One lock covers everything, even requests to moto: tests depend on the order of events."""

    def __init__(self, moto: Moto, clock: Clock, journal: Journal) -> None:
        self._moto, self._clock, self._journal = moto.sdk("autoscaling"), clock, journal
        self._groups: dict[str, _Group] = {}
        self._lock = threading.RLock()

    def corrections(self) -> Corrections:
        with self._lock:
            self._notice()
            zones: dict[str, str] = {}
            waiting: dict[str, str] = {}
            lowered: dict[str, int] = {}
            for name, group in self._groups.items():
                zones.update(group.zones)
                waiting.update({instance: "Terminating:Wait" for instance in group.hooks.waiting()})
                lowered[name] = _decrementing(group)
            return Corrections(zones, waiting, lowered)

    def exists(self, name: str) -> bool:
        return self._describe(name) is not None

    def target_state(self, instance: str) -> str:
        """The metadata service's value of autoscaling/target-lifecycle-state."""
        with self._lock:
            leaving = any(instance in group.hooks.waiting() for group in self._groups.values())
            return "Terminated" if leaving else "InService"

    def zone(self, instance: str) -> str:
        with self._lock:
            self._notice()
            return next(group.zones[instance] for group in self._groups.values() if instance in group.zones)

    def set_desired(self, name: str, desired: int) -> None:
        with self._lock:
            group, now = self._of(name), self._require(name)
            if not now["MinSize"] <= desired <= now["MaxSize"]:
                bounds = f"{now['MinSize']} and {now['MaxSize']}"
                raise Refused(f"New SetDesiredCapacity value {desired} is not between the limits {bounds}")
            change = desired - self._desired(name, now)
            if change > 0:
                self._moto.set_desired_capacity(
                    AutoScalingGroupName=name, DesiredCapacity=now["DesiredCapacity"] + change
                )
                self._notice()
            elif change < 0:
                for instance in scaling.choose_victims(self._may_go(group, now), group.zones, -change):
                    self._leave(name, instance, decrement=True)
            self._journal.record("desired", group=name, size=desired)

    def terminate(self, instance: str, decrement: bool) -> str:
        """TerminateInstanceInAutoScalingGroup; returns the lifecycle state for the answer."""
        with self._lock:
            name = self._group_of(instance)
            now = self._require(name)
            if decrement and self._desired(name, now) - 1 < now["MinSize"]:
                raise Refused(
                    f"Currently, desiredSize equals minSize ({now['MinSize']}). Terminating instance without "
                    "replacement will violate group's min size constraint."
                )
            return self._leave(name, instance, decrement)

    def heartbeat(self, name: str, hook: str, instance: str, token: str) -> None:
        with self._lock:
            try:
                leaving = self._of(name).hooks.heartbeat(instance, token, hook, self._clock.now())
            except NoSuchAction as error:
                raise Refused(str(error)) from error
            self._journal.record("heartbeat", group=name, instance=leaving.instance, number=leaving.heartbeats)

    def complete(self, name: str, hook: str, instance: str, token: str, result: str) -> None:
        with self._lock:
            try:
                left = self._of(name).hooks.complete(instance, token, hook, result, self._clock.now())
            except (NoSuchAction, ValueError) as error:
                raise Refused(str(error)) from error
            self._end(name, left)

    def tick(self) -> None:
        with self._lock:
            self._notice()
            for name, group in self._groups.items():
                for left in group.hooks.expire(self._clock.now()):
                    self._end(name, left)

    def execute_policy(self, arn: str) -> None:
        """Executes an alarm's action. The journal records the result."""
        with self._lock:
            found = self._policy(arn)
            if found is None:
                self._journal.record("policy-missing", arn=arn)
                return
            name, policy = found
            group, now = self._of(name), self._require(name)
            size = scaling.Group(
                self._desired(name, now),
                now["MinSize"],
                now["MaxSize"],
                now["DefaultCooldown"],
                next((f"{instance} waits for its hook" for instance in group.hooks.waiting()), None),
            )
            what = scaling.execute(policy, size, group.cooldown.left(self._clock.now()))
            if isinstance(what, scaling.Refused):
                self._journal.record("policy-refused", group=name, policy=policy.name, why=what.why)
                return
            self._journal.record("policy", group=name, policy=policy.name, size=what.desired)
            pause = size.default_cooldown if policy.cooldown is None else policy.cooldown
            group.cooldown.begin(self._clock.lasts(pause))
            self.set_desired(name, what.desired)
            if what.desired > size.desired or not group.hooks.waiting():
                group.cooldown.activity_ended(self._clock.now())

    def _leave(self, name: str, instance: str, decrement: bool) -> str:
        group, hook = self._of(name), self._hook(name)
        if hook is None:
            self._terminate(name, instance, decrement, EndReason.NO_HOOK, "CONTINUE")
            return "Terminating"
        if instance not in group.hooks.waiting():
            group.hooks.begin(instance, hook, str(uuid.uuid4()), decrement, self._clock.now())
            self._journal.record("hook-waits", group=name, instance=instance, hook=hook.name)
        return "Terminating:Wait"

    def _end(self, name: str, left: EndedWait) -> None:
        self._terminate(name, left.leaving.instance, left.leaving.decrement, left.why, left.result)

    def _terminate(self, name: str, instance: str, decrement: bool, why: EndReason, result: str) -> None:
        self._journal.record("leaves", group=name, instance=instance, why=why.value, result=result)
        self._moto.terminate_instance_in_auto_scaling_group(
            InstanceId=instance, ShouldDecrementDesiredCapacity=decrement
        )
        self._of(name).cooldown.activity_ended(self._clock.now())
        self._notice()

    def _notice(self) -> None:
        """Gives new instances a zone and forgets those that are gone."""
        for now in self._moto.describe_auto_scaling_groups()["AutoScalingGroups"]:
            group = self._of(now["AutoScalingGroupName"])
            present = [member["InstanceId"] for member in now["Instances"]]
            group.zones = {instance: zone for instance, zone in group.zones.items() if instance in present}
            for instance in present:
                if instance not in group.zones:
                    group.zones[instance] = scaling.zone_for(now["AvailabilityZones"], group.zones)
                    self._journal.record(
                        "launch", group=now["AutoScalingGroupName"], instance=instance, zone=group.zones[instance]
                    )
            for instance, leaving in group.hooks.waiting().items():
                if instance not in present:
                    self._died_waiting(group, instance, present[-1] if leaving.decrement else None)

    def _died_waiting(self, group: _Group, instance: str, surplus: str | None) -> None:
        """Ends the surplus: moto has replaced an instance that died while it left for good, and the newest is the
        replacement."""
        group.hooks.forget(instance)
        if surplus is not None:
            self._moto.terminate_instance_in_auto_scaling_group(InstanceId=surplus, ShouldDecrementDesiredCapacity=True)

    def _may_go(self, group: _Group, now: dict[str, Any]) -> list[str]:
        members = [member for member in now["Instances"] if not member["ProtectedFromScaleIn"]]
        return [member["InstanceId"] for member in members if member["InstanceId"] not in group.hooks.waiting()]

    def _hook(self, name: str) -> Hook | None:
        for hook in self._moto.describe_lifecycle_hooks(AutoScalingGroupName=name)["LifecycleHooks"]:
            if hook["LifecycleTransition"] == TERMINATING:
                timeout, result = hook.get("HeartbeatTimeout", 3600), hook.get("DefaultResult", "ABANDON")
                return Hook(hook["LifecycleHookName"], float(timeout), result)
        return None

    def _policy(self, arn: str) -> tuple[str, scaling.Policy] | None:
        for policy in self._moto.describe_policies()["ScalingPolicies"]:
            if policy["PolicyARN"] == arn:
                if policy["PolicyType"] != "SimpleScaling":
                    raise NotImplementedError(f"this cloud carries out simple policies, not {policy['PolicyType']}")
                return policy["AutoScalingGroupName"], scaling.Policy(
                    policy["PolicyName"],
                    arn,
                    policy["ScalingAdjustment"],
                    policy["AdjustmentType"],
                    policy.get("Cooldown"),
                )
        return None

    def _of(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    def _desired(self, name: str, now: dict[str, Any]) -> int:
        return int(now["DesiredCapacity"]) - _decrementing(self._of(name))

    def _describe(self, name: str) -> dict[str, Any] | None:
        found = self._moto.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        return found[0] if found else None

    def _require(self, name: str) -> dict[str, Any]:
        found = self._describe(name)
        if found is None:
            raise Refused(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        return found

    def _group_of(self, instance: str) -> str:
        self._notice()
        for name, group in self._groups.items():
            if instance in group.zones:
                return name
        raise Refused(f"Instance Id not found - No managed instance found for instance ID: {instance}")


def _decrementing(group: _Group) -> int:
    return sum(leaving.decrement for leaving in group.hooks.waiting().values())
