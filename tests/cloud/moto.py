"""moto's server as a process of its own on a free loopback port, and clients of it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]

from .wire import client
from .wire.http import HttpResponse

REGION = "eu-central-1"
OPERATOR = "AKIAOPERATOR00000000"
ACCOUNT = "123456789012"


class Moto:
    def __init__(self, log: Path) -> None:
        self.port = _free_port()
        self._log = log.open("wb")
        program = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        try:
            self._wait_ready(time.monotonic() + 60)
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sdk(self, service: str) -> Any:
        """The SDK's client of moto itself, without the proxy: for the actions of the models."""
        return sdk(service, self.endpoint)

    def ask(self, service: str, action: str, params: Mapping[str, str]) -> Any:
        return client.call(self.endpoint, service, action, params, REGION, OPERATOR)

    def forward(self, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Forwards a request unchanged. moto closes the connection after each answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            kept = {name: value for name, value in headers.items() if name not in ("connection", "content-length")}
            connection.request("POST", "/", body, kept)
            answer = connection.getresponse()
            kind = answer.headers.get("Content-Type", "text/xml")
            return HttpResponse(answer.status, answer.read(), kind)
        finally:
            connection.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_ready(self, end: float) -> None:
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"moto_server ended with {self._process.returncode}; see {self._log.name}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                if time.monotonic() > end:
                    raise TimeoutError(f"moto_server does not listen; see {self._log.name}") from None
                time.sleep(0.05)


def sdk(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=OPERATOR,
        aws_secret_access_key="none",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
