"""A spot instance that is told it will be taken: it drains while it still can, and is replaced."""

from __future__ import annotations

from ..lab import GROUP
from ..load import MIB, Churn, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect

NOTICE_SECONDS = 120.0


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=4, maximum=4, parameters=QUIET, extra=METRICS_EACH_SECOND)
        lab.wait_ring(4, 90)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        for number in range(4):
            files.write(f"kept-{number}", 4 * MIB)
        lab.wait_whole()
        load = Churn(files)
        taken = lab.instances()[-1]
        told = lab.journal.record("spot-notice", instance=taken.id)
        taken.identity.announce_interruption(NOTICE_SECONDS)
        gone = lab.journal.wait("gone", NOTICE_SECONDS, instance=taken.id)
        setup.figure("spot.notice_to_gone", gone.at - told.at, "s")
        (left,) = lab.journal.events("leaves", instance=taken.id)
        expect(left.details["why"] == "completed", f"it left after its drain, not because {left.details['why']}")
        lab.wait_ring(4, 90)
        load.stop()
        lab.wait_whole()
        files.check_all()
        desk.unmount()
