"""Alarms: evaluates a definition over data points as CloudWatch does.

Source: CloudWatch's user guide, "Configuring how CloudWatch alarms treat missing data"; its table is a test of this
file. Left out: metric math, percentiles and anomaly bands; an alarm that uses them stays in INSUFFICIENT_DATA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from .metrics import STATISTICS, Metric

# An evaluation looks at more data points than evaluation periods, so that one late point does not decide.
EXTRA_PERIODS = 2

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
MISSING = ("missing", "ignore", "breaching", "notBreaching")


class State(Enum):
    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


class BadAlarm(ValueError):
    """CloudWatch refuses this definition; the text gives its reason."""


@dataclass(frozen=True)
class Alarm:
    """A definition: PutMetricAlarm's parameters. Periods in seconds; `metric` is None for metric math."""

    name: str
    metric: Metric | None
    statistic: str
    period_seconds: int
    evaluation_periods: int
    datapoints_to_alarm: int
    threshold: float
    comparison: str
    treat_missing: str = "missing"
    unit: str | None = None
    actions_enabled: bool = True
    alarm_actions: tuple[str, ...] = ()
    ok_actions: tuple[str, ...] = ()
    insufficient_actions: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises BadAlarm where CloudWatch would answer with a validation error."""
        if self.metric is None:
            return
        if self.statistic not in STATISTICS:
            raise BadAlarm(f"The parameter Statistic {self.statistic!r} is not one of {', '.join(STATISTICS)}")
        if self.period_seconds not in (10, 20, 30) and (self.period_seconds <= 0 or self.period_seconds % 60):
            raise BadAlarm(f"Period must be 10, 20, 30 or a multiple of 60, not {self.period_seconds}")
        if self.comparison not in COMPARISONS:
            raise BadAlarm(f"The parameter ComparisonOperator {self.comparison!r} is not known")
        if self.treat_missing not in MISSING:
            raise BadAlarm(f"Invalid value for TreatMissingData: {self.treat_missing!r}")
        if not 1 <= self.datapoints_to_alarm <= self.evaluation_periods:
            raise BadAlarm("DatapointsToAlarm must be between 1 and EvaluationPeriods")
        if self.period_seconds * self.evaluation_periods > 86_400 * (7 if self.period_seconds >= 3600 else 1):
            raise BadAlarm("Metrics cannot be checked across more than a day (EvaluationPeriods * Period)")

    def actions(self, state: State) -> tuple[str, ...]:
        if not self.actions_enabled:
            return ()
        return {
            State.ALARM: self.alarm_actions,
            State.OK: self.ok_actions,
            State.INSUFFICIENT_DATA: self.insufficient_actions,
        }[state]

    @property
    def points_looked_at(self) -> int:
        return self.evaluation_periods + EXTRA_PERIODS


def evaluate(alarm: Alarm, points: Sequence[float | None], before: State) -> State:
    """Returns the alarm's state after these data points, oldest first, None for a missing one; `before` is its present
    state.

    Shape: `points` are the last `alarm.points_looked_at` whole periods.
    """
    breaching = [None if value is None else COMPARISONS[alarm.comparison](value, alarm.threshold) for value in points]
    known = [value for value in breaching if value is not None]
    if len(known) >= alarm.evaluation_periods:
        return _state(known[-alarm.evaluation_periods :], alarm)
    if alarm.treat_missing == "breaching":
        return _state(_filled(known, True, alarm), alarm)
    if alarm.treat_missing == "notBreaching":
        return _state(_filled(known, False, alarm), alarm)
    return _with_gaps(alarm, breaching, known, before)


def _with_gaps(alarm: Alarm, breaching: list[bool | None], known: list[bool], before: State) -> State:
    """Handles `missing` and `ignore` when fewer points exist than the alarm needs."""
    if not known:
        return before if alarm.treat_missing == "ignore" else State.INSUFFICIENT_DATA
    if sum(known) >= alarm.datapoints_to_alarm:
        return State.ALARM
    if alarm.treat_missing == "ignore":
        return before if any(known) else State.OK
    if not any(known):
        return State.OK
    # The guide's rule against early alarms: the oldest point breaches and is as old as the alarm needs, and no later
    # point is below the threshold.
    age = len(breaching) - breaching.index(True)
    return State.ALARM if all(known) and age >= alarm.datapoints_to_alarm else before


def _filled(known: list[bool], fill: bool, alarm: Alarm) -> list[bool]:
    return known + [fill] * (alarm.evaluation_periods - len(known))


def _state(breaching: Sequence[bool], alarm: Alarm) -> State:
    return State.ALARM if sum(breaching) >= alarm.datapoints_to_alarm else State.OK
