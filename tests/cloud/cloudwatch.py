"""CloudWatch: keeps data points, evaluates alarms and executes their actions.

moto keeps the alarms too, because it answers DescribeAlarms; every new state is set there as well.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from .clock import Clock
from .journal import Journal
from .models.alarm import Alarm, BadAlarm, State, evaluate
from .models.metrics import Metric, Sample, Store
from .moto import Moto
from .wire.query import Error, Request

POLICY_ARN = ":scalingPolicy:"
# A period is evaluated this long after its end, because its last data points arrive late.
INGESTION_SECONDS = 6.0
OLDEST, NEWEST = 14 * 86_400.0, 2 * 3600.0


@dataclass
class _Entry:
    alarm: Alarm
    state: State = State.INSUFFICIENT_DATA
    evaluated_until: float = 0.0


class CloudWatch:
    def __init__(self, moto: Moto, clock: Clock, journal: Journal, execute_policy: Callable[[str], None]) -> None:
        self._moto, self._clock, self._journal, self._execute = moto, clock, journal, execute_policy
        self.store = Store()
        self._alarms: dict[str, _Entry] = {}
        self._lock = threading.RLock()

    def alarms(self) -> dict[str, tuple[Alarm, State]]:
        with self._lock:
            return {name: (entry.alarm, entry.state) for name, entry in self._alarms.items()}

    def evaluated_until(self, alarm: str) -> float:
        """The end of the last period that the alarm was evaluated for."""
        with self._lock:
            return self._alarms[alarm].evaluated_until

    def put_metric_data(self, request: Request) -> Error | None:
        """Keeps data points; refuses those that CloudWatch refuses although moto accepts them."""
        data = request.members("MetricData")
        if not data or len(data) > 1000:
            return Error("ValidationError", f"MetricData must have 1 to 1000 members, not {len(data)}")
        try:
            parsed = [self._datum(request, request.inside(datum)) for datum in data]
        except ValueError as error:
            return Error("InvalidParameterValue", str(error))
        with self._lock:
            for metric, sample in parsed:
                self.store.put(metric, sample)
        return None

    def get_metric_statistics(self, request: Request) -> str:
        """The XML of the data points of one metric, for the periods that begin in the time asked for."""
        metric = Metric.of(request.get("Namespace"), request.get("MetricName"), _dimensions(request))
        now, period = self._clock.now(), float(request.get("Period"))
        start, end = (_timestamp(request.optional(name), now) for name in ("StartTime", "EndTime"))
        points = []
        at = math.floor(start / period) * period
        while at < end:
            with self._lock:
                found = {
                    name: self.store.statistic(metric, name, at, at + period) for name in request.values("Statistics")
                }
            points += [_data_point(at, {name: value for name, value in found.items() if value is not None})]
            at += period
        return f"<Label>{metric.name}</Label><Datapoints>{''.join(points)}</Datapoints>"

    def put_alarm(self, request: Request) -> Error | None:
        """Stores a definition. It replaces the alarm of that name and keeps its state."""
        try:
            alarm = alarm_of(request)
            alarm.check()
        except (BadAlarm, ValueError) as error:
            return Error("ValidationError", str(error))
        with self._lock:
            before = self._alarms.get(alarm.name)
            state = before.state if before else State.INSUFFICIENT_DATA
            self._alarms[alarm.name] = _Entry(alarm, state, self._clock.now())
        self._journal.record("alarm-put", alarm=alarm.name, changed=before is None or before.alarm != alarm)
        self._set_state_in_moto(alarm, state, "Unchecked: Initial alarm creation" if before is None else "unchanged")
        return None

    def delete_alarms(self, names: list[str]) -> None:
        with self._lock:
            for name in names:
                self._alarms.pop(name, None)

    def tick(self) -> None:
        """Evaluates each alarm once for every period that has ended."""
        with self._lock:
            entries = list(self._alarms.values())
        for entry in entries:
            period = self._clock.lasts(entry.alarm.period_seconds)
            settled = self._clock.now() - self._clock.lasts(INGESTION_SECONDS)
            end = math.floor(settled / period) * period
            if end > entry.evaluated_until:
                entry.evaluated_until = end
                self._evaluate(entry, end, period)

    def _evaluate(self, entry: _Entry, end: float, period: float) -> None:
        alarm = entry.alarm
        count = alarm.points_looked_at
        with self._lock:
            points = [self._point(alarm, end - (count - i) * period, period) for i in range(count)]
            before, entry.state = entry.state, evaluate(alarm, points, entry.state)
        if entry.state != before:
            shown = [None if point is None else round(point, 1) for point in points]
            self._journal.record("alarm", alarm=alarm.name, state=entry.state.value, points=shown)
            self._set_state_in_moto(alarm, entry.state, f"data points {shown}, threshold {alarm.threshold}")
        for action in alarm.actions(entry.state):
            # Scaling actions repeat while the state lasts; others run only when it changes.
            if POLICY_ARN in action:
                self._execute(action)

    def _point(self, alarm: Alarm, start: float, period: float) -> float | None:
        if alarm.metric is None:
            return None
        return self.store.statistic(alarm.metric, alarm.statistic, start, start + period, alarm.unit)

    def _set_state_in_moto(self, alarm: Alarm, state: State, reason: str) -> None:
        params = {"AlarmName": alarm.name, "StateValue": state.value, "StateReason": reason}
        self._moto.ask("monitoring", "SetAlarmState", params)

    def _datum(self, request: Request, datum: Request) -> tuple[Metric, Sample]:
        metric = Metric.of(request.get("Namespace"), datum.get("MetricName"), _dimensions(datum))
        time = _timestamp(datum.optional("Timestamp"), self._clock.now())
        unit = datum.get("Unit", "None")
        if not -OLDEST <= time - self._clock.now() <= NEWEST:
            raise ValueError(
                "The parameter MetricData.member.1.Timestamp must be within the last two weeks and two hours"
            )
        if "StatisticValues.Sum" in datum.params:
            keys = ("Minimum", "Maximum", "Sum", "SampleCount")
            low, high, total, count = (_number(datum.get(f"StatisticValues.{key}")) for key in keys)
            return metric, Sample(time, low, high, total, count, unit)
        values = [_number(value) for value in datum.values("Values")]
        if not values:
            return metric, Sample.value(time, _number(datum.get("Value")), unit)
        counts = [_number(count) for count in datum.values("Counts")] or [1.0] * len(values)
        total = sum(value * count for value, count in zip(values, counts, strict=True))
        return metric, Sample(time, min(values), max(values), total, sum(counts), unit)


def alarm_of(request: Request) -> Alarm:
    periods = int(request.get("EvaluationPeriods", "0"))
    math_metrics = request.members("Metrics")
    metric = Metric.of(request.get("Namespace"), request.get("MetricName"), _dimensions(request))
    return Alarm(
        name=request.get("AlarmName"),
        metric=None if math_metrics else metric,
        statistic=request.get("Statistic"),
        period_seconds=int(request.get("Period", "60")),
        evaluation_periods=periods,
        datapoints_to_alarm=int(request.get("DatapointsToAlarm", str(periods))),
        threshold=float(request.get("Threshold", "0")),
        comparison=request.get("ComparisonOperator"),
        treat_missing=request.get("TreatMissingData", "missing"),
        unit=request.optional("Unit"),
        actions_enabled=request.get("ActionsEnabled", "true") == "true",
        alarm_actions=tuple(request.values("AlarmActions")),
        ok_actions=tuple(request.values("OKActions")),
        insufficient_actions=tuple(request.values("InsufficientDataActions")),
    )


def _data_point(time: float, values: dict[str, float]) -> str:
    if not values:
        return ""
    stamp = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    statistics = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return f"<member><Timestamp>{stamp}</Timestamp>{statistics}</member>"


def _dimensions(request: Request) -> list[tuple[str, str]]:
    return [(member["Name"], member["Value"]) for member in request.members("Dimensions")]


def _timestamp(text: str | None, now: float) -> float:
    return datetime.fromisoformat(text).timestamp() if text else now


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"The value {text} is not a finite number")
    return value
