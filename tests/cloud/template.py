"""Reads the template of deploy/aws for tests: the user data of instances, and their permissions.

It evaluates only the part of CloudFormation that the user data needs: Ref, Sub, Base64, If, and conditions made of
Equals and Not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[2] / "deploy" / "aws" / "chordfs.yaml"
UNITS = PATH.parents[1] / "node"


def load(path: Path = PATH) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=_Loader)
    return loaded


def user_data(changes: Mapping[str, object], extra: Mapping[str, object]) -> str:
    """The template's user data for these parameters; `extra` are settings without a parameter, such as CHORDFS_NAME."""
    template = load()
    parameters = {name: found.get("Default", "") for name, found in template["Parameters"].items()}
    unknown = set(changes) - set(parameters)
    if unknown:
        raise KeyError(f"the template has no parameters {sorted(unknown)}")
    parameters.update(changes)
    data = template["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    text = _resolve(data, parameters, template["Conditions"])
    lines = "".join(f"{name}={value}\n" for name, value in extra.items())
    return str(text).replace("EOT\nsystemctl", f"{lines}EOT\nsystemctl")


def _resolve(value: Any, parameters: Mapping[str, Any], conditions: Mapping[str, Any]) -> Any:
    def of(inner: Any) -> Any:
        return _resolve(inner, parameters, conditions)

    match value:
        case {"Ref": name}:
            return parameters[name]
        case {"Fn::Base64": inner}:
            return of(inner)
        case {"Fn::Equals": [left, right]}:
            return str(of(left)) == str(of(right))
        case {"Fn::Not": [inner]}:
            return not of(inner)
        case {"Fn::If": [name, yes, no]}:
            return of(yes if of(conditions[name]) else no)
        case {"Fn::Sub": [text, more]}:
            return _substitute(text, {**parameters, **{name: of(inner) for name, inner in more.items()}})
        case {"Fn::Sub": str(text)}:
            return _substitute(text, parameters)
        case dict():
            raise NotImplementedError(f"the user data uses {list(value)}")
    return value


def _substitute(text: str, values: Mapping[str, Any]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: str(values[match[1]]), text)


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short forms: `!Sub x` is {"Fn::Sub": x}."""


def _tagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _tagged)
