"""Instances that leave a group: the termination lifecycle hook as Auto Scaling runs it.

    InService --terminate--> Terminating:Wait --complete, or a heartbeat's time-out--> Terminating:Proceed --> gone
                                  ^     |
                                  '-----' heartbeat: the time-out begins anew, up to the global time-out

Both results, CONTINUE and ABANDON, end the instance: a termination cannot be cancelled. Without such a hook the group
terminates its instances at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
RESULTS = ("CONTINUE", "ABANDON")
# The API's limit: a hook waits for 48 hours or a hundred heartbeat time-outs, whichever is less.
GLOBAL_TIMEOUT = 48 * 3600.0


@dataclass(frozen=True)
class Hook:
    name: str
    heartbeat_timeout: float
    default_result: str = "ABANDON"

    @property
    def global_timeout(self) -> float:
        return min(GLOBAL_TIMEOUT, 100 * self.heartbeat_timeout)


class EndReason(Enum):
    """EndReason a wait ended."""

    COMPLETED = "completed"
    TIMED_OUT = "timed out"
    NO_HOOK = "the group has no hook"


@dataclass(frozen=True)
class Leaving:
    """An instance that waits for its hook. Times are seconds of any one clock."""

    instance: str
    decrement: bool
    hook: Hook
    token: str
    since: float
    deadline: float
    heartbeats: int = 0


@dataclass(frozen=True)
class EndedWait:
    """An instance whose wait has ended; `result` is from CompleteLifecycleAction, or the hook's default."""

    leaving: Leaving
    why: EndReason
    result: str
    at: float


class NoSuchAction(LookupError):
    """A heartbeat or a completion for an instance that does not wait; the text is the API's."""


class Hooks:
    """The waiting instances of one group."""

    def __init__(self) -> None:
        self._waiting: dict[str, Leaving] = {}

    def waiting(self) -> dict[str, Leaving]:
        return dict(self._waiting)

    def begin(self, instance: str, hook: Hook, token: str, decrement: bool, now: float) -> Leaving:
        """Starts the wait. Idempotent: for an instance that waits already it returns the existing wait."""
        if instance not in self._waiting:
            deadline = now + hook.heartbeat_timeout
            self._waiting[instance] = Leaving(instance, decrement, hook, token, now, deadline)
        return self._waiting[instance]

    def heartbeat(self, instance: str, token: str, hook: str, now: float) -> Leaving:
        """Extends the wait that either `instance` or `token` names; the other may be empty."""
        leaving = self._find(instance, token, hook)
        longest = leaving.since + leaving.hook.global_timeout
        deadline = min(now + leaving.hook.heartbeat_timeout, longest)
        after = replace(leaving, deadline=deadline, heartbeats=leaving.heartbeats + 1)
        self._waiting[leaving.instance] = after
        return after

    def complete(self, instance: str, token: str, hook: str, result: str, now: float) -> EndedWait:
        if result not in RESULTS:
            raise ValueError(f"LifecycleActionResult must be CONTINUE or ABANDON, not {result!r}")
        leaving = self._find(instance, token, hook)
        del self._waiting[leaving.instance]
        return EndedWait(leaving, EndReason.COMPLETED, result, now)

    def expire(self, now: float) -> list[EndedWait]:
        """Ends the waits whose deadline has passed."""
        over = [leaving for leaving in self._waiting.values() if leaving.deadline <= now]
        for leaving in over:
            del self._waiting[leaving.instance]
        return [EndedWait(leaving, EndReason.TIMED_OUT, leaving.hook.default_result, now) for leaving in over]

    def forget(self, instance: str) -> None:
        """The instance died while it waited."""
        self._waiting.pop(instance, None)

    def _find(self, instance: str, token: str, hook: str) -> Leaving:
        for leaving in self._waiting.values():
            if leaving.hook.name == hook and (leaving.instance == instance or (token and leaving.token == token)):
                return leaving
        named = f"instance ID {instance}" if instance else f"token {token}"
        raise NoSuchAction(f"No active Lifecycle Action found with {named}")
