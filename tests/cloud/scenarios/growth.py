"""The group grows from one instance to five or six, only because files are copied into a mount.

The three holders of a chunk determine which new node relieves the fullest disk. With up to three nodes each node keeps
everything. In one zone the fourth node takes a quarter from each other node; a fifth relieves some, but not always the
fullest. Over three zones the only node of a zone keeps everything, so the sixth node brings the relief, when each zone
has two. Until then the alarm stays on and the group grows.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ..lab import GROUP, Lab
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, Setup, expect

THRESHOLD, PAUSE_ABOVE = 40.0, 50.0
SETTINGS = {"ScaleOutAbove": 40, "ScaleInBelow": 0}
STEP_SECONDS = 150.0
# Chunks that moved away are garbage first, and compaction rewrites segments at a limited rate.
RELIEF_SECONDS = 240.0
# Room for several segments of the store: the segment that is being filled frees no space.
DISK = "768m"


@dataclass(frozen=True)
class Course:
    """How a group grows: the number of zones, the node that relieves the fullest disk, and the final size."""

    name: str
    zones: int
    relieving: int
    size: int


def run(setup: Setup) -> None:
    grow(setup, Course("growth", zones=1, relieving=4, size=5))


def in_zones(setup: Setup) -> None:
    grow(setup, Course("growth_in_zones", zones=3, relieving=6, size=6))


def grow(setup: Setup, course: Course) -> None:
    with setup.lab(disk=DISK) as lab:
        lab.create_group(
            minimum=1, maximum=course.size, parameters=SETTINGS, extra=METRICS_EACH_SECOND, zones=course.zones
        )
        lab.wait_ring(1, 60)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        with Relief(lab):
            fill_until_grown(lab, files, course.relieving)
            lab.wait("the fullest disk is relieved", RELIEF_SECONDS, lambda: lab.fullest_percent() < THRESHOLD)
        fill_until_grown(lab, files, course.size)
        lab.wait_ring(course.size, 60)
        lab.wait_whole()
        files.check_all()
        desk.unmount()
        for size in range(2, course.size + 1):
            report_step(setup, lab, course, size)
        setup.figure(f"{course.name}.files", files.bytes / MIB, "MiB")


def fill_until_grown(lab: Lab, files: Files, size: int) -> None:
    """Copies files while there is room, and waits while there is none."""
    end = time.monotonic() + STEP_SECONDS * size
    while len(lab.serving()) < size:
        if lab.fullest_percent() < PAUSE_ABOVE:
            files.write(f"file-{len(files.sizes):04}", 4 * MIB)
        else:
            time.sleep(0.2)
        expect(time.monotonic() < end, f"{len(lab.serving())} of {size} nodes; disks {lab.used_percents()} %")
        expect(not lab.hypervisor.failure, f"the hypervisor has not failed: {lab.hypervisor.failure}")


def report_step(setup: Setup, lab: Lab, course: Course, size: int) -> None:
    """Reports the times from the alarm's action until the new node serves and until the fullest disk is relieved."""
    (grown,) = lab.journal.events("policy", group=GROUP, size=size)
    booted = lab.journal.wait("boot", 1, since=grown.at)
    served = lab.journal.wait("serving", 60, instance=booted.details["instance"])
    setup.figure(f"{course.name}.alarm_to_serving_{size}", served.at - grown.at, "s")
    setup.figure(f"{course.name}.start_to_serving_{size}", served.details["seconds"], "s")
    if size == course.relieving:
        relieved = lab.journal.events("relieved", since=grown.at)
        expect(relieved, f"node {size} relieved the fullest disk")
        setup.figure(f"{course.name}.alarm_to_relief_{size}", relieved[0].at - grown.at, "s")


class Relief:
    """Records each time when the fullest disk falls below the threshold."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Relief:
        return self

    def __exit__(self, *_: object) -> None:
        """Looks once more, so that a relief that the test has seen is in the journal."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        above, last = False, False
        while not last:
            last = self._over.wait(0.2)
            fullest = self._lab.fullest_percent()
            if above and fullest < THRESHOLD:
                self._lab.journal.record("relieved", disks=self._lab.used_percents())
            above = fullest > THRESHOLD
