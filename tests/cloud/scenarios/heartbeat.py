"""A drain whose heartbeats are refused: it continues, reports that, and ends before the hook expires."""

from __future__ import annotations

from ..lab import GROUP
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect, health

REFUSED = "autoscaling:RecordLifecycleActionHeartbeat"


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=3, maximum=4, desired=4, parameters=QUIET, extra=METRICS_EACH_SECOND)
        lab.wait_ring(4, 90)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        files.write("kept", 8 * MIB)
        lab.wait_whole()
        lab.faults.add(REFUSED, "denied")
        lab.set_desired(3)
        leaving = lab.hypervisor.get(lab.journal.wait("hook-waits", 10).details["instance"])
        lab.wait("/healthz reports the heartbeat", 30, lambda: REFUSED in health(leaving)[1])
        left = lab.journal.wait("leaves", 90, instance=leaving.id)
        expect(left.details["why"] == "completed", f"it was drained in time, not {left.details['why']}")
        expect(REFUSED in leaving.log(), f"its console names the heartbeat that failed:\n{leaving.log()[-3000:]}")
        lab.wait_ring(3, 60)
        lab.wait_whole()
        files.check_all()
        desk.unmount()
