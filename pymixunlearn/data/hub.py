"""Data sets of the Hugging Face ``datasets`` library, by name or from a folder on this disk."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pymixunlearn.data.dataset import Dataset
from pymixunlearn.data.decoding import Files, decode_files
from pymixunlearn.data.listing import Member, file_reader, shown
from pymixunlearn.data.optional import require
from pymixunlearn.data.registry import Request, register_source
from pymixunlearn.data.rows import Row, dataset_of_rows
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, reason_of, unknown_name

_LABELS = ("label", "labels", "fine_label", "class", "target")
_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")


@register_source("hub")
def load_hub(request: Request) -> Dataset:
    """Load ``hf:NAME`` through the ``datasets`` library, or ``hf:FOLDER`` that ``save_to_disk`` wrote.

    ``hf:NAME:CONFIGURATION`` chooses one of several configurations. Any other folder is read as ``load_dataset`` reads
    it: Parquet, CSV or images. The image column is the only one of images, the label the only class label or the first
    of label, labels, fine_label, class and target. Code that comes with a data set is never run.
    """
    library = require("datasets", purpose="a data set of Hugging Face", remedy="pip install 'pymixunlearn[hf]'")
    where = f"'hf:{printable(request.reference)}'"
    parts = _load(library, request, where)
    first = next(iter(parts.values()))
    image, label = _columns(library, first.features, request.id_column, where)
    names = getattr(first.features[label], "names", None)
    raw = {part: split.cast_column(image, library.Image(decode=False)) for part, split in parts.items()}
    rows, missing = [], []
    for part, split in raw.items():
        for index, (value, key) in enumerate(zip(split[label], split[request.id_column or label], strict=True)):
            name = f"{part}/{index:09d}"
            if value is None or value == -1:  # the library's value for a class label that is withheld
                missing.append(name)
                continue
            rows.append(
                Row(
                    name,
                    str(names[value] if names else value),
                    part if len(raw) > 1 else None,
                    None if request.id_column is None or key is None else str(key),
                )
            )
    if missing:
        raise UserError(f"{len(missing)} rows of {where} have no label, {shown(missing)}; expected one in each")
    if not request.follow_links:
        _check_paths(raw, image, _roots(library, request), where)
    try:
        found = decode_files(_files(raw, image, where), request)
    except OSError as error:
        raise UserError(f"the images of {where} cannot be read ({error})") from error
    return dataset_of_rows(
        rows, found, request, where, classes=None if names is None else tuple(names), notes=found.details
    )


def _load(library: Any, request: Request, where: str) -> dict[str, Any]:
    """Return the parts by name, leaving out what is no part of a classification task."""
    reference, folder = request.reference, Path(request.reference).expanduser()
    try:
        if folder.is_dir() and any((folder / name).is_file() for name in _SAVED):
            loaded = library.load_from_disk(str(folder))
        else:
            name, _, configuration = (str(folder), "", "") if folder.is_dir() else reference.partition(":")
            options = {} if request.download else {"download_config": library.DownloadConfig(local_files_only=True)}
            loaded = library.load_dataset(name, configuration or None, **options)
    except Exception as error:  # the library raises dozens of kinds, its network libraries' among them
        raise UserError(f"{where} cannot be loaded: {reason_of(error)}") from error
    parts = dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}
    if not parts or not all(len(part) for part in parts.values()):
        raise UserError(f"{where} has a part without rows: {shown(parts)}")
    return parts


def _columns(library: Any, features: Mapping[str, Any], id_column: str | None, where: str) -> tuple[str, str]:
    images = [name for name, kind in features.items() if isinstance(kind, library.Image)]
    if len(images) != 1:
        raise UserError(f"{where} has {len(images)} columns of images among {shown(features)}; expected one")
    classes = [name for name, kind in features.items() if isinstance(kind, library.ClassLabel)]
    label = classes[0] if len(classes) == 1 else next((name for name in _LABELS if name in features), None)
    if label is None:
        raise UserError(
            f"{where} has the columns {shown(features)}; expected one class label, or a column {' or '.join(_LABELS)}"
        )
    if id_column is not None and id_column not in features:
        raise UserError(f"{where}: {unknown_name('column', id_column, features)}")
    return images[0], label


def _roots(library: Any, request: Request) -> list[Path]:
    """Return the folders that images which are no part of the rows may lie in: the data's own, or the library's."""
    folder = Path(request.reference).expanduser()
    if folder.is_dir():
        return [folder]
    return [Path(library.config.HF_DATASETS_CACHE), Path(library.config.DOWNLOADED_DATASETS_PATH)]


def _check_paths(parts: Mapping[str, Any], column: str, roots: Collection[Path], where: str) -> None:
    """Check the rows that name a file instead of holding an image: anyone may have written them.

    Raises:
        UserError: A file lies elsewhere than below ``roots``.
    """
    real = [os.path.realpath(root) + os.sep for root in roots]
    outside = [
        str(cell["path"])
        for split in parts.values()
        for cell in split[column]
        if cell["bytes"] is None and not os.path.realpath(str(cell["path"])).startswith(tuple(real))
    ]
    if outside:
        raise UserError(
            f"{where} names images that are not below its folder: {shown(outside)}; allow them with follow_links "
            "(--follow-links)"
        )


def _files(parts: Mapping[str, Any], column: str, where: str) -> Files:
    def members() -> Iterator[Member]:
        for part, split in parts.items():
            for index, cell in enumerate(split[column]):
                content = cell["bytes"]
                # Images of a folder are not copied into the data set: there is a path alone.
                read = file_reader(Path(str(cell["path"]))) if content is None else lambda content=content: content
                yield Member(PurePosixPath(f"{part}/{index:09d}"), 0 if content is None else len(content), read)

    def finished(decoded: list[str]) -> list[str]:
        if not decoded:
            raise UserError(f"{where} holds no image that can be read")
        return []

    fingerprints = " ".join(f"{part} {split._fingerprint}" for part, split in sorted(parts.items()))
    return Files(
        where=where,
        key=f"hub {column} {fingerprints}",
        members=members,
        total=sum(map(len, parts.values())),
        shown=lambda name: f"image {name} of {where}",
        finished=finished,
    )
