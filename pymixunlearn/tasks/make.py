"""Splits by task: whole classes, random shares of them, wrong labels, few labels, or a list of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pymixunlearn import seeding
from pymixunlearn.data.dataset import Dataset
from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError
from pymixunlearn.tasks.deletion_list import DeletionList
from pymixunlearn.tasks.indices import to_indices
from pymixunlearn.tasks.manifest import JSON
from pymixunlearn.tasks.samples import class_index, find_samples
from pymixunlearn.tasks.split import Split


def class_split(dataset: Dataset, classes: Iterable[int | str] = (0,), *, seed: int = 0) -> Split:
    """Forget every training sample of ``classes``.

    Raises:
        UserError: A class that does not exist or is given twice, no class, or all of them.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.class_split(data.load("digits"), [3, 8])
        >>> len(split.forget), len(split.retain)
        (285, 1153)
    """
    labels = _checked_classes(dataset, classes)
    indices = torch.isin(dataset.train.targets, torch.tensor(labels)).nonzero().squeeze(1)
    return Split(dataset, "class", indices, seed, {"classes": list(labels)})


def data_split(
    dataset: Dataset, *, fraction: float = 0.4, classes: Iterable[int | str] = (5, 6, 7, 8, 9), seed: int = 0
) -> Split:
    """Forget a random ``fraction`` of the training samples whose label is one of ``classes``.

    Raises:
        UserError: ``fraction`` outside (0, 1], a class that does not exist, or an empty forget set or retain set.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.data_split(data.load("digits"), fraction=0.1, classes=[5])
        >>> len(split.forget), len(split.retain)
        (15, 1423)
    """
    labels = _checked_classes(dataset, classes)
    indices = _random_share(dataset, labels, fraction, seeding.generator(seed, "split", "data"))
    return Split(dataset, "data", indices, seed, {"fraction": fraction, "classes": list(labels)})


def noisy_split(
    dataset: Dataset, *, fraction: float = 0.6, classes: Iterable[int | str] = (0, 1, 2, 3, 4), seed: int = 0
) -> Split:
    """Give a random ``fraction`` of the training samples of ``classes`` wrong labels, and forget these samples.

    A wrong label is drawn uniformly from the other classes. The split's ``dataset`` has the wrong labels, so that the
    initial model is trained with them; D_r has none of them.

    Raises:
        UserError: ``fraction`` outside (0, 1], a class that does not exist, only one class in all, or an empty forget
            set or retain set.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.noisy_split(data.load("digits"), fraction=0.5, classes=[0])
        >>> len(split.forget), len(split.retain)
        (71, 1367)
    """
    labels = _checked_classes(dataset, classes)
    if dataset.num_classes < 2:
        raise UserError(f"a wrong label needs another class, but '{dataset.name}' has only one")
    indices = _random_share(dataset, labels, fraction, seeding.generator(seed, "split", "noisy")).sort().values
    stream = seeding.generator(seed, "split", "noisy", "labels")
    steps = torch.randint(1, dataset.num_classes, (len(indices),), generator=stream)
    split = Split(dataset, "noisy", indices, seed, {"fraction": fraction, "classes": list(labels)})
    return split.relabelled((dataset.train.targets[indices] + steps) % dataset.num_classes)


def semi_supervised_split(
    dataset: Dataset,
    *,
    labelled: float = 0.4,
    fraction: float = 0.4,
    classes: Iterable[int | str] = (5, 6, 7, 8, 9),
    seed: int = 0,
) -> Split:
    """Take most labels away, and forget a random ``fraction`` of the samples of ``classes`` that keep theirs.

    A random share ``labelled`` of all training samples keeps its labels. The others remain and are trained on without.

    Raises:
        UserError: ``labelled`` outside (0, 1), ``fraction`` outside (0, 1], a class that does not exist, or an
            empty forget set, or a retain set without labelled or without unlabelled samples.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.semi_supervised_split(data.load("digits"), labelled=0.2)
        >>> len(split.forget), len(split.retain)
        (55, 1383)
    """
    labels = _checked_classes(dataset, classes)
    if not 0 < labelled < 1:
        raise UserError(f"labelled must be a share above 0 and below 1, got {labelled}")
    count = len(dataset.train)
    shuffled = torch.randperm(count, generator=seeding.generator(seed, "split", "semi", "labels"))
    known, unknown = shuffled[: round(labelled * count)], shuffled[round(labelled * count) :]
    indices = _random_share(dataset, labels, fraction, seeding.generator(seed, "split", "semi"), among=known)
    params: dict[str, JSON] = {"labelled": labelled, "fraction": fraction, "classes": list(labels)}
    return Split(dataset, "semi", indices, seed, params, unlabelled_indices=unknown)


def index_split(dataset: Dataset, indices: Tensor | Sequence[int] | DeletionList, *, seed: int = 0) -> Split:
    """Forget listed training samples, in any order: a deletion request.

    Of a list with ids, the split keeps what :meth:`DeletionList.summary` says of them; a sample may have several ids.
    Files of a list may also be test or validation images, which are then taken out of these parts.

    Args:
        dataset: The data.
        indices: Indices into ``dataset.train``, or a list that may name files.
        seed: Seed of the split; nothing is drawn here.

    Raises:
        UserError: An index out of range or given twice without ids, a file that is not in the data or is not the only
            one of its name, or nothing or everything to forget.

    Example:
        >>> from pymixunlearn import data, tasks
        >>> split = tasks.index_split(data.load("digits"), [3, 14, 159])
        >>> len(split.forget), len(split.retain)
        (3, 1435)
    """
    if not isinstance(indices, DeletionList):
        if not isinstance(indices, Iterable) or isinstance(indices, (str, Mapping)):
            raise UserError(
                f"indices must be integers or a DeletionList (read_deletion_list reads files), got {a_type(indices)}"
            )
        forget = indices if isinstance(indices, Tensor) else to_indices(list(indices), "indices")
        return Split(dataset, "indices", forget, seed, {"count": forget.numel()})
    found = find_samples(dataset, indices)
    if len(indices) and not len(found["train"]):
        raise UserError(f"none of the {len(indices)} listed samples is a training image: no model was trained on them")
    params: dict[str, JSON] = {"count": len(found["train"])}
    if indices.id_column is not None:
        params["ids"] = indices.summary()
    split = Split(dataset, "indices", found.pop("train"), seed, params)
    return split.without({part: found[part] for part in found if len(found[part])})


def _random_share(
    dataset: Dataset,
    classes: tuple[int, ...],
    fraction: float,
    stream: torch.Generator,
    among: Tensor | None = None,
) -> Tensor:
    """Return the indices of a random ``fraction`` of the training samples of ``classes``, in random order.

    ``among``, int64 ``[M]``, are the only samples to draw from.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must be above 0 and at most 1, got {fraction}")
    eligible = torch.isin(dataset.train.targets, torch.tensor(classes))
    if among is not None:
        eligible &= torch.zeros_like(eligible).index_fill_(0, among, True)
    pool = eligible.nonzero().squeeze(1)
    return pool[torch.randperm(len(pool), generator=stream)[: round(fraction * len(pool))]]


def _checked_classes(dataset: Dataset, classes: Iterable[int | str]) -> tuple[int, ...]:
    labels = tuple(sorted(class_index(label, dataset) for label in classes))
    if not labels:
        raise UserError("classes must name at least one class, got none")
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"every class must be given once, got '{dataset.train.classes[label]}' more than once")
    return labels
