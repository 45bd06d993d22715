"""Injected faults: missing rights, throttling, an expired token, skewed clocks, no answer."""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass

from .models import rights
from .wire.query import Error, Request

SILENCE = "silence"


@dataclass
class Fault:
    """Applies to requests whose `service:Action` matches the pattern, from one instance or from all, `times` times. It
    never applies to operators and mounts."""

    pattern: str
    kind: str
    instance: str | None = None
    times: int | None = None


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, pattern: str, kind: str, instance: str | None = None, times: int | None = None) -> Fault:
        if kind not in _ANSWERS and kind != SILENCE:
            raise ValueError(f"no such fault: {kind}")
        fault = Fault(pattern, kind, instance, times)
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        with self._lock:
            self._faults.remove(fault)

    def strike(self, request: Request, instance: str | None, principal: str) -> None | str | Error:
        """Returns the fault for a request: None without one, SILENCE for a connection that breaks, or an error."""
        if instance is None:
            return None
        action = f"{rights.SERVICES[request.service]}:{request.action}"
        with self._lock:
            for fault in self._faults:
                if fault.instance not in (None, instance) or not fnmatch.fnmatchcase(action, fault.pattern):
                    continue
                if fault.times == 0:
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return SILENCE if fault.kind == SILENCE else error(fault.kind, request, principal)
        return None


def error(kind: str, request: Request, principal: str) -> Error:
    """The fault as the service reports it: EC2 has other codes than the rest."""
    action = f"{rights.SERVICES[request.service]}:{request.action}"
    code, ec2_code, status, message = _ANSWERS[kind]
    text = rights.denied(principal, action) if kind == "denied" else message
    return Error(ec2_code if request.service == "ec2" else code, text, status)


_ANSWERS = {
    "denied": ("AccessDenied", "UnauthorizedOperation", 403, ""),
    "throttled": ("Throttling", "RequestLimitExceeded", 400, "Rate exceeded"),
    "expired": ("ExpiredToken", "RequestExpired", 403, "The security token included in the request is expired"),
    "skewed": (
        "SignatureDoesNotMatch",
        "AuthFailure",
        403,
        "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z (20260101T001500Z - 5 min.)",
    ),
    "internal": ("InternalFailure", "InternalError", 500, "An internal error has occurred"),
}
