"""A complete cloud for one scenario; it is always taken down, even after a failure."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from . import template
from .clock import Clock
from .cloudwatch import CloudWatch
from .faults import Faults
from .groups import Groups
from .hypervisor import Hypervisor
from .imds import Identity
from .instance import Instance, Machine
from .journal import Journal
from .models import rights
from .moto import OPERATOR, REGION, Moto, sdk
from .netns import SWITCH_ADDRESS, Network
from .proxy import Proxy
from .wire.http import Server
from .workstation import Workstation

GROUP = "MyChordFileSystemASG"
HOOK = "chordfs-drain"
T = TypeVar("T")


class Lab:
    """`with Lab(...) as lab:`; a failure inside keeps the logs and prints their folder."""

    def __init__(
        self, binaries: Path, rate: float, disk: str = "256m", echo: Callable[[str], None] | None = None
    ) -> None:
        self.binaries = (binaries, template.UNITS)
        self.folder = Path(tempfile.mkdtemp(prefix="chordcloud-"))
        self.journal = Journal(echo)
        self.clock = Clock(rate)
        self._closing = contextlib.ExitStack()
        self._over = threading.Event()
        self._workstations = 0
        self._groups_made: set[str] = set()
        self._let_in: set[str] = set()
        self.on_close: Callable[[Lab], None] = lambda lab: None
        try:
            self._build(disk)
        except BaseException:
            self._closing.close()
            raise

    def _build(self, disk: str) -> None:
        self.network = Network()
        self._closing.callback(self.network.close)
        self.moto = Moto(self.folder / "moto.log")
        self._closing.callback(self.moto.close)
        self.groups = Groups(self.moto, self.clock, self.journal)
        self.cloudwatch = CloudWatch(self.moto, self.clock, self.journal, self.groups.execute_policy)
        self.faults = Faults()
        self.proxy = Proxy(self.moto, self.groups, self.cloudwatch, self.faults)
        self.proxy.rights = rights.of_template(template.load())
        self.endpoint = f"http://{SWITCH_ADDRESS}"
        served = Server(self.network.switch.listen(SWITCH_ADDRESS, 80), self.proxy.handle)
        self._closing.callback(served.close)
        # The harness itself is in no namespace; it uses the same proxy on a loopback port.
        own = Server(_loopback(), self.proxy.handle)
        self._closing.callback(own.close)
        self.operator = sdk("autoscaling", f"http://127.0.0.1:{own.port}")
        machine = Machine(self.binaries, (template.UNITS,), self._node_environment(), disk)
        self.hypervisor = Hypervisor(self.moto, self.groups, self.network, self.folder, self.journal, machine)
        self.hypervisor.on_boot = self._register_caller
        self._closing.callback(self.hypervisor.close)
        self.hypervisor.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._closing.callback(self._ticker.join)
        self._closing.callback(self._over.set)
        self._ticker.start()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._print_state()
        self._closing.close()
        self.on_close(self)
        self._write_record()
        if error is None:
            shutil.rmtree(self.folder)
        else:
            print(f"logs are kept in {self.folder}", flush=True)

    # The group.

    def create_group(
        self,
        minimum: int = 1,
        maximum: int = 5,
        desired: int | None = None,
        name: str = GROUP,
        hook_seconds: int | None = 60,
        user_data: str | None = None,
        parameters: Mapping[str, object] = {},
        extra: Mapping[str, object] = {},
        zones: int = 3,
    ) -> None:
        """Creates what the template creates: launch template, group over `zones`, hook. `parameters` are the
        template's."""
        self._groups_made.add(name)
        # The harness itself speaks to the nodes without encryption. Nodes, commands and mounts do not.
        defaults = {"GroupName": name, "LegacyCidr": "172.31.0.0/16"}
        text = user_data or template.user_data({**defaults, **parameters}, extra)
        ec2 = self.moto.sdk("ec2")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ec2.create_launch_template(
            LaunchTemplateName=f"{name}-nodes",
            LaunchTemplateData={
                "ImageId": image,
                "InstanceType": "t3.micro",
                "UserData": base64.b64encode(text.encode()).decode(),
            },
        )
        subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
        group: dict[str, Any] = {
            "AutoScalingGroupName": name,
            "MinSize": minimum,
            "MaxSize": maximum,
            "DesiredCapacity": minimum if desired is None else desired,
            "LaunchTemplate": {"LaunchTemplateName": f"{name}-nodes", "Version": "$Latest"},
            "VPCZoneIdentifier": ",".join(subnets[:zones]),
        }
        if hook_seconds is None:
            self.operator.create_auto_scaling_group(**group)
            return
        # moto accepts no hooks in CreateAutoScalingGroup, so the hook is put before the first instance boots.
        self.operator.create_auto_scaling_group(**{**group, "MinSize": 0, "DesiredCapacity": 0})
        self.operator.put_lifecycle_hook(
            LifecycleHookName=HOOK,
            AutoScalingGroupName=name,
            LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
            HeartbeatTimeout=hook_seconds,
            DefaultResult="CONTINUE",
        )
        self.operator.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=minimum)
        if group["DesiredCapacity"]:
            self.set_desired(group["DesiredCapacity"], name)

    def set_desired(self, count: int, name: str = GROUP) -> None:
        self.operator.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=count)

    def describe(self, name: str = GROUP) -> dict[str, Any]:
        found = self.operator.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return dict(found["AutoScalingGroups"][0])

    def crash(self, instance: Instance) -> None:
        """Kills the instance; then the group notices. There is no hook and no drain."""
        instance.crash()
        self.moto.sdk("ec2").terminate_instances(InstanceIds=[instance.id])

    # The ring, seen from outside.

    def instances(self) -> list[Instance]:
        return self.hypervisor.instances()

    def serving(self) -> list[Instance]:
        return [instance for instance in self.instances() if instance.serves()]

    def let_in(self) -> None:
        """Makes the operator, whose keys and identities all machines outside the groups have, one of each ring."""
        serving = {instance.id for instance in self.serving()}
        for group in self._groups_made - self._let_in:
            if serving.isdisjoint(member["InstanceId"] for member in self.describe(group)["Instances"]):
                continue
            done = self._storage_node("aws", "accept", "--asg", group)
            if done.returncode:
                raise RuntimeError(f"storage-node aws accept --asg {group}: {done.stderr}")
            self._let_in.add(group)

    def _operator_environment(self) -> dict[str, str]:
        aws = {**self._node_environment(), "AWS_REGION": REGION, "CHORDFS_IDENTITIES": str(self.folder / "identities")}
        aws.update(AWS_ACCESS_KEY_ID=OPERATOR, AWS_SECRET_ACCESS_KEY="none", AWS_EC2_METADATA_DISABLED="true")
        return aws

    def workstation(self, is_let_in: bool = True) -> Workstation:
        self._workstations += 1
        name = f"w{self._workstations}"
        space = self.network.attach(name, f"172.31.240.{self._workstations}")
        aws = self._operator_environment()
        if not is_let_in:
            aws["CHORDFS_IDENTITIES"] = str(self.folder / name / "identities")
        made = Workstation(space, self.folder / name, self.binaries, aws, self.let_in)
        self._closing.callback(made.close)
        return made

    def storage_node(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs the program `storage-node` as operator on a machine of the network."""
        self.let_in()
        return self._storage_node(*arguments, seconds=seconds)

    def _storage_node(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        path = ":".join([*map(str, self.binaries), os.environ["PATH"]])
        return subprocess.run(
            self.network.switch.command("storage-node", *arguments),
            env={**os.environ, **self._operator_environment(), "PATH": path},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def voters(self, instance: Instance) -> set[str]:
        """The addresses of the namespace's voters, according to one node."""
        status = instance.json("/status") or {}
        return {str(voter).rsplit(":", 1)[0] for voter in status.get("namespace", {}).get("voters", [])}

    def ring_members(self, instance: Instance) -> set[str]:
        """The addresses of the ring's members according to one node, foreign Chord nodes included."""
        return self.members_by(instance.ip)

    def members_by(self, address: str) -> set[str]:
        """Like `ring_members`, for a node given by the address that it advertises."""
        status = self.storage_node("status", "--node", address, "--json", seconds=30.0)
        # The exit code is the ring's verdict: a ring of two nodes is one of WARN.
        return _members(status.stdout) if status.stdout.strip() else set()

    def wait(self, what: str, seconds: float, test: Callable[[], T | None]) -> T:
        """Waits until `test` returns a true value, and returns it. A failed hypervisor ends the wait."""
        end = time.monotonic() + seconds
        while True:
            found = test()
            if found:
                return found
            if self.hypervisor.failure:
                raise RuntimeError(f"while waiting until {what}: {self.hypervisor.failure}")
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.1)

    def wait_ring(self, count: int, seconds: float = 120.0) -> list[Instance]:
        """Waits for one ring of exactly `count` serving instances, according to each of them, with all its voters."""

        def settled() -> list[Instance] | None:
            serving = self.serving()
            self._require_running_node(serving)
            wanted = {instance.ip for instance in serving}
            if len(serving) != count or len(self.instances()) != count:
                return None
            seen.update({instance.ip: self.ring_members(instance) for instance in serving})
            # With fewer than three voters the loss of one node could be the loss of the namespace.
            enough = 5 if count >= 7 else min(count, 3)
            voters = self.voters(serving[0])
            whole = all(seen[instance.ip] == wanted for instance in serving)
            return serving if whole and voters <= wanted and len(voters) == enough else None

        seen: dict[str, set[str]] = {}
        try:
            return self.wait(f"one ring of {count}", seconds, settled)
        except TimeoutError as error:
            there = {instance.ip: instance.serves() for instance in self.instances()}
            found = f"instances and whether they serve: {there}; members according to each: {seen}"
            raise TimeoutError(f"{error}; {found}") from None

    def wait_whole(self, seconds: float = 180.0) -> None:
        """Waits until `storage-node check` finds that every chunk has all its holders."""
        last = ["it has not run"]

        def whole() -> bool:
            serving = self.serving()
            if not serving:
                return False
            checked = self.storage_node("check", "--node", serving[0].ip, "--json")
            last[0] = (checked.stdout + checked.stderr).strip()
            if not checked.stdout.strip():
                return False
            report = json.loads(checked.stdout)
            faults = ("missing", "damaged", "under_replicated", "unreachable")
            return not report["unreachable_nodes"] and not any(report[fault]["count"] for fault in faults)

        try:
            self.wait("every chunk has its holders", seconds, whole)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; check printed:\n{last[0]}") from None

    def fullest_percent(self) -> float:
        return max((instance.disk_used_percent() or 0.0 for instance in self.instances()), default=0.0)

    def used_percents(self) -> str:
        used = [instance.disk_used_percent() for instance in self.instances()]
        return " ".join("-" if percent is None else f"{percent:.0f}" for percent in used)

    def _node_environment(self) -> dict[str, str]:
        log = os.environ.get("CHORDFS_TEST_LOG", "info")
        return {"AWS_ENDPOINT_URL": self.endpoint, "RUST_LOG": log, "RUST_BACKTRACE": "1"}

    def _register_caller(self, identity: Identity) -> None:
        self.proxy.callers[identity.access_key] = identity.instance

    def _tick(self) -> None:
        """Runs the services' clock: hooks expire, alarms are evaluated."""
        while not self._over.wait(0.1):
            try:
                self.groups.tick()
                self.cloudwatch.tick()
            except Exception:
                self.journal.record("cloud-failed", why=traceback.format_exc())

    def _require_running_node(self, serving: list[Instance]) -> None:
        """Fails at once if every node has ended: waiting for a ring would be in vain."""
        started = [instance for instance in self.instances() if instance.node()]
        if started and not serving and not any(instance.node_runs() for instance in started):
            raise RuntimeError(f"every node has ended; the first one's console:\n{started[0].log()[-2000:]}")

    def _print_state(self) -> None:
        """Prints state that is lost when the instances end."""
        print(f"disks, percent: {self.used_percents()}")
        for instance in self.serving()[:1]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                print(self.storage_node("status", "--node", instance.ip, seconds=20.0).stdout, flush=True)

    def _write_record(self) -> None:
        (self.folder / "journal").write_text("\n".join(self.journal.lines()) + "\n")
        calls = (
            f"{call.at:.2f} {call.instance or 'operator'} {call.action} {call.status}" for call in self.proxy.calls
        )
        (self.folder / "calls").write_text("\n".join(calls) + "\n")


def _members(status: str) -> set[str]:
    nodes = json.loads(status)["nodes"]
    return {str(node["address"]).rsplit(":", 1)[0] for node in nodes}


def _loopback() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
