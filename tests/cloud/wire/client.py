"""A client of the query protocol: the SDK for Python uses another protocol for CloudWatch."""

from __future__ import annotations

import http.client
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping

_VERSIONS = {"autoscaling": "2011-01-01", "ec2": "2016-11-15", "monitoring": "2010-08-01"}


class Failed(Exception):
    """The service's answer was an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


def headers_for(service: str, region: str, access_key: str) -> dict[str, str]:
    scope = f"{access_key}/20260101/{region}/{service}/aws4_request"
    return {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
    }


def call(
    endpoint: str, service: str, action: str, params: Mapping[str, str], region: str, access_key: str
) -> ET.Element:
    """Returns the answer without its XML namespace, so that `find("AlarmName")` works."""
    form = {"Action": action, "Version": _VERSIONS[service], **params}
    address = urllib.parse.urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=30)
    try:
        body = urllib.parse.urlencode(form)
        connection.request("POST", "/", body, headers_for(service, region, access_key))
        answer = connection.getresponse()
        root = _plain(answer.read())
    finally:
        connection.close()
    if answer.status >= 300:
        raise Failed(answer.status, _text(root, "Code"), _text(root, "Message"))
    return root


def _plain(body: bytes) -> ET.Element:
    root = ET.fromstring(body)
    for element in root.iter():
        element.tag = element.tag.rsplit("}")[-1]
    return root


def _text(root: ET.Element, tag: str) -> str:
    found = next(root.iter(tag), None)
    return (found.text or "") if found is not None else ""
