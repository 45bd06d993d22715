"""A spot instance with an interruption notice, and one with a rebalance recommendation: each drains and is replaced."""

from __future__ import annotations

from ..instance import Instance
from ..lab import GROUP, Lab
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
        notice = lab.journal.record("spot-notice", instance=taken.id)
        taken.identity.announce_interruption(NOTICE_SECONDS)
        gone = lab.journal.wait("gone", NOTICE_SECONDS, instance=taken.id)
        setup.figure("spot.notice_to_gone", gone.at - notice.at, "s")
        check_drained(lab, taken)
        lab.wait_ring(4, 90)
        endangered = lab.instances()[0]
        endangered.identity.recommend_rebalance()
        lab.journal.wait("gone", 90, instance=endangered.id)
        check_drained(lab, endangered)
        lab.wait_ring(4, 90)
        load.stop()
        lab.wait_whole()
        files.check_all()
        desk.unmount()


def check_drained(lab: Lab, instance: Instance) -> None:
    (left,) = lab.journal.events("leaves", instance=instance.id)
    expect(left.details["why"] == "completed", f"it left after its drain, not because {left.details['why']}")
