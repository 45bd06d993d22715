"""Nodes that advertise their public addresses: the ring uses those, and a mount outside works through them alone."""

from __future__ import annotations

from ..lab import GROUP
from ..load import MIB, Files
from .setup import METRICS_EACH_SECOND, QUIET, Setup, expect

PUBLIC = {**METRICS_EACH_SECOND, "CHORDFS_ADVERTISE": "public"}


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=2, maximum=2, parameters=QUIET, extra=PUBLIC)
        nodes = lab.wait("two instances boot", 30, lambda: lab.instances() if len(lab.instances()) == 2 else None)
        public = {node.identity.public_ip for node in nodes}
        expect(None not in public, f"the cloud gives public addresses: {public}")
        (first, *_) = sorted(map(str, public))
        lab.wait("the ring is made of public addresses", 60, lambda: lab.members_by(first) == public)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        files.write("far", 2 * MIB)
        files.check_all()
        desk.unmount()
        expect(lab.members_by(first) == public, "no node has become known by another address")
