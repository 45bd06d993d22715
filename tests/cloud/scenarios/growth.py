"""From one instance to five or six, by nothing but files that are copied into a mount.

Which new node can relieve the fullest disk follows from the three holders of a chunk. Up to three nodes, all keep all. In
one zone the fourth takes a quarter of everybody's; a fifth relieves some more, but not always the fullest, because with
equal arcs somebody keeps all but one of four. Over three zones a zone with a single node keeps all that there is, so the
relief comes when each zone has two: by the sixth. The alarm goes on until then, and the group with it.
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
# What moved away is garbage first, and files that are mostly garbage are rewritten at a rate that spares the disk.
RELIEF_SECONDS = 240.0
# Several segments of the store: what lies in the one that is being filled is not given back.
DISK = "768m"


@dataclass(frozen=True)
class Course:
    """How a group grows: over so many zones, to so many nodes, of which one relieves the fullest disk."""

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
    """Copies for as long as there is room, and waits for room when there is not: as a person would, but sooner."""
    end = time.monotonic() + STEP_SECONDS * size
    while len(lab.serving()) < size:
        if lab.fullest_percent() < PAUSE_ABOVE:
            files.write(f"file-{len(files.sizes):04}", 4 * MIB)
        else:
            time.sleep(0.2)
        expect(time.monotonic() < end, f"{len(lab.serving())} of {size} nodes; disks {lab.used_percents()} %")
        expect(not lab.hypervisor.failure, f"the hypervisor goes on: {lab.hypervisor.failure}")


def report_step(setup: Setup, lab: Lab, course: Course, size: int) -> None:
    """From the alarm's decision to the new node's service, and to a fullest disk below the threshold."""
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
    """Notes each time that the fullest disk falls below the threshold."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Relief:
        return self

    def __exit__(self, *_: object) -> None:
        """After a last look: who has seen the relief finds it in the journal."""
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
