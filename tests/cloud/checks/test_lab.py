"""The whole cloud with a fake node: alarm, growth, hook, crash, faults. Needs root, takes half a minute."""

import os
import subprocess
import unittest
from pathlib import Path

from .. import processes
from ..lab import GROUP, HOOK, Lab
from ..template import user_data

FAKE = Path(__file__).parents[1] / "fake"


class Whole(unittest.TestCase):
    def lab(self) -> Lab:
        return Lab(FAKE, rate=20.0, disk="16m", echo=print if "VERBOSE" in os.environ else None)

    def fill(self, lab: Lab, mib: int) -> None:
        node = lab.instances()[0].node()
        assert node
        disk = Path(f"/proc/{node[0]}/root/srv/chordfs/filler")
        disk.write_bytes(bytes(mib << 20))

    def test_grows_by_its_alarm_and_shrinks_by_its_hook(self) -> None:
        with self.lab() as lab:
            lab.create_group(minimum=1, maximum=3)
            lab.wait_ring(1, 30)
            self.fill(lab, 13)
            lab.journal.wait("alarm", 30, state="ALARM")
            lab.wait_ring(2, 30)
            self.assertEqual(lab.describe()["DesiredCapacity"], 2)
            lab.journal.wait("policy-refused", 30)
            lab.wait_ring(3, 60)
            zones = {instance.identity.zone for instance in lab.instances()}
            self.assertEqual(len(zones), 3)

            self.fill(lab, 1)
            lab.journal.wait("alarm", 30, state="OK")
            lab.set_desired(2)
            lab.journal.wait("hook-waits", 5)
            left = lab.journal.wait("leaves", 15)
            self.assertEqual((left.details["why"], left.details["result"]), ("completed", "CONTINUE"))
            self.assertTrue(lab.journal.events("heartbeat", instance=left.details["instance"]))
            lab.wait_ring(2, 30)

    def test_a_dead_instance_is_replaced_and_a_hanging_one_times_out(self) -> None:
        with self.lab() as lab:
            lab.create_group(minimum=2, hook_seconds=30)
            first, second = lab.wait_ring(2, 30)
            lab.crash(first)
            lab.wait_ring(2, 30)
            self.assertNotIn(first.id, [instance.id for instance in lab.instances()])

            lab.faults.add("autoscaling:*Lifecycle*", "denied", instance=second.id)
            with self.assertRaises(lab.operator.exceptions.ClientError):
                lab.operator.terminate_instance_in_auto_scaling_group(
                    InstanceId=second.id, ShouldDecrementDesiredCapacity=True
                )
            lab.operator.terminate_instance_in_auto_scaling_group(
                InstanceId=second.id, ShouldDecrementDesiredCapacity=False
            )
            states = [member["LifecycleState"] for member in lab.describe()["Instances"]]
            self.assertIn("Terminating:Wait", states)
            left = lab.journal.wait("leaves", 40, instance=second.id)
            self.assertEqual(left.details["why"], "timed out")
            self.assertIn("AccessDenied", second.log())

    def test_a_closed_lab_leaves_nothing_behind(self) -> None:
        with self.lab() as lab:
            lab.create_group(minimum=1)
            lab.wait_ring(1, 30)
            tag = lab.network.tag
            node = lab.instances()[0].node()
            assert node
        spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        self.assertNotIn(tag, spaces)
        self.assertIsNone(processes.started(node[0]))


class UserData(unittest.TestCase):
    def test_the_templates_parameters_arrive(self) -> None:
        text = user_data({"GroupName": GROUP, "ScaleOutAbove": 30}, {"CHORDFS_METRIC_PERIOD": "1s"})
        for line in (f"CHORDFS_ASG={GROUP}", f"CHORDFS_HOOK={HOOK}", "CHORDFS_SCALE_OUT_ABOVE=30"):
            self.assertIn(line + "\n", text)
        self.assertLess(text.index("CHORDFS_METRIC_PERIOD=1s"), text.index("\nEOT"))
        self.assertIn("CHORDFS_SCALE_IN_BELOW=30\n", text)
        self.assertIn("CHORDFS_NO_SCALE_IN=true\n", user_data({"ScaleInBelow": 0}, {}))
