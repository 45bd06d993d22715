"""A pool of real nodes on this machine that resizes itself: `storage-node pool --local` and `storage-node autoscaler`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .nodes import SETTLE_SECONDS, Node, end_with_parent, free_network
from .waiting import wait_for

# A pool ends its nodes, and kills those that take half a minute.
END_SECONDS = 60.0


class LocalPool:
    """The pool and its scaler, in a temporary folder. Leaving the `with` block ends both and the nodes, and removes all of it."""

    def __init__(self, programs: Path):
        self.program = programs / "storage-node"
        self.folder = Path(tempfile.mkdtemp(prefix="chordfs-experiment-"))
        network = free_network()
        # The oldest node. A pool drains the youngest first, so this one stays.
        self.first = Node(f"127.{network[0]}.{network[1]}.1", self.folder / "pool" / "1")
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: object) -> None:
        # The scaler first: the pool that it steers ends after it.
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.kill_remaining_nodes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_remaining_nodes(self) -> None:
        """Only a pool that was killed leaves some."""
        path = self.first.data.parent / "pool.json"
        if self.processes.get("pool") is None or self.processes["pool"].returncode == 0 or not path.exists():
            return
        for node in json.loads(path.read_text())["nodes"]:
            if node["pid"] > 0:
                try:
                    os.kill(node["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def begin(self, largest: int) -> None:
        """Starts the pool with one node; returns when it is ready."""
        data = ("--data", str(self.first.data.parent))
        self.start("pool", "--local", "--min", "1", "--max", str(largest), *data, "--ip", self.first.ip)
        wait_for("the first node of the pool is ready", SETTLE_SECONDS, self.is_ready)

    def is_ready(self) -> bool:
        self.check_runs()
        return self.first.is_ready()

    def begin_scaler(self, period_seconds: float, cooldown_seconds: float) -> None:
        times = ("--period", f"{period_seconds:g}s", "--cooldown", f"{cooldown_seconds:g}s")
        token = ("--token-file", str(self.first.data / "operator-token"))
        self.start("autoscaler", "--join", self.first.address, *times, *token)

    def start(self, name: str, *arguments: str) -> None:
        with self.log(name).open("a") as log:
            self.processes[name] = subprocess.Popen(
                [str(self.program), name, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                # A pool that is killed leaves its nodes running, so it is asked to end.
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def check_runs(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-20:])
                raise RuntimeError(f"storage-node {name} ended with {process.returncode}; its log:\n{log}")
