"""The effect of a simple policy, and the choice of instances to terminate."""

import unittest

from ..models.scaling import Cooldown, Group, Policy, Refused, Resize, choose_victims, execute, zone_for

OUT, IN = Policy("out", "arn:out", 1, cooldown=180.0), Policy("in", "arn:in", -1, cooldown=180.0)


class Simple(unittest.TestCase):
    def test_one_more_and_one_less(self) -> None:
        self.assertEqual(execute(OUT, Group(2, 1, 5), 0), Resize(3))
        self.assertEqual(execute(IN, Group(2, 1, 5), 0), Resize(1))

    def test_bounds(self) -> None:
        self.assertIsInstance(execute(OUT, Group(5, 1, 5), 0), Refused)
        self.assertIsInstance(execute(IN, Group(1, 1, 5), 0), Refused)
        self.assertEqual(execute(Policy("big", "", 10), Group(2, 1, 5), 0), Resize(5))

    def test_alarms_are_dropped_during_an_activity_or_a_cooldown(self) -> None:
        self.assertIsInstance(execute(OUT, Group(2, 1, 5, busy="i-1 terminates"), 0), Refused)
        self.assertIsInstance(execute(OUT, Group(2, 1, 5), 0.1), Refused)

    def test_percent_and_exact(self) -> None:
        percent = Policy("p", "", 10, "PercentChangeInCapacity")
        self.assertEqual(execute(percent, Group(4, 1, 9), 0), Resize(5))
        self.assertEqual(execute(Policy("e", "", 3, "ExactCapacity"), Group(1, 1, 5), 0), Resize(3))


class Pause(unittest.TestCase):
    def test_counted_from_the_activitys_end(self) -> None:
        cooldown = Cooldown()
        self.assertEqual(cooldown.left(0), 0)
        cooldown.begin(180)
        self.assertEqual(cooldown.left(1000), 180)
        cooldown.activity_ended(1000)
        self.assertEqual(cooldown.left(1100), 80)
        cooldown.activity_ended(1150)  # Another activity's end does not prolong it.
        self.assertEqual(cooldown.left(1180), 0)


class Places(unittest.TestCase):
    def test_zones_fill_evenly(self) -> None:
        taken: dict[str, str] = {}
        for number in range(5):
            taken[f"i-{number}"] = zone_for(["a", "b", "c"], taken)
        self.assertEqual(list(taken.values()), ["a", "b", "c", "a", "b"])

    def test_the_oldest_of_the_fullest_zone_goes(self) -> None:
        zones = {"i-0": "a", "i-1": "b", "i-2": "c", "i-3": "a", "i-4": "b"}
        self.assertEqual(choose_victims(list(zones), zones, 2), ["i-0", "i-1"])
        self.assertEqual(choose_victims(["i-2", "i-3"], zones, 5), ["i-2", "i-3"])
