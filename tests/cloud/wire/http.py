"""A small HTTP server on a given socket, which may belong to another network namespace."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class HttpRequest:
    """Header names in lower case; `path` without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpResponse:
    status: int
    body: bytes = b""
    kind: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


class Server:
    """Serves until `close`; each connection has a thread."""

    def __init__(self, listener: socket.socket, handle: Callable[[HttpRequest], HttpResponse | None]) -> None:
        """`handle` returns None to drop the connection without an answer."""

        class Handler(_Handler):
            respond = staticmethod(handle)

        self._server = _OnSocket(listener, Handler)
        self.port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _OnSocket(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_address = listener.getsockname()
        self.server_name, self.server_port = listener.getsockname()[:2]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores broken connections: these tests kill clients in the middle of requests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    respond: Callable[[HttpRequest], HttpResponse | None]

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        answer = self.respond(HttpRequest(self.command, self.path.split("?")[0], headers, body))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {"Content-Type": answer.kind, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_PUT = do_POST = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: the proxy records all requests."""
