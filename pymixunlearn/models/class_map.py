"""Class map: which logit of a model stands for which class of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymixunlearn.errors import UserError, unknown_name


def check_class_map(
    name: str, class_map: Sequence[int] | None, num_classes: int, outputs: int | None
) -> list[int] | None:
    """Return a class map that was checked, or None where every class has the logit of its own index.

    Args:
        name: The model's, for messages.
        class_map: For every class of the data, the index of its logit.
        num_classes: Number of classes of the data.
        outputs: Number of logits; None for ``num_classes``.

    Raises:
        UserError: It has another length, an index outside of the logits, or one twice; or there are more logits than
            classes and no map.

    Example:
        >>> check_class_map("net", [2, 0], 2, 3), check_class_map("net", [0, 1], 2, 2)
        ([2, 0], None)
    """
    total = num_classes if outputs is None else outputs
    if class_map is None:
        if total != num_classes:
            raise UserError(
                f"model '{name}' has {total} outputs and the data {num_classes} classes; expected a class map that "
                "says which output stands for which class (class_map or classes in --model-config)"
            )
        return None
    chosen = [int(index) for index in class_map]
    if len(chosen) != num_classes or len(set(chosen)) != len(chosen) or not all(0 <= i < total for i in chosen):
        raise UserError(
            f"class_map of model '{name}' is {chosen[:10]}{'…' if len(chosen) > 10 else ''}; expected {num_classes} "
            f"different indices from 0 to {total - 1}, one for each class of the data"
        )
    return None if chosen == list(range(total)) else chosen


def map_by_name(classes: Sequence[str], outputs: Sequence[str], what: str) -> list[int]:
    """Return the index of the output of every class, by its name.

    Args:
        classes: Names of the classes of the data.
        outputs: Names of the outputs, in their order.
        what: Subject of the message.

    Raises:
        UserError: A class has no output of its name.
    """
    indices: dict[str, int] = {}
    for index, name in enumerate(outputs):
        indices.setdefault(name, index)
    for name in classes:
        if name not in indices:
            error = unknown_name("class", name, outputs if len(outputs) <= 20 else [*outputs[:20], "…"])
            raise UserError(f"{what} has no output for a class of the data: {error}")
    return [indices[name] for name in classes]


def map_of(content: Any, classes: Sequence[str], outputs: Sequence[str] | None) -> list[int]:
    """Return a class map from the form that it has in a file: a list of indices, or class to index or output's name.

    Raises:
        UserError: It has another form, or lacks a class.

    Example:
        >>> map_of({"dog": 1, "cat": "tabby"}, ["cat", "dog"], ["tabby", "beagle"])
        [0, 1]
    """
    if isinstance(content, Mapping):
        named = {str(key): value for key, value in content.items()}
        for name in classes:
            if name not in named:
                raise UserError(f"class_map lacks the class '{name}'; expected every class of the data")
        content = [named[name] for name in classes]
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise UserError(f"class_map is {content!r}; expected indices, or every class with the index of its output")
    found = []
    for entry in content:
        if isinstance(entry, str):
            if outputs is None:
                raise UserError(f"class_map names the output '{entry}'; expected an index, or the outputs as 'classes'")
            entry = map_by_name([entry], outputs, "class_map")[0]
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise UserError(f"class_map holds {entry!r}; expected indices of outputs")
        found.append(entry)
    return found
