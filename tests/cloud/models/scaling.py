"""Simple scaling: the effect of an alarm's action on a group, and when it has none.

Source: EC2 Auto Scaling's user guide, "Simple scaling policies" and "Scaling cooldowns". A simple policy waits for the
previous activity (a launch, or a termination with its hook) and then for the cooldown; meanwhile alarms are dropped,
not queued. The size never leaves the group's bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    name: str
    arn: str
    adjustment: int
    adjustment_type: str = "ChangeInCapacity"
    cooldown: float | None = None


@dataclass(frozen=True)
class Group:
    """The state of a group that a policy looks at. `busy` names an activity that has not ended."""

    desired: int
    minimum: int
    maximum: int
    default_cooldown: float = 300.0
    busy: str | None = None


@dataclass(frozen=True)
class Resize:
    desired: int


@dataclass(frozen=True)
class Refused:
    why: str


class Cooldown:
    """One group's cooldown between two simple scalings."""

    def __init__(self) -> None:
        self._length = 0.0
        self._until = float("-inf")
        self._running = False

    def begin(self, length: float) -> None:
        """Called when a scaling has been decided; the cooldown counts from the end of the activity."""
        self._length, self._running = length, True

    def activity_ended(self, now: float) -> None:
        if self._running:
            self._until, self._running = now + self._length, False

    def left(self, now: float) -> float:
        return self._length if self._running else max(0.0, self._until - now)


def execute(policy: Policy, group: Group, cooldown_left: float) -> Resize | Refused:
    if group.busy:
        return Refused(f"a scaling activity is in progress: {group.busy}")
    if cooldown_left > 0:
        return Refused(f"in cooldown for another {cooldown_left:.1f} s")
    wanted = _wanted(policy, group.desired)
    bounded = max(group.minimum, min(group.maximum, wanted))
    if bounded == group.desired:
        return Refused(f"the group has {group.desired} of {group.minimum} to {group.maximum} already")
    return Resize(bounded)


def _wanted(policy: Policy, desired: int) -> int:
    if policy.adjustment_type == "ChangeInCapacity":
        return desired + policy.adjustment
    if policy.adjustment_type == "ExactCapacity":
        return policy.adjustment
    change = desired * policy.adjustment / 100
    # Rounds like the API: 12.7 becomes 12, 0.67 becomes 1; negative numbers likewise.
    return desired + (int(change) or (1 if change > 0 else -1 if change < 0 else 0))


def zone_for(zones: Sequence[str], taken: Mapping[str, str]) -> str:
    """The zone of the next instance: the one with the fewest instances; of several the first in the group's order."""
    count = Counter(taken.values())
    return min(zones, key=lambda zone: (count[zone], zones.index(zone)))


def choose_victims(instances: Sequence[str], zones: Mapping[str, str], count: int) -> list[str]:
    """The instances that a scale-in terminates: each time the oldest one of the zone with the most instances.

    Shape: `instances` are the ones that may be terminated, oldest first. This is the default termination policy for a
    group whose instances all have the same launch template.
    """
    left = list(instances)
    victims: list[str] = []
    while left and len(victims) < count:
        fullness = Counter(zones[instance] for instance in left)
        victims.append(min(left, key=lambda instance: (-fullness[zones[instance]], left.index(instance))))
        left.remove(victims[-1])
    return victims
