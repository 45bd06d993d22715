"""What an instance may do: the statements of the role that the template in deploy/aws gives it.

So the template's least rights are tested by everything that runs here: an action that the role forgets is denied, and
one that it has and nobody used is told at the end. Resources and conditions are not modelled, only actions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rights:
    """Patterns as in IAM, `autoscaling:Describe*`."""

    actions: tuple[str, ...]

    def allow(self, action: str) -> bool:
        return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in self.actions)

    def unused(self, used: Iterable[str]) -> list[str]:
        seen = [action.lower() for action in used]
        return [pattern for pattern in self.actions if not fnmatch.filter(seen, pattern.lower())]


EVERYTHING = Rights(("*",))
SERVICES = {"monitoring": "cloudwatch", "autoscaling": "autoscaling", "ec2": "ec2"}


def of_template(template: Mapping[str, Any]) -> Rights:
    """The allowed actions of every inline policy of every role in a CloudFormation template."""
    actions: list[str] = []
    for resource in template["Resources"].values():
        if resource["Type"] != "AWS::IAM::Role":
            continue
        for policy in resource["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow":
                    action = statement["Action"]
                    actions.extend([action] if isinstance(action, str) else action)
    if not actions:
        raise ValueError("the template has no role with inline policies")
    return Rights(tuple(actions))


def denied(principal: str, action: str) -> str:
    """What AWS says to the one who may not."""
    return (
        f"User: {principal} is not authorized to perform: {action} "
        f"because no identity-based policy allows the {action} action"
    )
