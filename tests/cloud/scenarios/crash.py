"""An instance that crashes: the group replaces it, and every chunk has three holders again."""

from __future__ import annotations

import time

from ..lab import GROUP
from ..load import MIB, Churn, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=4, maximum=4, parameters=QUIET, extra=METRICS_EACH_SECOND)
        lab.wait_ring(4, 90)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        for number in range(4 if setup.short else 16):
            files.write(f"kept-{number}", 4 * MIB)
        lab.wait_whole()
        load = Churn(files)
        # The oldest instance: it founded the ring, and most likely leads the namespace.
        victim = lab.instances()[0]
        begun = time.monotonic()
        lab.crash(victim)
        nodes = lab.wait_ring(4, 120)
        setup.figure("crash.to_ring_of_four", time.monotonic() - begun, "s")
        load.stop()
        lab.wait_whole()
        setup.figure("crash.to_three_holders", time.monotonic() - begun, "s")
        expect(victim.id not in [node.id for node in nodes], "another instance has replaced it")
        files.check_all()
        setup.figure("crash.longest_round_under_load", load.longest_seconds, "s")
        desk.unmount()
