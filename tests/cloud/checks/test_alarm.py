"""Alarm states: the table of CloudWatch's user guide about missing data, and the other rules."""

import unittest
from dataclasses import replace

from ..models.alarm import Alarm, BadAlarm, State, evaluate
from ..models.metrics import Metric, Sample, Store

ALARM = Alarm(
    name="a",
    metric=Metric("n", "disk_used_percent"),
    statistic="Maximum",
    period_seconds=60,
    evaluation_periods=3,
    datapoints_to_alarm=3,
    threshold=70.0,
    comparison="GreaterThanThreshold",
)
KEEP = State.INSUFFICIENT_DATA  # The previous state, which "retain the current state" keeps.
VALUES = {"0": 10.0, "X": 90.0, "-": None}


class Guide(unittest.TestCase):
    def check(self, points: str, expected: State, **changes: object) -> None:
        values = [VALUES[mark] for mark in points.split()]
        alarm = replace(ALARM, **changes)  # type: ignore[arg-type]
        self.assertEqual(evaluate(alarm, values, KEEP), expected, f"{points} {changes}")

    def test_three_points_are_enough_whatever_is_missing(self) -> None:
        for treat in ("missing", "ignore", "breaching", "notBreaching"):
            self.check("0 - X - X", State.OK, treat_missing=treat)
            self.check("0 X X - X", State.ALARM, treat_missing=treat)

    def test_no_points_at_all(self) -> None:
        self.check("- - - - -", State.INSUFFICIENT_DATA, treat_missing="missing")
        self.check("- - - - -", KEEP, treat_missing="ignore")
        self.check("- - - - -", State.ALARM, treat_missing="breaching")
        self.check("- - - - -", State.OK, treat_missing="notBreaching")

    def test_one_good_point(self) -> None:
        for treat in ("missing", "ignore", "breaching", "notBreaching"):
            self.check("- - - - 0", State.OK, treat_missing=treat)

    def test_one_bad_point_alarms_only_when_it_is_old_enough(self) -> None:
        self.check("- - X - -", State.ALARM, treat_missing="missing")
        self.check("- - X - -", KEEP, treat_missing="ignore")
        self.check("- - X - -", State.OK, treat_missing="notBreaching")
        self.check("- - - - X", KEEP, treat_missing="missing")

    def test_two_of_three(self) -> None:
        self.check("0 0 X 0 X", State.ALARM, datapoints_to_alarm=2)
        self.check("X X 0 0 X", State.OK, datapoints_to_alarm=2)

    def test_only_the_newest_points_count(self) -> None:
        self.check("X X 0 0 0", State.OK)
        self.check("0 0 X X X", State.ALARM)

    def test_the_threshold_itself_is_not_above_it(self) -> None:
        self.assertEqual(evaluate(ALARM, [70.0] * 5, KEEP), State.OK)
        at_least = replace(ALARM, comparison="GreaterThanOrEqualToThreshold")
        self.assertEqual(evaluate(at_least, [70.0] * 5, KEEP), State.ALARM)
        below = replace(ALARM, comparison="LessThanThreshold", threshold=30.0)
        self.assertEqual(evaluate(below, [10.0] * 5, KEEP), State.ALARM)


class Definitions(unittest.TestCase):
    def test_periods_that_cloudwatch_has(self) -> None:
        for period in (10, 20, 30, 60, 300):
            replace(ALARM, period_seconds=period).check()
        for period in (0, 5, 45, 90, -60):
            with self.assertRaises(BadAlarm):
                replace(ALARM, period_seconds=period).check()

    def test_more_points_to_alarm_than_periods(self) -> None:
        with self.assertRaises(BadAlarm):
            replace(ALARM, datapoints_to_alarm=4).check()

    def test_actions_may_be_switched_off(self) -> None:
        alarm = replace(ALARM, alarm_actions=("arn",))
        self.assertEqual(alarm.actions(State.ALARM), ("arn",))
        self.assertEqual(alarm.actions(State.OK), ())
        self.assertEqual(replace(alarm, actions_enabled=False).actions(State.ALARM), ())


class Statistics(unittest.TestCase):
    def setUp(self) -> None:
        self.store, self.metric = Store(), Metric.of("ChordFS", "disk_used_percent", [("AutoScalingGroupName", "G")])
        for time, value in ((0.0, 10.0), (5.0, 90.0), (9.9, 20.0), (10.0, 50.0)):
            self.store.put(self.metric, Sample.value(time, value, "Percent"))

    def test_each_statistic_of_a_period(self) -> None:
        expected = {"Maximum": 90.0, "Minimum": 10.0, "Sum": 120.0, "SampleCount": 3.0, "Average": 40.0}
        for name, value in expected.items():
            self.assertEqual(self.store.statistic(self.metric, name, 0, 10), value, name)

    def test_the_end_belongs_to_the_next_period(self) -> None:
        self.assertEqual(self.store.statistic(self.metric, "Maximum", 10, 20), 50.0)

    def test_nothing_is_not_zero(self) -> None:
        self.assertIsNone(self.store.statistic(self.metric, "Sum", 20, 30))

    def test_other_dimensions_and_units_are_other_data(self) -> None:
        other = Metric.of("ChordFS", "disk_used_percent", [("AutoScalingGroupName", "G"), ("InstanceId", "i-1")])
        self.assertIsNone(self.store.statistic(other, "Maximum", 0, 10))
        self.assertIsNone(self.store.statistic(self.metric, "Maximum", 0, 10, "Bytes"))
        self.assertEqual(self.store.statistic(self.metric, "Maximum", 0, 10, "Percent"), 90.0)
