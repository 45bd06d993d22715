"""A ring of real storage-node processes, each on its own loopback address with the standard ports.

A process is signalled only by the pid under which it was started here, and ends with this program in any case.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from .waiting import wait_for

SETTLE_SECONDS = 120.0
END_SECONDS = 60.0
DRAIN_SECONDS = 300.0
ANSWER_SECONDS = 10.0
# prctl(2): the kernel sends the signal when the thread that started the process ends, so only the main thread starts.
PR_SET_PDEATHSIG = 1


class Node:
    """A node's address and folder, and its process while there is one."""

    def __init__(self, ip: str, data: Path):
        self.ip = ip
        self.data = data
        self.process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"{self.ip}:5057"

    def check_runs(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            log = self.log.read_text(errors="replace").splitlines()[-20:]
            raise RuntimeError(f"the node {self.ip} ended with {self.process.returncode}; its log:\n" + "\n".join(log))

    @property
    def log(self) -> Path:
        return self.data.with_suffix(".log")

    def admin(self, path: str, body: dict | None = None) -> dict:
        """Asks the administration plane; with a body it changes something, as the operator."""
        request = urllib.request.Request(f"http://{self.ip}:5059{path}")
        if body is not None:
            request.method, request.data = "PUT", json.dumps(body).encode()
            request.add_header("Authorization", "Bearer " + (self.data / "operator-token").read_text().strip())
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)

    def is_ready(self) -> bool:
        self.check_runs()
        try:
            with urllib.request.urlopen(f"http://{self.ip}:5059/readyz", timeout=ANSWER_SECONDS) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False

    def cpu_seconds(self) -> float:
        """What the process has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ring:
    """The nodes of one run, in a temporary folder. Leaving the `with` block kills and removes all of it."""

    def __init__(self, programs: Path):
        self.program = programs / "storage-node"
        self.folder = Path(tempfile.mkdtemp(prefix="chordfs-experiment-"))
        self.network = free_network()
        self.nodes: list[Node] = []
        # Counts those that left too: no address is given twice.
        self.made = 0

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.live():
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def grow(self, count: int) -> None:
        """Adds nodes until there are so many; returns when they form one ring."""
        while len(self.nodes) < count:
            self.made += 1
            node = Node(f"127.{self.network[0]}.{self.network[1]}.{self.made}", self.folder / f"node-{self.made}")
            self.nodes.append(node)
            self.start(node)
            self.wait_ready(node)
        wait_for("the nodes form one ring", SETTLE_SECONDS, self.is_whole)

    def shrink(self, count: int) -> None:
        """Drains the youngest nodes until so many are left; returns when these form one ring."""
        while len(self.nodes) > count:
            self.drain(self.nodes[-1])
        wait_for("the nodes form one ring", SETTLE_SECONDS, self.is_whole)

    def drain(self, node: Node) -> None:
        """Takes a node out by `storage-node drain`, also if fewer than three stay."""
        token = str(node.data / "operator-token")
        options = ("--allow-fewer-copies", "--node", node.address, "--token-file", token)
        done = self.command("drain", *options, seconds=DRAIN_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(f"storage-node drain --node {node.address}: {done.stderr.strip()}")
        node.process.wait(END_SECONDS)
        node.process = None
        self.nodes.remove(node)

    def start(self, node: Node, alone: bool = False) -> None:
        """Starts a node, new or with its old data, without waiting."""
        command = [str(self.program), "run", "--insecure", "--data", str(node.data), "--ip", node.ip]
        others = [] if alone else [other for other in self.live() if other is not node]
        if others:
            command += ["--join", others[0].address]
        node.data.mkdir(exist_ok=True)
        with node.log.open("a") as log:
            node.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, preexec_fn=end_with_parent
            )

    def wait_ready(self, node: Node) -> None:
        wait_for(f"the node {node.ip} is ready", SETTLE_SECONDS, node.is_ready)

    def kill(self, node: Node) -> None:
        """`kill -9`."""
        node.process.kill()
        node.process.wait()
        node.process = None

    def stop(self, node: Node) -> None:
        """SIGTERM; returns when the process has ended by itself."""
        node.process.terminate()
        node.process.wait(END_SECONDS)
        node.process = None

    def live(self) -> list[Node]:
        return [node for node in self.nodes if node.process is not None]

    def command(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess:
        """A command of `storage-node` to its end, whatever its exit code."""
        return subprocess.run(
            [str(self.program), *arguments], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )

    def listing(self, node: Node) -> str:
        """What `storage-node ls` prints."""
        done = self.command("ls", "--node", node.address)
        if done.returncode != 0:
            raise ConnectionError(f"storage-node ls --node {node.address}: {done.stderr.strip()}")
        return done.stdout

    def status(self) -> dict:
        """The whole ring, as a live node sees it."""
        return self.live()[0].admin("/ring")

    def positions(self) -> dict[str, int]:
        return {node["address"]: node["id"] for node in self.status()["nodes"]}

    def is_whole(self) -> bool:
        """Whether each node's successor and predecessor are the next and the previous live node by position."""
        neighbours = [node.admin("/status")["neighbours"] for node in self.live()]
        neighbours.sort(key=lambda one: one["node"]["id"])
        ids = [one["node"]["id"] for one in neighbours]
        if len(ids) == 1:
            return True
        return all(
            one["successors"]
            and one["successors"][0]["id"] == ids[(at + 1) % len(ids)]
            and (one["predecessor"] or {}).get("id") == ids[at - 1]
            for at, one in enumerate(neighbours)
        )

    def voters(self) -> list[Node]:
        addresses = self.status()["namespace"]["voters"]
        return [node for node in self.nodes if node.address in addresses]

    def wait_for_voters(self, count: int) -> list[Node]:
        wait_for(f"{count} voters", SETTLE_SECONDS, lambda: len(self.voters()) == count)
        return self.voters()

    def leader(self) -> Node:
        """The live node that leads the namespace."""

        def find() -> Node | None:
            address = self.status()["namespace"]["leader"]
            return next((node for node in self.live() if node.address == address), None)

        return wait_for("the namespace has a leader", SETTLE_SECONDS, find)

    def cpu_seconds(self) -> float:
        return sum(node.cpu_seconds() for node in self.live())


def free_network() -> tuple[int, int]:
    """The middle of addresses 127.A.B.x that no other ring uses: ours by its pid, as the Rust harness does, and above its
    numbers."""
    first = 20 + os.getpid() % 200
    for second in range(128, 255):
        with socket.socket() as probe:
            try:
                probe.bind((f"127.{first}.{second}.1", 5057))
            except OSError:
                continue
            return first, second
    raise RuntimeError(f"every network 127.{first}.128 to 127.{first}.254 is in use: end the nodes that use them")


def end_with_parent(how: signal.Signals = signal.SIGKILL) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)
