"""Clients that use all nodes of a pool whose size changes. The events of the API tell them which nodes there are, as they
would tell any program.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence

from .clients import Client, Reply, connect
from .plans import RetryRule

# Longer than the pause between two signs of life of a node's events.
LISTEN_SECONDS = 30.0
LISTEN_AGAIN_SECONDS = 0.1


class Membership:
    """The addresses of the nodes that serve. A thread keeps them current while the process lives."""

    def __init__(self, first: Sequence[str]):
        self.nodes = tuple(first)
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self) -> None:
        """Listens at one node after the other: each one's events end when it leaves."""
        at = 0
        while True:
            try:
                self.listen(self.nodes[at % len(self.nodes)])
            except (OSError, http.client.HTTPException, ValueError):
                # It has left or does not answer, or a line was cut off: the next node tells all members.
                pass
            at += 1
            time.sleep(LISTEN_AGAIN_SECONDS)

    def listen(self, node: str) -> None:
        connection = connect(node, LISTEN_SECONDS)
        try:
            connection.request("GET", "/api/events")
            answer = connection.getresponse()
            while answer.status == 200 and (line := answer.readline()):
                self.nodes = serving(line) or self.nodes
        finally:
            connection.close()


def serving(line: bytes) -> tuple[str, ...]:
    """The addresses of the nodes that serve, from a line of the events; empty if the line names none. Pure."""
    if not line.startswith(b"data:"):
        return ()
    members = json.loads(line.removeprefix(b"data:"))["members"]
    return tuple(member["files"] for member in members if member["state"] == "up")


class RovingClient(Client):
    """Sends each operation to the next node of the pool, over one kept connection to each."""

    def __init__(self, membership: Membership, first: int = 0, rule: RetryRule = RetryRule()):
        super().__init__(membership.nodes, first, rule)
        self.membership = membership
        self.kept: dict[str, http.client.HTTPConnection] = {}

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        self.go_on()
        return super().request(method, path, body, headers)

    def go_on(self) -> None:
        """Puts the connection aside, and takes that to the next node, if there is one already."""
        if self.connection is not None:
            self.kept[self.nodes[self.at]] = self.connection
        self.forget_those_that_left()
        self.nodes = self.membership.nodes
        self.at = (self.at + 1) % len(self.nodes)
        self.connection = self.kept.pop(self.nodes[self.at], None)

    def forget_those_that_left(self) -> None:
        for node in self.kept.keys() - set(self.membership.nodes):
            self.kept.pop(node).close()
