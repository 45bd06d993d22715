"""Termination hooks: waits, heartbeats, and how a wait ends."""

import unittest

from ..models.hooks import EndReason, Hook, Hooks, NoSuchAction

HOOK = Hook("drain", heartbeat_timeout=30.0, default_result="ABANDON")


class Waiting(unittest.TestCase):
    def setUp(self) -> None:
        self.hooks = Hooks()
        self.hooks.begin("i-1", HOOK, "token-1", decrement=True, now=100.0)

    def test_a_wait_without_heartbeats_times_out(self) -> None:
        self.assertEqual(self.hooks.expire(129.9), [])
        (left,) = self.hooks.expire(130.0)
        self.assertEqual((left.leaving.instance, left.why, left.result), ("i-1", EndReason.TIMED_OUT, "ABANDON"))
        self.assertEqual(self.hooks.waiting(), {})

    def test_a_heartbeat_begins_the_time_anew(self) -> None:
        self.hooks.heartbeat("i-1", "", "drain", now=120.0)
        self.assertEqual(self.hooks.expire(149.9), [])
        self.assertEqual(len(self.hooks.expire(150.0)), 1)

    def test_heartbeats_extend_a_wait_up_to_the_global_timeout(self) -> None:
        now = 100.0
        while self.hooks.waiting():
            now += 29.0
            if not self.hooks.expire(now):
                self.hooks.heartbeat("i-1", "", "drain", now)
        self.assertLess(now, 100.0 + HOOK.global_timeout + 30.0)

    def test_completion_by_instance_or_by_token(self) -> None:
        left = self.hooks.complete("", "token-1", "drain", "CONTINUE", now=110.0)
        self.assertEqual((left.leaving.instance, left.why, left.result), ("i-1", EndReason.COMPLETED, "CONTINUE"))
        self.assertTrue(left.leaving.decrement)

    def test_a_second_completion_finds_nothing(self) -> None:
        self.hooks.complete("i-1", "", "drain", "CONTINUE", now=110.0)
        with self.assertRaises(NoSuchAction):
            self.hooks.complete("i-1", "", "drain", "CONTINUE", now=110.0)

    def test_a_heartbeat_must_name_hook_and_instance(self) -> None:
        for instance, token, hook in (
            ("i-1", "", "other"),
            ("i-2", "", "drain"),
            ("", "token-2", "drain"),
            ("", "", "drain"),
        ):
            with self.assertRaises(NoSuchAction):
                self.hooks.heartbeat(instance, token, hook, now=101.0)

    def test_terminating_twice_is_one_wait(self) -> None:
        again = self.hooks.begin("i-1", HOOK, "token-2", decrement=False, now=120.0)
        self.assertEqual((again.token, again.since), ("token-1", 100.0))

    def test_an_unknown_result_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            self.hooks.complete("i-1", "", "drain", "DONE", now=101.0)
        self.assertIn("i-1", self.hooks.waiting())
