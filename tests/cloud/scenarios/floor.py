"""A group that shrinks below three: the node is not drained, reports that, and continues to serve while heartbeats
prolong its hook. After another instance has joined, it is drained."""

from __future__ import annotations

from ..lab import GROUP, Lab
from ..load import MIB, Churn, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect, health

HOOK_SECONDS = 9
# A heartbeat is due each third of the hook's time, so by the last of these the hook would have expired without them.
HEARTBEATS = 5


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        extra = METRICS_EACH_SECOND
        lab.create_group(minimum=2, maximum=4, desired=3, hook_seconds=HOOK_SECONDS, parameters=QUIET, extra=extra)
        lab.wait_ring(3, 90)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        files.write("kept", 8 * MIB)
        lab.wait_whole()
        load = Churn(files)
        lab.set_desired(2)
        leaving = lab.hypervisor.get(lab.journal.wait("hook-waits", 10).details["instance"])
        lab.wait("/healthz gives the reason why it cannot drain", 30, lambda: "cannot drain" in health(leaving)[1])
        lab.wait("heartbeats prolong the hook", 60, lambda: len(heartbeats(lab, leaving.id)) >= HEARTBEATS)
        expect(not lab.journal.events("leaves"), "the hook has lasted longer than one heartbeat timeout")
        expect(leaving.serves(), "it continues to serve")
        lab.set_desired(3)
        left = lab.journal.wait("leaves", 90, instance=leaving.id)
        expect(left.details["why"] == "completed", f"it left after its drain, not because {left.details['why']}")
        lab.wait_ring(3, 60)
        load.stop()
        lab.wait_whole()
        files.check_all()
        desk.unmount()


def heartbeats(lab: Lab, instance: str) -> list[object]:
    return list(lab.journal.events("heartbeat", instance=instance))
