"""Corrects moto's answers: replaces values in the XML by those of the models.

moto puts every instance into a group's first zone, has no instances that wait for a hook, and omits the ARN from the
answer of PutScalingPolicy.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Corrections:
    """The values of the models that differ from moto's."""

    zones: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Instance to lifecycle state, where the state is not moto's."""
    lowered: Mapping[str, int] = field(default_factory=dict)
    """Group to the number by which moto's desired capacity is too high: instances that are leaving."""


def describe_groups(body: bytes, corrections: Corrections) -> bytes:
    root = ET.fromstring(body)
    for group in _all(root, "AutoScalingGroups"):
        _instances(_all(group, "Instances"), corrections)
        name, desired = _child(group, "AutoScalingGroupName"), _child(group, "DesiredCapacity")
        if name is not None and desired is not None and desired.text:
            desired.text = str(int(desired.text) - corrections.lowered.get(name.text or "", 0))
    return _bytes(root)


def describe_group_instances(body: bytes, corrections: Corrections) -> bytes:
    root = ET.fromstring(body)
    _instances(_all(root, "AutoScalingInstances"), corrections)
    return _bytes(root)


def describe_instances(body: bytes, corrections: Corrections) -> bytes:
    """Corrects the zone of each instance in an answer of EC2."""
    root = ET.fromstring(body)
    for instances in root.iter(_in(root, "instancesSet")):
        for item in instances:
            number, placement = _child(item, "instanceId"), _child(item, "placement")
            zone = _child(placement, "availabilityZone") if placement is not None else None
            if number is not None and zone is not None:
                zone.text = corrections.zones.get(number.text or "", zone.text)
    return _bytes(root)


def policy_arn(body: bytes, arn: str) -> bytes:
    root = ET.fromstring(body)
    result = root.find(_in(root, "PutScalingPolicyResult"))
    if result is not None and _child(result, "PolicyARN") is None:
        ET.SubElement(result, _in(root, "PolicyARN")).text = arn
    return _bytes(root)


def _instances(members: Iterator[ET.Element], corrections: Corrections) -> None:
    for member in members:
        number = _child(member, "InstanceId")
        name = number.text if number is not None and number.text else ""
        for tag, values in (("AvailabilityZone", corrections.zones), ("LifecycleState", corrections.waiting)):
            found = _child(member, tag)
            if found is not None:
                found.text = values.get(name, found.text)


def _all(parent: ET.Element, tag: str) -> Iterator[ET.Element]:
    """The members of each list called `tag` below `parent`."""
    for found in parent.iter(_in(parent, tag)):
        yield from found


def _child(parent: ET.Element, tag: str) -> ET.Element | None:
    return parent.find(_in(parent, tag))


def _in(like: ET.Element, tag: str) -> str:
    """The tag in the namespace of another element."""
    return f"{like.tag[: like.tag.index('}') + 1]}{tag}" if like.tag.startswith("{") else tag


def _bytes(root: ET.Element) -> bytes:
    if root.tag.startswith("{"):
        ET.register_namespace("", root.tag[1 : root.tag.index("}")])
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))
