"""Programs that use the ring over HTTP: the API of port 5058 with a rule for retries, and several of them at once.

Each client is a process of its own with one connection to a node at a time, so clients do not wait for each other.
"""

from __future__ import annotations

import base64
import http.client
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from multiprocessing.connection import Connection
from typing import Any

from .plans import RetryRule

# With `fork` a client gets its arguments without copying them into a message.
CONTEXT = multiprocessing.get_context("fork")
FILES_PORT = 5058
BOUNDARY = "chordfs-experiment-7e2c41"


class OperationFailed(Exception):
    """An operation is given up: its time is up, or no repetition can help."""


class AttemptFailed(Exception):
    """One attempt failed in a way that the next may not."""


@dataclass(frozen=True)
class Reply:
    headers: Message
    content: bytes


class Client:
    """One client of the API. It stays with a node until an attempt fails there."""

    def __init__(self, nodes: Sequence[str], first: int = 0, rule: RetryRule = RetryRule()):
        self.nodes = nodes
        self.at = first % len(nodes)
        self.rule = rule
        self.connection: http.client.HTTPConnection | None = None
        self.failed_attempts = 0

    def read(self, key: str) -> bytes:
        answer = json.loads(self.request("POST", f"/api/key/{key}").content)
        content = answer["content"]
        return base64.b64decode(content) if answer["encoding"] == "base64" else content.encode()

    def write(self, key: str, content: bytes) -> None:
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="key"\r\n\r\n{key}\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        self.request("POST", "/api/upload", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})

    def list_keys(self) -> list[str]:
        return json.loads(self.request("POST", "/api/list_keys").content)["keys"]

    def validators(self, key: str) -> tuple[str, str, str]:
        """Length, tag and time of a file, as the namespace has them."""
        headers = self.request("HEAD", f"/{key}").headers
        return str(headers["Content-Length"]), str(headers["ETag"]), str(headers["Last-Modified"])

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """An answer with status 200; attempts are repeated by the rule."""
        deadline, failures = time.monotonic() + self.rule.deadline_seconds, 0
        while True:
            try:
                return self.attempt(method, path, body, headers or {})
            except (OSError, http.client.HTTPException, AttemptFailed) as error:
                failures += 1
                self.failed_attempts += 1
                self.turn_to_next_node()
                pause = self.rule.pause(failures)
                if time.monotonic() + pause > deadline:
                    raise OperationFailed(f"{method} {path}: {failures} attempts failed, the last with: {error}") from error
                time.sleep(pause)

    def attempt(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        if self.connection is None:
            self.connection = connect(self.nodes[self.at], self.rule.attempt_seconds)
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status == 200:
            return Reply(answer.headers, content)
        text = f"{method} {path} at {self.nodes[self.at]}: {answer.status} {content[:200]!r}"
        if answer.status == 408 or answer.status >= 500:
            raise AttemptFailed(text)
        raise OperationFailed(text)

    def turn_to_next_node(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None
        self.at = (self.at + 1) % len(self.nodes)


def connect(node: str, seconds: float) -> http.client.HTTPConnection:
    """A connection to the files of a node, IP or IP:PORT, whose waits end after so many seconds."""
    ip, _, port = node.partition(":")
    return http.client.HTTPConnection(ip, int(port or FILES_PORT), timeout=seconds)


class Crowd:
    """Processes that do their work at once and send back one value each."""

    def __init__(self, work: Callable[..., Any], arguments: Sequence[tuple]):
        self.workers = [self.begin(work, one) for one in arguments]

    def begin(self, work: Callable[..., Any], arguments: tuple) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=report, args=(sender, work, arguments), daemon=True)
        process.start()
        sender.close()
        return process, receiver

    def results(self, seconds: float) -> list[Any]:
        """What each returned, within so many seconds; the first failure is raised."""
        deadline = time.monotonic() + seconds
        values = [receive(receiver, deadline) for _, receiver in self.workers]
        for process, _ in self.workers:
            process.join(10)
        return values

    def is_done(self) -> bool:
        return all(receiver.poll() for _, receiver in self.workers)


def report(sender: Connection, work: Callable[..., Any], arguments: tuple) -> None:
    try:
        sender.send((True, work(*arguments)))
    except Exception as error:  # Whatever it is, the parent has to know.
        sender.send((False, f"{type(error).__name__}: {error}"))


def receive(receiver: Connection, deadline: float) -> Any:
    if not receiver.poll(max(0.0, deadline - time.monotonic())):
        raise TimeoutError("a client did not finish in time")
    succeeded, value = receiver.recv()
    if not succeeded:
        raise RuntimeError(f"a client failed: {value}")
    return value
