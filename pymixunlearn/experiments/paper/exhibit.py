"""Exhibit: what a YAML file says of a table or figure, at one scale, checked; nothing here imports PyTorch.

A file in this folder is one exhibit; ``scales.yaml`` holds what the exhibits of a scale share: its seeds, its preset,
its data sets. A user's own file has the same form, and may say all of that itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import yaml

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name

Form: TypeAlias = Literal["table", "curves", "densities", "mixes", "ratio", "representations", "sweep", "times"]
FORMS: tuple[str, ...] = get_args(Form)
SUFFIXES = (".yaml", ".yml")
PRETRAINED = "pretrained"
"""File that is a model config, and no exhibit."""
TRAINING = "initial"
"""Row of the initial models, in an exhibit of their learning curves."""

_FILES = ("title", "note", "form", "tasks", "rows", "scales", "published")
_SCALE = ("about", "preset", "asr", "seeds", "data", "tasks", "settings")
_TASK = ("task", "classes", "fraction", "labelled", "label")
_ROW = ("label", "method", "label_aware", "settings")
_DATA = ("label", "dataset", "image_size", "model", "pretrained", "validation", "settings", "note")
_SHARED = "scales"


@dataclass(frozen=True)
class ExhibitTask:
    """What is forgotten; the fields are those of ``SplitRequest``. ``label`` names it in the exhibit."""

    task: str
    classes: tuple[str, ...] = ()
    fraction: float | None = None
    labelled: float | None = None
    label: str | None = None


@dataclass(frozen=True)
class ExhibitData:
    """A data set of an exhibit.

    Attributes:
        key: Its name in the exhibit, and for ``--data``.
        label: How tables call it.
        dataset: Specification; None has no data of its own: a folder has to be given.
        image_size: As of ``DataRequest``.
        model: The network; None is the paper's for such images.
        pretrained: Whether its training starts from the weights of the library that it is from.
        validation: Share of the training images to take out as validation set, or "none".
        settings: Settings that all rows have on it, as of ``compare``.
        note: What has to be said with its results.
    """

    key: str
    label: str
    dataset: str | None = None
    image_size: int | None = None
    model: str | None = None
    pretrained: bool = False
    validation: float | str | None = None
    settings: Mapping[str, Any] | None = None
    note: str | None = None


@dataclass(frozen=True)
class ExhibitRow:
    """A row of an exhibit: a method with settings.

    Attributes:
        key: Its name in the file, and for ``--only``.
        label: How tables call it.
        method: The method; :data:`TRAINING` alone is the training of the initial model.
        label_aware: Whether the method may use labels; None leaves it to the method.
        settings: Its own settings, on top of the preset.
    """

    key: str
    label: str
    method: str
    label_aware: bool | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Exhibit:
    """A table or figure at one scale.

    Attributes:
        name: Of its file.
        title: What it shows.
        note: What a reader has to know about it, or None.
        form: What is made of the cells.
        tasks: What is forgotten.
        rows: The methods, in the order of the table.
        scale: The name of the scale, and ``about`` what it stands for.
        about: See ``scale``.
        preset: Which settings the methods start from: "tuned", "paper" or "none".
        asr: How the membership attack is made: "default" or "paper".
        seeds: One run of everything for each.
        data: The data sets.
        settings: Settings that all rows have, as of ``compare``.
        published: The table with the paper's numbers, or None.
    """

    name: str
    title: str
    note: str | None
    form: Form
    tasks: tuple[ExhibitTask, ...]
    rows: tuple[ExhibitRow, ...]
    scale: str
    about: str
    preset: str
    asr: str
    seeds: tuple[int, ...]
    data: tuple[ExhibitData, ...]
    settings: Mapping[str, Any]
    published: str | None


def exhibit_names() -> tuple[str, ...]:
    """Return the names of the shipped exhibits, tables first, by number."""
    stems = (Path(entry.name).stem for entry in _folder().iterdir() if entry.name.endswith(SUFFIXES))
    found = [stem for stem in stems if stem not in (_SHARED, PRETRAINED)]
    return tuple(sorted(found, key=lambda name: (name.rstrip("0123456789") != "table", len(name), name)))


def read_exhibit(given: str, scale: str) -> Exhibit:
    """Return a shipped exhibit, or one of a file, at a scale.

    Args:
        given: A name of :func:`exhibit_names`, or a path that ends with .yaml or .yml.
        scale: "paper", "small" or "tiny", or another that the file has.

    Raises:
        BadRequest: There is no such exhibit or scale, or the file says something that is not known or does not fit.
        UserError: The file cannot be read.
    """
    name, content = read_content(given)
    scales = content["scales"]
    check_name(f"scale of '{name}'", scale, scales)
    return _checked(name, content, scale)


def read_content(given: str) -> tuple[str, dict[str, Any]]:
    """Return name and content of an exhibit, what its scales share filled in: a file of the same form.

    Raises:
        BadRequest: There is no such exhibit, or a part of the file is no mapping or has unknown keys.
        UserError: The file cannot be read.
    """
    if given.endswith(SUFFIXES):
        name, where = Path(given).stem, f"'{given}'"
        try:
            text = Path(given).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UserError(f"exhibit {where} cannot be read: {reason}") from error
    else:
        check_name("exhibit", given, exhibit_names())
        name, where = given, given
        text = _shipped(given)
    content = _parsed(text, where)
    _check_keys(content, _FILES, where)
    shared = _parsed(_shipped(_SHARED), _SHARED)
    scales = {}
    for scale, own in _mapping(content.get("scales", {}), f"scales of {where}").items():
        at = f"scale '{scale}' of {where}"
        _check_keys(_mapping(own, at), _SCALE, at)
        common = shared.get(scale, {})
        scales[str(scale)] = {**common, **own, "data": _data_of(own.get("data"), common.get("data", {}), at)}
    if not scales:
        raise BadRequest(f"{where} has no scales; expected for example 'scales: {{tiny: {{data: [digits]}}}}'")
    return name, {**content, "scales": scales}


def as_yaml(content: Mapping[str, Any]) -> str:
    """Return the content of an exhibit as a file to edit."""
    text: str = yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return text


def _data_of(own: Any, common: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return the data sets of a scale: a list names those that the scale has for all, a mapping says its own."""
    if isinstance(own, Mapping):
        return {str(key): value for key, value in own.items()}
    if not isinstance(own, list) or not own:
        raise BadRequest(f"data of {at} is {own!r}; expected a list of {', '.join(common) or 'names'}, or a mapping")
    for key in own:
        check_name(f"data of {at}", str(key), common)
    return {str(key): common[key] for key in own}


def _checked(name: str, content: Mapping[str, Any], scale: str) -> Exhibit:
    """Return the exhibit at a scale, everything that it says of the right kind."""
    where, own = f"'{name}'", content["scales"][scale]
    form = _text(content.get("form"), f"form of {where}")
    check_name("form", form, FORMS)
    seeds = own.get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise BadRequest(f"seeds of scale '{scale}' of {where} are {seeds!r}; expected a list of whole numbers")
    if len(set(seeds)) < len(seeds):
        raise BadRequest(f"seeds of scale '{scale}' of {where} are {seeds!r}; expected each once")
    rows = _mapping(content.get("rows", {TRAINING: {"method": TRAINING}}), f"rows of {where}")
    tasks = own.get("tasks", content.get("tasks"))
    if not isinstance(tasks, list) or not tasks:
        raise BadRequest(f"tasks of {where} are {tasks!r}; expected a list as in '- {{task: class, classes: [0]}}'")
    data = {key: _mapping(value, f"data '{key}' of {where}") for key, value in own["data"].items()}
    listed = tuple(_row(str(key), value, where) for key, value in rows.items())
    made = tuple(_task(task, f"task {number} of {where}") for number, task in enumerate(tasks, 1))
    _check_form(form, listed, made, where)
    return Exhibit(
        name=name,
        title=_text(content.get("title"), f"title of {where}"),
        note=_optional_text(content, "note", where),
        form=cast(Form, form),
        tasks=made,
        rows=listed,
        scale=scale,
        about=_text(own.get("about", ""), f"about of scale '{scale}' of {where}"),
        preset=_text(own.get("preset", "tuned"), f"preset of scale '{scale}' of {where}"),
        asr=_text(own.get("asr", "default"), f"asr of scale '{scale}' of {where}"),
        seeds=tuple(seeds),
        data=tuple(_data(key, value, where) for key, value in data.items()),
        settings=_mapping(own.get("settings", {}), f"settings of scale '{scale}' of {where}"),
        published=_optional_text(content, "published", where),
    )


def _check_form(form: str, rows: Sequence[ExhibitRow], tasks: Sequence[ExhibitTask], where: str) -> None:
    """Check that rows and tasks are such as the form shows.

    Raises:
        BadRequest: They are not.
    """
    if not rows:
        raise BadRequest(f"{where} has no rows; expected at least one")
    for row in rows:
        if (row.method == TRAINING) is not (form == "curves"):
            wanted = f"'{TRAINING}', the training that has a curve" if form == "curves" else "an unlearning method"
            raise BadRequest(f"row '{row.key}' of {where} has the method '{row.method}'; expected {wanted}")
        values = list(row.settings.values())
        if form == "sweep" and (len(values) != 1 or not isinstance(values[0], (int, float))):
            raise BadRequest(f"row '{row.key}' of {where} sets {dict(row.settings)}; expected one setting, a number")
    for task in tasks:
        if form == "ratio" and task.fraction is None:
            raise BadRequest(f"task '{task.task}' of {where} has no fraction; expected one, which the figure shows")


def _task(given: Any, at: str) -> ExhibitTask:
    _check_keys(_mapping(given, at), _TASK, at)
    classes = given.get("classes", [])
    if not isinstance(classes, list):
        raise BadRequest(f"classes of {at} are {classes!r}; expected a list of indices or names, or of ranges as 0-99")
    return ExhibitTask(
        _text(given.get("task"), f"task of {at}"),
        tuple(name for item in classes for name in _classes(str(item))),
        _share(given.get("fraction"), f"fraction of {at}"),
        _share(given.get("labelled"), f"labelled of {at}"),
        _optional_text(given, "label", at),
    )


def _classes(item: str) -> Iterable[str]:
    """Return the classes of an item of a list: "0-99" are a hundred."""
    first, dash, last = item.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        return map(str, range(int(first), int(last) + 1))
    return (item,)


def _row(key: str, given: Any, where: str) -> ExhibitRow:
    at = f"row '{key}' of {where}"
    if "/" in key:
        raise BadRequest(f"{at} has a slash in its name; expected none, since names of cells have")
    _check_keys(_mapping(given, at), _ROW, at)
    aware = given.get("label_aware")
    if aware is not None and not isinstance(aware, bool):
        raise BadRequest(f"label_aware of {at} is {aware!r}; expected true or false")
    return ExhibitRow(
        key,
        _text(given.get("label", key), f"label of {at}"),
        _text(given.get("method"), f"method of {at}"),
        aware,
        _mapping(given.get("settings", {}), f"settings of {at}"),
    )


def _data(key: str, given: Mapping[str, Any], where: str) -> ExhibitData:
    at = f"data '{key}' of {where}"
    _check_keys(given, _DATA, at)
    size, validation = given.get("image_size"), given.get("validation")
    if size is not None and (type(size) is not int or size < 1):
        raise BadRequest(f"image_size of {at} is {size!r}; expected a number of pixels")
    pretrained = given.get("pretrained", False)
    if not isinstance(pretrained, bool):
        raise BadRequest(f"pretrained of {at} is {pretrained!r}; expected true or false")
    return ExhibitData(
        key,
        _text(given.get("label", key), f"label of {at}"),
        _optional_text(given, "dataset", at),
        size,
        _optional_text(given, "model", at),
        pretrained,
        validation if isinstance(validation, float) else _optional_text(given, "validation", at),
        _mapping(given.get("settings", {}), f"settings of {at}"),
        _optional_text(given, "note", at),
    )


def _share(value: Any, at: str) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1):
        return None if value is None else float(value)
    raise BadRequest(f"{at} is {value!r}; expected a number above 0 and at most 1")


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{at} is {value!r}; expected a text")
    return value


def _optional_text(given: Mapping[str, Any], name: str, at: str) -> str | None:
    return None if given.get(name) is None else _text(given[name], f"{name} of {at}")


def _mapping(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{at} is {value!r}; expected 'name: value' entries")
    return value


def _check_keys(given: Mapping[str, Any], known: Iterable[str], at: str) -> None:
    names = tuple(known)
    for key in given:
        check_name(f"key of {at}", str(key), names)


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadRequest(f"exhibit {where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadRequest(f"exhibit {where} holds {a_type(content)}; expected 'name: value' lines")
    return content


def _shipped(name: str) -> str:
    text: str = (_folder() / f"{name}.yaml").read_text("utf-8")
    return text


def _folder() -> Any:
    return files("pymixunlearn.experiments") / "paper"
