"""The group shrinks from five to three under load: each instance is drained first, one after the other."""

from __future__ import annotations

import json
import threading

from ..lab import GROUP, Lab
from ..load import MIB, Churn, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=3, maximum=5, desired=5, parameters=QUIET, extra=METRICS_EACH_SECOND)
        lab.wait_ring(5, 90)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        for number in range(4 if setup.short else 16):
            files.write(f"kept-{number}", 4 * MIB)
        lab.wait_whole()
        load, drains = Churn(files), Drains(lab)
        lab.set_desired(3)
        lab.wait("two have left", 240, lambda: len(lab.journal.events("leaves")) == 2)
        lab.wait_ring(3, 60)
        drains.stop()
        load.stop()
        check_hooks(lab, setup)
        expect(drains.most_at_once <= 1, f"one drain at a time, not {drains.most_at_once}")
        lab.wait_whole()
        files.check_all()
        setup.figure("scale_in.longest_round_under_load", load.longest_seconds, "s")
        desk.unmount()


def check_hooks(lab: Lab, setup: Setup) -> None:
    for left in lab.journal.events("leaves"):
        instance = left.details["instance"]
        how = (left.details["why"], left.details["result"])
        expect(how == ("completed", "CONTINUE"), f"{instance} completed its hook, not {how}")
        (began,) = lab.journal.events("hook-waits", instance=instance)
        setup.figure("scale_in.hook_to_done", left.at - began.at, "s")
        killed = lab.journal.events("killed", instance=instance)
        expect(not killed, f"the node of {instance} ended by itself at the shutdown")


class Drains:
    """Watches how many nodes of the ring drain at the same time."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self.most_at_once = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.3):
            for instance in self._lab.serving()[:1]:
                status = self._lab.storage_node("status", "--node", instance.ip, "--json", seconds=30.0)
                if status.stdout.strip():
                    nodes = json.loads(status.stdout)["nodes"]
                    shown = [node["address"] for node in nodes if node["state"] == "draining"]
                    at_once = sum(self._drains(address) for address in shown) if len(shown) > 1 else len(shown)
                    self.most_at_once = max(self.most_at_once, at_once)

    def _drains(self, address: str) -> bool:
        """Asks for the phase: a node that has left is shown as draining until its process ends, which waits for the
        hook."""
        status = self._lab.storage_node("status", "--one", "--node", address, "--json", seconds=30.0)
        drain = json.loads(status.stdout).get("drain") if status.stdout.strip() else None
        return drain is not None and drain["phase"] in ("copying", "voting", "leaving")
