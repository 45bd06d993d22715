"""Network namespaces on one switch, with the cloud's addresses: 172.31.0.0/16, and public ones in front of them.

The switch is a bridge in a namespace of its own, so the machine's own network is not touched, and removing the
namespaces removes everything. It is the internet gateway too: an instance has only its private address, and the gateway
translates the public one in both directions, so no program can listen on a public address. The harness is in none of
the namespaces: it opens sockets there (a socket belongs to the namespace in which it was created, even when a process
outside uses it) and starts processes there.

Names contain the process that created them, as in the Rust harness, with another prefix. The next run ends and removes
the leftovers of a killed one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from . import processes

PREFIX = "chordcloud"
FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000
SWITCH_ADDRESS = "172.31.255.254"

# Packets through the gateway go to a public address. They leave with the sender's public address if it has one, and
# otherwise with the gateway's own.
_GATEWAY = """
table ip gateway {
  map inward { type ipv4_addr : ipv4_addr; }
  map outward { type ipv4_addr : ipv4_addr; }
  chain passing { type nat hook prerouting priority dstnat; dnat to ip daddr map @inward; }
  chain own { type nat hook output priority -100; dnat to ip daddr map @inward; }
  chain leaving {
    type nat hook postrouting priority srcnat;
    snat to ip saddr map @outward;
    masquerade;
  }
}
"""

T = TypeVar("T")


class Namespace:
    """One namespace; `close` ends what runs in it and removes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        _ip("netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *args: str) -> None:
        _ip("-n", self.name, *args)

    def command(self, *args: str) -> list[str]:
        """The command line that runs `args` here. nsenter becomes the program, so its pid is the program's."""
        return ["nsenter", f"--net={FOLDER / self.name}", "--", *args]

    def set(self, name: str, value: str) -> None:
        """Sets a kernel setting below /proc/sys/net: a thread sees the settings of its own namespace."""
        self._inside(lambda: Path("/proc/sys/net", name).write_text(value))

    def filter(self, rules: str) -> None:
        """Executes rules of nft(8)."""
        done = subprocess.run(self.command("nft", "-f", "-"), input=rules, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"nft in {self.name}: {done.stderr.strip()} (this needs root and nftables)")

    def listen(self, address: str, port: int) -> socket.socket:
        def bind() -> socket.socket:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(128)
            return listener

        return self._inside(bind)

    def connect(self, address: str, port: int, seconds: float) -> socket.socket:
        made = self._inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.settimeout(seconds)
        try:
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def pids(self) -> list[int]:
        return _pids(self.name)

    def kill(self) -> None:
        """Kills all processes here, and waits until they have ended."""
        processes.end(self.pids, [signal.SIGKILL])

    def close(self) -> None:
        self.kill()
        _ip("netns", "del", self.name)

    def _inside(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread that has entered the namespace; the thread ends with it."""
        result: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                with (FOLDER / self.name).open() as namespace:
                    if _LIBC.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"entering the namespace {self.name}")
                result.append(work())
            except BaseException as error:  # The waiting thread raises it.
                failure.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]


class Network:
    """The switch, and the address at which the cloud's endpoint is."""

    def __init__(self) -> None:
        remove_leftovers()
        self.tag = f"{PREFIX}-{os.getpid()}-{processes.started(os.getpid())}"
        self.switch = Namespace(f"{self.tag}-switch")
        self._cables = 0
        self.switch.ip("link", "add", "switch", "type", "bridge")
        self.switch.ip("addr", "add", f"{SWITCH_ADDRESS}/16", "dev", "switch")
        self.switch.ip("link", "set", "switch", "up")
        # The kernel translates public addresses only if it has a route to them.
        self.switch.ip("route", "add", "default", "dev", "switch")
        self.switch.set("ipv4/ip_forward", "1")
        for name in ("all", "switch"):
            self.switch.set(f"ipv4/conf/{name}/send_redirects", "0")
        # Packets that the bridge only switches between private addresses must not pass the gateway's rules.
        if Path("/proc/sys/net/bridge").exists():
            self.switch.set("bridge/bridge-nf-call-iptables", "0")
        self.switch.filter(_GATEWAY)

    def attach(self, name: str, address: str, public: str | None = None) -> Namespace:
        self._cables += 1
        cable = f"cable{self._cables}"
        space = Namespace(f"{self.tag}-{name}")
        space.ip("link", "add", "eth0", "type", "veth", "peer", "name", cable, "netns", self.switch.name)
        space.ip("addr", "add", f"{address}/16", "dev", "eth0")
        space.ip("link", "set", "eth0", "up")
        space.ip("route", "add", "default", "via", SWITCH_ADDRESS)
        if public:
            self.switch.filter(f"add element ip gateway inward {{ {public} : {address} }}")
            self.switch.filter(f"add element ip gateway outward {{ {address} : {public} }}")
        self.switch.ip("link", "set", "dev", cable, "master", "switch", "up")
        return space

    def close(self) -> None:
        self.switch.close()


def remove_leftovers() -> None:
    """Removes the namespaces of killed runs and everything in them. Two runs may do this at once."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        _, pid, started, *_ = path.name.split("-")
        if processes.started(int(pid)) == started:
            continue
        processes.end(lambda name=path.name: _pids(name), [signal.SIGKILL])  # type: ignore[misc]
        subprocess.run(["ip", "netns", "del", path.name], stderr=subprocess.DEVNULL, check=False)


def _pids(name: str) -> list[int]:
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def _ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()} (this needs root and iproute2)")


_LIBC = ctypes.CDLL(None, use_errno=True)
