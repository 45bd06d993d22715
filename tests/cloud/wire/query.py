"""AWS's query protocol, as EC2, Auto Scaling and CloudWatch speak it: a form goes in, XML comes out.

Secrets Manager speaks another one, JSON, of which only the action is read here.

    POST /   Action=PutMetricData&Version=...&MetricData.member.1.MetricName=...     (EC2 leaves `member` out)
    Authorization: AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, ...

The signature is not checked: the access keys here have no secrets.
"""

from __future__ import annotations

import gzip
import json
import re
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

SERVICES = ("autoscaling", "ec2", "monitoring")
JSON_SERVICES = ("secretsmanager",)
_SCOPE = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
_NAMESPACES = {
    "autoscaling": "http://autoscaling.amazonaws.com/doc/2011-01-01/",
    "monitoring": "http://monitoring.amazonaws.com/doc/2010-08-01/",
    "ec2": "http://ec2.amazonaws.com/doc/2016-11-15/",
}


class Unreadable(ValueError):
    """The request is not one of the query protocol; the text gives the reason."""


@dataclass(frozen=True)
class Request:
    service: str
    action: str
    access_key: str
    region: str
    params: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, default: str = "") -> str:
        return self.params.get(name, default)

    def optional(self, name: str) -> str | None:
        return self.params.get(name)

    def members(self, prefix: str) -> list[Mapping[str, str]]:
        """The list `prefix.member.1...`; each member as its parameters, with a plain value under `""`."""
        found: dict[int, dict[str, str]] = {}
        pattern = re.compile(re.escape(prefix) + r"\.(?:member\.)?(\d+)(?:\.(.+))?$")
        for name, value in self.params.items():
            if match := pattern.match(name):
                found.setdefault(int(match[1]), {})[match[2] or ""] = value
        return [found[number] for number in sorted(found)]

    def values(self, prefix: str) -> list[str]:
        return [member[""] for member in self.members(prefix) if "" in member]

    def inside(self, params: Mapping[str, str]) -> Request:
        """Wraps a member of a list as a request, for the same accessors."""
        return Request(self.service, self.action, self.access_key, self.region, params)


@dataclass(frozen=True)
class Error:
    """An error as the answer. `status` is HTTP's."""

    code: str
    message: str
    status: int = 400


def parse(headers: Mapping[str, str], body: bytes) -> Request:
    """Parses a request. Header names are in lower case."""
    scope = _SCOPE.search(headers.get("authorization", ""))
    if not scope:
        raise Unreadable("it has no signature of AWS's version 4")
    key, region, service = scope.groups()
    if service in JSON_SERVICES:
        return Request(service, headers.get("x-amz-target", "").rpartition(".")[2], key, region)
    if service not in SERVICES:
        raise Unreadable(f"it is for the service {service!r}, which this cloud does not have")
    kind = headers.get("content-type", "")
    if not kind.startswith("application/x-www-form-urlencoded"):
        raise Unreadable(f"its content is {kind!r}; this cloud speaks the query protocol only")
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    params = dict(urllib.parse.parse_qsl(body.decode("utf-8"), keep_blank_values=True))
    return Request(service, params.pop("Action", ""), key, region, params)


def answer(request: Request, result: str = "") -> bytes:
    """A successful answer. `result` is the XML inside the action's result."""
    namespace, request_id, action = _NAMESPACES[request.service], uuid.uuid4(), request.action
    return (
        f'<{action}Response xmlns="{namespace}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def error_body(service: str, error: Error) -> bytes:
    if service in JSON_SERVICES:
        return json.dumps({"__type": error.code, "message": error.message}).encode()
    code, message, request_id = escape(error.code), escape(error.message), uuid.uuid4()
    inner = f"<Code>{code}</Code><Message>{message}</Message>"
    if service == "ec2":
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        ).encode()
    kind = "Sender" if error.status < 500 else "Receiver"
    return (
        f'<ErrorResponse xmlns="{_NAMESPACES.get(service, "")}"><Error><Type>{kind}</Type>{inner}</Error>'
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()
