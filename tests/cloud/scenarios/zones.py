"""A group over three zones: the three holders of a chunk are in different zones."""

from __future__ import annotations

from collections import defaultdict

from ..lab import GROUP
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=5, maximum=5, parameters=QUIET, extra=METRICS_EACH_SECOND)
        lab.wait_ring(5, 90)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        files.write("spread", 2 * MIB)
        desk.unmount()
        lab.wait_whole()
        zones: dict[str, list[str]] = defaultdict(list)
        for instance in lab.instances():
            listed = lab.storage_node("ls", "--node", instance.ip)
            expect(listed.returncode == 0, f"storage-node ls --node {instance.ip}: {listed.stderr}")
            for line in listed.stdout.splitlines():
                zones[line.rsplit(" ", 2)[0]].append(instance.identity.zone)
        expect(zones, "there are chunks")
        apart = [chunk for chunk, where in zones.items() if len(set(where)) == 3]
        expect(len(apart) == len(zones), f"{len(apart)} of {len(zones)} chunks have holders in three zones")
