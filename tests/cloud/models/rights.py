"""The permissions of an instance: the statements of its role in the template of deploy/aws.

So every scenario tests that the template grants exactly what is needed: an action that the role lacks is denied, and a
permission that no instance used is reported at the end. Only actions are modelled, not resources and conditions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rights:
    """Allowed actions, as patterns of IAM such as `autoscaling:Describe*`."""

    actions: tuple[str, ...]

    def allow(self, action: str) -> bool:
        return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in self.actions)

    def unused(self, used: Iterable[str]) -> list[str]:
        seen = [action.lower() for action in used]
        return [pattern for pattern in self.actions if not fnmatch.filter(seen, pattern.lower())]


EVERYTHING = Rights(("*",))
SERVICES = {
    "monitoring": "cloudwatch",
    "autoscaling": "autoscaling",
    "ec2": "ec2",
    "secretsmanager": "secretsmanager",
}


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
    """AWS's message for a denied action."""
    return (
        f"User: {principal} is not authorized to perform: {action} "
        f"because no identity-based policy allows the {action} action"
    )
