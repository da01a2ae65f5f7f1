"""Which data set a command reads: the options, and loading it.

Nothing here imports PyTorch before it is needed: the command line reads the fields to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.options import option

if TYPE_CHECKING:
    from pymixunlearn.data import Dataset, Preprocess
    from pymixunlearn.experiments.common.progress import Observer


@dataclass(frozen=True)
class DataRequest:
    """Which data set; the fields are those of :func:`pymixunlearn.data.load`."""

    dataset: str = option(
        "--dataset",
        default="digits",
        show_default=True,
        metavar="SPEC",
        help="digits (scikit-learn's, nothing to download), mnist, fashion-mnist, cifar10, cifar100, svhn; a "
        "folder or archive of images (photos/, photos.tar.gz); a table beside its images (photos.csv, photos.parquet: "
        "columns file, label, split, id); hf:NAME or hf:FOLDER; package.module:factory or file.py:factory. SPEC@10000 "
        "takes a random part of the training images, always the same 10000; others become the validation set.",
    )
    data_dir: Path | None = option(
        "--data-dir",
        kind=Path,
        metavar="DIR",
        help="Where the files of a data set with a name are or go.  [default: a cache folder]",
    )
    download: bool = option("--no-download", default=True, help="Fail rather than download files that are missing.")
    image_size: int | None = option(
        "--image-size",
        kind=int,
        least=8,
        metavar="PIXELS",
        help="Side of the network's input; 224 is the paper's for cifar10 and svhn.  [default: the data set's own]",
    )
    stream: bool | None = option(
        "--stream/--in-memory",
        help="For image files: read images from the decoded file batch by batch, or hold them all. The results are the "
        "same.  [default: --stream above 4 GiB of images]",
    )
    follow_links: bool = option(
        "--follow-links",
        default=False,
        help="For image files: symbolic links may lead out of the folder of the images.",
    )
    skip_unreadable: bool = option(
        "--skip-unreadable",
        default=False,
        help="For image files: leave out those that cannot be read, and count them, rather than fail and name them.",
    )
    validation_share: float | str | None = option(
        "--validation",
        metavar="SHARE|none",
        help="Share of the training images to take out as validation set, which no model is trained or tested on; the "
        "acceptance test needs one.  [default: the data's own, or what SPEC@N leaves out]",
    )

    class_list: Path | None = option(
        "--classes",
        kind=Path,
        metavar="FILE",
        help="All classes in their order, one name a line, so that a class whose last image is gone keeps its place.  "
        "[default: the data's]",
    )
    preprocess: Preprocess | None = None
    """How images become inputs, where the model says it."""
    id_column: str | None = None
    """The column of the images' ids, for data that have columns; None takes a table's column "id", if any."""

    @property
    def has_columns(self) -> bool:
        """Whether the data are a table or ``hf:`` data; False where there are no such data."""
        from pymixunlearn.data.registry import specification

        try:
            return specification(self.dataset, self.data_dir).kind in ("table", "hub")
        except UserError:  # told when they are loaded
            return False

    def load(self, observer: Observer | None = None) -> Dataset:
        """Load it; where images have to be decoded, ``observer`` receives the progress as the phase "data".

        Raises:
            BadRequest: There is no such data set, or the validation share is none.
            UserError: Its files are missing or corrupt.
        """
        from pymixunlearn import data
        from pymixunlearn.data.classes import read_classes
        from pymixunlearn.data.registry import specification
        from pymixunlearn.data.validation import parse_share
        from pymixunlearn.experiments.common.data_progress import DataProgress
        from pymixunlearn.experiments.common.progress import Observer

        try:
            specification(self.dataset, self.data_dir)
            parse_share(self.validation_share)
        except UserError as error:
            raise BadRequest(str(error)) from error
        progress = DataProgress(Observer() if observer is None else observer)
        dataset = data.load(
            self.dataset,
            data_dir=self.data_dir,
            download=self.download,
            image_size=self.image_size,
            progress=progress,
            stream=self.stream,
            follow_links=self.follow_links,
            skip_unreadable=self.skip_unreadable,
            validation=self.validation_share,
            classes=None if self.class_list is None else read_classes(self.class_list),
            preprocess=self.preprocess,
            id_column=self.id_column,
        )
        progress.finish()
        return dataset
