"""One instance: a namespace, a metadata service, a disk of a given size, and the processes that its user data
started."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import imds, processes
from .journal import Journal
from .netns import Namespace, Network
from .wire.http import Server

GUEST = Path(__file__).parent / "guest"
UNIT = "chordfs-node"
DATA = "srv/chordfs"
# systemd gives a service this long after SIGTERM when a machine is shut down.
STOP_SECONDS = 90.0
SERVING_SECONDS = 120.0


@dataclass(frozen=True)
class Machine:
    """Settings common to all instances of a lab. `units` are the folders of the unit files."""

    binaries: tuple[Path, ...]
    units: tuple[Path, ...]
    environment: Mapping[str, str]
    disk: str
    has_metadata: bool = True


class Instance:
    """Boots when made; `crash` and `shut_down` end it."""

    def __init__(
        self,
        machine: Machine,
        network: Network,
        identity: imds.Identity,
        user_data: str,
        folder: Path,
        journal: Journal,
    ) -> None:
        self.id, self.ip, self.identity = identity.instance, identity.private_ip, identity
        self.folder, self._journal, self._switch = folder, journal, network.switch
        folder.mkdir(parents=True)
        self.ended = False
        self.serving_after: float | None = None
        self.namespace = network.attach(self.id, identity.private_ip, identity.public_ip)
        self._metadata: Server | None = None
        if machine.has_metadata:
            self._metadata = self._serve_metadata()
        else:
            self._no_metadata()
        self._boot(machine, user_data)
        self._watch = threading.Thread(target=self._wait_serving, daemon=True)
        self._watch.start()

    @property
    def log_path(self) -> Path:
        return self.folder / "console.log"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def node(self) -> tuple[int, float] | None:
        """The node's pid, and its start time on the machine's monotonic clock."""
        try:
            pid, begun = (self.folder / UNIT).read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid), float(begun)

    def node_runs(self) -> bool:
        node = self.node()
        return node is not None and processes.started(node[0]) is not None

    def ask(self, path: str, port: int = 5059, seconds: float = 5.0) -> tuple[int, str]:
        """Status and body of a GET, sent from the switch like a request of any other machine."""
        connection = _Connection(self._switch, self.ip, port, seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """The body of a GET, or None if it is not JSON; /healthz answers in JSON with any status."""
        try:
            return json.loads(self.ask(path)[1])
        except ValueError:
            return None

    def serves(self) -> bool:
        return self.ask("/readyz", seconds=1.0)[0] == 200

    def disk_used_percent(self) -> float | None:
        """The disk usage as df(1) counts it, read from outside the instance."""
        node = self.node()
        try:
            disk = os.statvfs(f"/proc/{node[0]}/root/{DATA}") if node else None
        except OSError:
            return None
        if disk is None or disk.f_blocks == 0:
            return None
        used = disk.f_blocks - disk.f_bfree
        return 100.0 * used / (used + disk.f_bavail)

    def run(self, script: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a shell script inside the machine, with the node's disk, /etc and metadata service."""
        node = self.node()
        if node is None:
            raise RuntimeError(f"{self.id} has no node whose namespaces could be entered")
        command = ["nsenter", f"--target={node[0]}", "--net", "--mount", "--", "sh", "-c", script]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=seconds, check=False
        )

    def restart(self) -> None:
        """Kills the node and starts its unit again on the same disk, as after a short power failure. One shell does
        both, because a machine here exists only while a process runs on it."""
        node = self.node()
        assert node
        ended = f'test ! -d /proc/{node[0]} || grep -q "^State:.*Z" /proc/{node[0]}/status'
        start = f"systemctl start {UNIT} >>{self.log_path} 2>&1"
        done = self.run(f"kill -9 {node[0]} && until {ended}; do sleep 0.02; done && {start}")
        if done.returncode:
            raise RuntimeError(f"{self.id} does not restart: {done.stderr}")

    def crash(self) -> None:
        """Kills every process at once and without notice, like a power failure."""
        self.namespace.kill()
        self._journal.record("crashed", instance=self.id)

    def shut_down(self) -> None:
        """Terminates the instance: SIGTERM, after a while SIGKILL, then the machine is removed."""
        if self.ended:
            return
        self.ended = True
        self._boot_process.poll()
        try:
            processes.end(self.namespace.pids, [signal.SIGTERM], STOP_SECONDS)
        except TimeoutError:
            self._journal.record("killed", instance=self.id, why=f"it did not end within {STOP_SECONDS:.0f} s")
        self._remove()

    def destroy(self) -> None:
        """Removes the machine without a shutdown, when the lab closes."""
        self.ended = True
        self._remove()

    def _remove(self) -> None:
        self.namespace.close()
        self._boot_process.wait()
        if self._metadata:
            self._metadata.close()
        self._console.close()
        self._journal.record("gone", instance=self.id)

    def _serve_metadata(self) -> Server:
        self.namespace.ip("addr", "add", f"{imds.ADDRESS}/32", "dev", "lo")
        return Server(self.namespace.listen(imds.ADDRESS, imds.PORT), self.identity.handle)

    def _no_metadata(self) -> None:
        """Blocks the route to the metadata address: through the switch the service of another instance would answer."""
        self.namespace.ip("route", "add", "unreachable", f"{imds.ADDRESS}/32")

    def _boot(self, machine: Machine, user_data: str) -> None:
        script = self.folder / "user-data"
        script.write_text(user_data)
        script.chmod(0o700)
        path = [str(GUEST), *map(str, machine.binaries), os.environ["PATH"]]
        self._environment = {
            "PATH": ":".join(path),
            "HOME": "/root",
            "GUEST_FOLDER": str(self.folder),
            "GUEST_UNITS": ":".join(map(str, machine.units)),
            **machine.environment,
        }
        boot = ["unshare", "--mount", "--propagation", "private", str(GUEST / "boot.sh")]
        command = self.namespace.command(*boot, str(self.folder), machine.disk, str(script))
        self._console = self.log_path.open("wb")
        self._boot_process = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._console, stderr=self._console
        )
        self._journal.record("boot", instance=self.id, ip=self.ip, zone=self.identity.zone)

    def _wait_serving(self) -> None:
        """Records the time from the start of the node's process until it served."""
        end = time.monotonic() + SERVING_SECONDS
        while time.monotonic() < end and not self.ended:
            node = self.node()
            if node and self.serves():
                self.serving_after = time.monotonic() - node[1]
                self._journal.record("serving", instance=self.id, seconds=round(self.serving_after, 2))
                return
            time.sleep(0.05)


class _Connection(http.client.HTTPConnection):
    """A connection from inside a namespace."""

    def __init__(self, space: Namespace, host: str, port: int, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self._space, self._seconds = space, seconds

    def connect(self) -> None:
        self.sock: socket.socket = self._space.connect(self.host, self.port, self._seconds)
