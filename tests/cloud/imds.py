"""One instance's metadata service (version 2 only), at its real address inside the instance's namespace.

Source: EC2's user guide, "Use the Instance Metadata Service to access instance metadata". A token comes from PUT
/latest/api/token with its time to live; a GET without one is 401, an unknown path 404.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from .moto import ACCOUNT, REGION
from .wire.http import HttpRequest, HttpResponse

ADDRESS, PORT = "169.254.169.254", 80
ROLE = "chordfs-node"
_TTL, _TOKEN = "x-aws-ec2-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token"
_LONGEST_TTL = 21_600


@dataclass
class Identity:
    """The contents of the service, including the notices that a scenario has announced."""

    instance: str
    private_ip: str
    public_ip: str | None
    zone: str
    access_key: str
    target_state: Callable[[], str]
    spot_action: dict[str, str] | None = None
    rebalance: dict[str, str] | None = None
    has_role: bool = True
    is_off: bool = False
    tokens: dict[str, float] = field(default_factory=dict)

    def announce_interruption(self, seconds: float) -> None:
        self.spot_action = {"action": "terminate", "time": _stamp(seconds)}

    def recommend_rebalance(self) -> None:
        self.rebalance = {"noticeTime": _stamp(0)}

    def handle(self, request: HttpRequest) -> HttpResponse:
        if self.is_off:
            return HttpResponse(403, b"Forbidden")
        if request.path == "/latest/api/token":
            return self._token(request)
        if self.tokens.get(request.headers.get(_TOKEN, ""), 0.0) < time.monotonic():
            return HttpResponse(401, b"Unauthorized")
        if request.method != "GET":
            return HttpResponse(405)
        found = self._look_up(request.path.removeprefix("/latest/").rstrip("/"))
        return HttpResponse(404, b"Not Found") if found is None else HttpResponse(200, found.encode())

    def _token(self, request: HttpRequest) -> HttpResponse:
        ttl = request.headers.get(_TTL, "")
        if request.method != "PUT" or not ttl.isdigit() or not 1 <= int(ttl) <= _LONGEST_TTL:
            return HttpResponse(400, b"Bad Request")
        token = secrets.token_urlsafe(40)
        self.tokens[token] = time.monotonic() + int(ttl)
        return HttpResponse(200, token.encode(), headers={"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": ttl})

    def _look_up(self, path: str) -> str | None:
        if path == "dynamic/instance-identity/document":
            return json.dumps(self._document())
        if self.has_role and path == "meta-data/iam/security-credentials":
            return ROLE
        if self.has_role and path == f"meta-data/iam/security-credentials/{ROLE}":
            return json.dumps(self._credentials())
        return self._plain().get(path)

    def _plain(self) -> dict[str, str | None]:
        return {
            "meta-data/instance-id": self.instance,
            "meta-data/instance-type": "t3.micro",
            "meta-data/local-ipv4": self.private_ip,
            "meta-data/public-ipv4": self.public_ip,
            "meta-data/placement/availability-zone": self.zone,
            "meta-data/placement/region": REGION,
            "meta-data/autoscaling/target-lifecycle-state": self.target_state(),
            "meta-data/spot/instance-action": json.dumps(self.spot_action) if self.spot_action else None,
            "meta-data/events/recommendations/rebalance": json.dumps(self.rebalance) if self.rebalance else None,
        }

    def _document(self) -> dict[str, object]:
        return {
            "accountId": ACCOUNT,
            "availabilityZone": self.zone,
            "instanceId": self.instance,
            "instanceType": "t3.micro",
            "privateIp": self.private_ip,
            "region": REGION,
            "version": "2017-09-30",
        }

    def _credentials(self) -> dict[str, str]:
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": _stamp(0),
            "Expiration": _stamp(6 * 3600),
            "AccessKeyId": self.access_key,
            "SecretAccessKey": "none",
            "Token": "token-of-" + self.instance,
        }


def _stamp(seconds_from_now: float) -> str:
    then = datetime.now(UTC) + timedelta(seconds=seconds_from_now)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")
