"""From one instance to five, by nothing but files that are copied into a mount.

The first relief that a new node can bring is that of the fourth: up to three nodes, all keep all, because a chunk has
three holders. The alarm goes on until then, and the group with it.
"""

from __future__ import annotations

import threading
import time

from ..lab import GROUP, Lab
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, Setup, expect

THRESHOLD, PAUSE_ABOVE = 40.0, 50.0
SETTINGS = {"ScaleOutAbove": 40, "ScaleInBelow": 0}
STEP_SECONDS = 150.0
# Several segments of the store: what lies in the one that is being filled is not given back.
DISK = "768m"


def run(setup: Setup) -> None:
    with setup.lab(disk=DISK) as lab:
        lab.create_group(minimum=1, maximum=5, parameters=SETTINGS, extra=METRICS_EACH_SECOND)
        lab.wait_ring(1, 60)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        fill_until_grown(lab, files, 5)
        for size in range(2, 6):
            report_step(setup, lab, size)
        lab.wait_ring(5, 60)
        lab.wait_whole()
        files.check_all()
        desk.unmount()
        setup.figure("growth.files", files.bytes / MIB, "MiB")
        lab.wait("the fullest disk is relieved", 60, lambda: lab.fullest_percent() < THRESHOLD)


def fill_until_grown(lab: Lab, files: Files, size: int) -> None:
    """Copies for as long as there is room, and waits for room when there is not: as a person would, but sooner."""
    number, relief = 0, Relief(lab)
    end = time.monotonic() + STEP_SECONDS * (size - 1)
    while len(lab.serving()) < size:
        if lab.fullest_percent() < PAUSE_ABOVE:
            files.write(f"file-{number:04}", 4 * MIB)
            number += 1
        else:
            time.sleep(0.2)
        expect(time.monotonic() < end, f"{len(lab.serving())} of {size} nodes; disks {lab.used_percents()} %")
        expect(not lab.hypervisor.failure, f"the hypervisor goes on: {lab.hypervisor.failure}")
    relief.stop()


def report_step(setup: Setup, lab: Lab, size: int) -> None:
    """From the alarm's decision to the new node's service, and to less in the fullest disk where that is possible."""
    (grown,) = lab.journal.events("policy", group=GROUP, size=size)
    booted = lab.journal.wait("boot", 1, since=grown.at)
    served = lab.journal.wait("serving", 60, instance=booted.details["instance"])
    setup.figure(f"growth.alarm_to_serving_{size}", served.at - grown.at, "s")
    setup.figure(f"growth.start_to_serving_{size}", served.details["seconds"], "s")
    relieved = [event for event in lab.journal.events("relieved", since=grown.at)]
    if size > 3 and relieved:
        setup.figure(f"growth.alarm_to_relief_{size}", relieved[0].at - grown.at, "s")


class Relief:
    """Notes each time that the fullest disk falls below the threshold."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        above = False
        while not self._over.wait(0.2):
            fullest = self._lab.fullest_percent()
            if above and fullest < THRESHOLD:
                self._lab.journal.record("relieved", disks=self._lab.used_percents())
            above = fullest > THRESHOLD
