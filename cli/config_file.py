"""``--config FILE``: a YAML file of settings and options, or the config.json of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

_SETTINGS = "mixunlearn_cli.settings"
_REPEATED = (
    *("method", "dataset", "data_dir", "image_size", "seed", "training_seed", "device", "model", "label_aware"),
    *("weights", "model_config"),
    *("max_drop", "forget_history"),
    *("relearn", "tsne", "thumbnails", "png", "follow_links", "skip_unreadable", "validation", "plugin"),
)


def load_config(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Option callback: options from the file become the command's defaults, the rest its settings."""
    if path is None:
        return
    from pymixunlearn.errors import UserError
    from pymixunlearn.experiments.common.settings import parse_settings

    try:
        values = parse_settings(path.read_text("utf-8"), f"'{path}'")
        if "format" in values:
            values = _of_run(values, path, str(ctx.info_name))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise click.BadParameter(f"'{path}' cannot be read: {reason}.", ctx, parameter) from error
    except UserError as error:
        raise click.BadParameter(f"{error}.", ctx, parameter) from error
    options = {option: param for param in ctx.command.params for option in _long_names(param)}
    defaults = {}
    settings = {}
    for name, value in values.items():
        param = options.get(name.replace("_", "-"))
        if param is None:
            settings[name] = value
        elif value is not None and param.name is not None:
            several = isinstance(param, click.Option) and param.multiple
            defaults[param.name] = [str(item) for item in _as_list(value)] if several else value
    ctx.default_map = defaults
    ctx.meta[_SETTINGS] = settings


def settings_of(ctx: click.Context, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a command: those of ``--config``, and ``--set`` on top."""
    from pymixunlearn.errors import UserError
    from pymixunlearn.experiments.common.settings import parse_assignments

    try:
        return {**ctx.meta.get(_SETTINGS, {}), **parse_assignments(assignments)}
    except UserError as error:
        raise click.BadParameter(f"{error}.", ctx, param_hint="'--set'") from error


def _of_run(config: Mapping[str, Any], path: Path, command: str) -> dict[str, Any]:
    """Turn a run's config.json into options and settings that repeat the run, on the split beside it.

    Raises:
        UserError: It is no config.json of this command.
    """
    from pymixunlearn.errors import UserError
    from pymixunlearn.experiments.common.identity import FORMAT

    if config["format"] != FORMAT or config.get("command") != command:
        raise UserError(f"'{path}' is not the config.json of a run of '{command}'")
    options = {name: config[name] for name in _REPEATED if config.get(name) is not None}
    if config.get("dataset_spec"):
        options["dataset"] = config["dataset_spec"]
    if config.get("class_list"):
        options["classes"] = config["class_list"]
    if config.get("architecture_name"):
        options["architecture"] = config["architecture_name"]
    if "task" in config:
        options["split"] = str(path.parent / "split.json")
    # parse_settings has flattened the trainings already.
    trainings = {name: value for name, value in config.items() if name.startswith(("initial.", "retrain."))}
    if command == "unlearn" and not any(name.startswith("retrain.") for name in trainings):
        options["no_retrain"] = True
    if config.get("second_retrain"):
        options["retrain"] = "two"
    return {**options, **config["settings"], **trainings}


def _long_names(param: click.Parameter) -> list[str]:
    """Return the names of an option without dashes, except for --config itself and --help."""
    if not isinstance(param, click.Option) or param.name in ("config", "help", "assignments"):
        return []
    return [option[2:] for option in param.opts if option.startswith("--")]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
