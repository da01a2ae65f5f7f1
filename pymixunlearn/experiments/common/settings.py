"""Settings by dotted name: from YAML text, from ``name=value``, merged in order of precedence.

A plain name is a field of the method's config; ``initial.`` and ``retrain.`` address the training of the initial model
and of Retrain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.methods import MethodConfig, RetrainConfig
from pymixunlearn.training import MeanTeacherConfig, TrainConfig

TRAININGS = ("initial", "retrain")
"""The prefixes that address a training instead of the method."""


def parse_settings(text: str, source: str) -> dict[str, Any]:
    """Read YAML text into dotted names and values; a mapping under ``initial`` or ``retrain`` is flattened.

    Args:
        text: YAML (or JSON, which is YAML).
        source: What the text came from, for error messages.

    Raises:
        UserError: The text is not YAML, or not a mapping.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source} is not valid YAML: {reason}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{source} holds {a_type(data)}; expected 'name: value' lines")
    return flat_settings(data)


def flat_settings(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return settings by dotted name; a mapping under ``initial`` or ``retrain`` is flattened."""
    settings: dict[str, Any] = {}
    for name, value in data.items():
        if name in TRAININGS and isinstance(value, dict):
            settings.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            settings[str(name)] = value
    return settings


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Read ``name=value`` items; of two for one name the later wins.

    Raises:
        BadRequest: An item has no ``=`` or no name.
    """
    settings = {}
    for item in assignments:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise BadRequest(f"'{item}' does not read as a setting; expected name=value, for example epochs=5")
        settings[name.strip()] = value.strip()
    return settings


def split_by_target(settings: Mapping[str, Any], method_fields: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Sort settings by what they address: ``{"method": {...}, "initial": {...}, "retrain": {...}}``.

    Args:
        settings: Dotted names to values.
        method_fields: Every setting that the method has.

    Raises:
        BadRequest: A plain name is no setting of the method. (The trainings check their own names.)
    """
    targets: dict[str, dict[str, Any]] = {"method": {}, **{prefix: {} for prefix in TRAININGS}}
    fields = list(method_fields)
    for name, value in settings.items():
        prefix, dot, rest = name.partition(".")
        if dot and prefix in TRAININGS:
            targets[prefix][rest] = value
        else:
            # With what stands behind the dot, so that a mistyped prefix has the right one as its nearest name.
            check_name("setting", name, [*fields, *(f"{of}.{rest if dot else 'NAME'}" for of in TRAININGS)])
            targets["method"][name] = value
    return targets


def build_config(config_class: type[MethodConfig], values: Mapping[str, Any]) -> MethodConfig:
    """Return a method's settings, a bad value being a :class:`BadRequest`."""
    try:
        return config_class.from_mapping(values)
    except UserError as error:
        raise BadRequest(str(error)) from error


def build_training(defaults: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return training settings: ``defaults`` with ``values`` (possibly strings) in place; None takes the default.

    Raises:
        BadRequest: A name is unknown or a value out of range.
    """
    # The settings of the method Retrain are those of any training, and read strings.
    parsed = build_config(RetrainConfig, values)
    try:
        return defaults.replaced({name: getattr(parsed, name) for name in values})
    except UserError as error:
        raise BadRequest(str(error)) from error


def read_training(saved: Mapping[str, Any]) -> TrainConfig:
    """Return training settings as a run's config.json holds them, those of a :class:`MeanTeacherConfig` included."""
    return (MeanTeacherConfig if "consistency" in saved else TrainConfig)(**saved)
