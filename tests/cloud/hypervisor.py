"""Boots and shuts down machines so that they match the instances that moto lists.

It asks moto directly, not through the proxy. An instance that waits for a hook is still listed and keeps its machine;
an instance that EC2's TerminateInstances has ended is not, and its machine is shut down.
"""

from __future__ import annotations

import base64
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .groups import GONE, Groups
from .imds import Identity
from .instance import Instance, Machine
from .journal import Journal
from .moto import Moto
from .netns import Network

POLL_SECONDS = 0.2


class Hypervisor:
    def __init__(
        self, moto: Moto, groups: Groups, network: Network, folder: Path, journal: Journal, machine: Machine
    ) -> None:
        self._ec2, self._groups, self._network = moto.sdk("ec2"), groups, network
        self._folder, self._journal, self.machine = folder, journal, machine
        self.on_boot: Callable[[Identity], None] = lambda identity: None
        """Called before an instance boots, with the contents of its metadata service."""
        self._instances: dict[str, Instance] = {}
        self._stopping: list[threading.Thread] = []
        self._stop = threading.Event()
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def instances(self) -> list[Instance]:
        """The instances whose machine runs, in the order in which they booted."""
        return [instance for instance in list(self._instances.values()) if not instance.ended]

    def all(self) -> list[Instance]:
        return list(self._instances.values())

    def get(self, instance: str) -> Instance:
        return self._instances[instance]

    def close(self) -> None:
        """Ends every machine in any state."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for thread in self._stopping:
            if thread.is_alive():
                thread.join(1.0)
        for instance in self.all():
            if not instance.ended:
                instance.destroy()
            else:
                instance.namespace.kill()
        for thread in self._stopping:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self._reconcile()
            except Exception:  # Reported to the scenario that waits for an instance.
                self.failure = traceback.format_exc()
                self._journal.record("hypervisor-failed", why=self.failure.splitlines()[-1])

    def _reconcile(self) -> None:
        there = {number: found for number, found in self._running().items()}
        for number, instance in list(self._instances.items()):
            if number not in there and not instance.ended:
                thread = threading.Thread(target=instance.shut_down, daemon=True)
                self._stopping.append(thread)
                thread.start()
        new = [number for number in there if number not in self._instances]
        for number in new:
            self._boot(there[number])

    def _running(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for reservation in self._ec2.describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] not in GONE and _group(instance):
                    found[instance["InstanceId"]] = instance
        return found

    def _boot(self, described: dict[str, Any]) -> None:
        number = described["InstanceId"]
        identity = Identity(
            instance=number,
            private_ip=described["PrivateIpAddress"],
            public_ip=described.get("PublicIpAddress"),
            zone=self._groups.zone(number),
            access_key="ASIA" + number.removeprefix("i-").upper()[:16],
            target_state=lambda: self._groups.target_state(number),
        )
        self.on_boot(identity)
        folder = self._folder / number
        user_data = self._user_data(number)
        self._instances[number] = Instance(self.machine, self._network, identity, user_data, folder, self._journal)

    def _user_data(self, number: str) -> str:
        """The user data of the group's launch template, decoded."""
        found = self._ec2.describe_instance_attribute(InstanceId=number, Attribute="userData")
        value = found.get("UserData", {}).get("Value", "")
        return base64.b64decode(value).decode()


def _group(described: dict[str, Any]) -> str | None:
    tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
    return tags.get("aws:autoscaling:groupName")
