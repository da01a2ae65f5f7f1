"""Data of an exhibit: the originals, or a folder that stands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pymixunlearn.data import Dataset, available
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.paper.exhibit import ExhibitData
from pymixunlearn.experiments.paper.inputs import ExperimentInputs


@dataclass(frozen=True)
class Served:
    """A data set of an exhibit as it is here.

    Attributes:
        key: Its name in the exhibit.
        label: How tables call it: a copy is called so.
        request: How a run loads it.
        dataset: It, loaded; None where it is not there.
        reason: Why not.
    """

    key: str
    label: str
    request: DataRequest
    dataset: Dataset | None
    reason: str | None = None


def read_folders(given: Sequence[str], keys: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each data set that is served by one, from "NAME=FOLDER".

    Raises:
        BadRequest: It reads otherwise, or the exhibit has no such data set.
        UserError: A folder does not exist.
    """
    found: dict[str, Path] = {}
    for item in given:
        key, equals, folder = item.partition("=")
        if not equals or not folder:
            raise BadRequest(f"'{item}' does not serve a data set; expected NAME=FOLDER, as in cifar10=images/cifar10")
        check_name("data set of the exhibit", key, keys)
        if not Path(folder).expanduser().exists():
            raise UserError(f"the folder of '{item}' does not exist; expected the files or images of '{key}' there")
        found[key] = Path(folder).expanduser()
    return found


def serve(
    data: ExhibitData,
    model: ModelRequest,
    inputs: ExperimentInputs,
    folder: Path | None,
    observer: Observer | None,
) -> Served:
    """Load a data set: from ``folder`` if one is given, its original files or images; otherwise as any command does.

    Raises:
        UserError: ``folder`` holds neither.
    """
    spec = data.dataset or data.key
    base, at, count = spec.rpartition("@") if spec.rpartition("@")[2].isdecimal() else (spec, "", "")

    def request(dataset: str, *, data_dir: Path | None, download: bool = False) -> DataRequest:
        return fed(
            DataRequest(
                dataset=dataset,
                data_dir=data_dir,
                download=download,
                image_size=data.image_size,
                validation_share=data.validation,
            ),
            model,
        )

    if folder is None:
        found = request(spec, data_dir=inputs.data_dir if base in available() else None, download=inputs.download)
        try:
            return Served(data.key, data.label, found, found.load(observer))
        except UserError as error:
            reason = f"{error}; a folder serves it with --data {data.key}=FOLDER"
            return Served(data.key, data.label, found, None, reason)
    if base in available():
        found = request(spec, data_dir=folder)
        try:
            return Served(data.key, data.label, found, found.load(observer))
        except UserError:  # not its original files: images, then, and what is wrong with them is said below
            found = request(f"{folder}{at}{count}", data_dir=None)
    else:
        found = request(f"{folder}{at}{count}", data_dir=None)
    dataset = found.load(observer)
    return Served(data.key, f"{data.label} ({_kind(dataset, folder, original=base in available())})", found, dataset)


def _kind(dataset: Dataset, folder: Path, *, original: bool) -> str:
    """Say what stands for a data set: "JPEG copy"; without originals of its own, where it is from."""
    if not original:
        return f"from {folder.name}"
    suffixes: Mapping[str, str] = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
    paths = dataset.train.paths or ("",)
    kind = suffixes.get(Path(paths[0]).suffix.lower(), "")
    return f"{kind} copy".strip()
