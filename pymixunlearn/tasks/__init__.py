"""Tasks: which training samples are to be forgotten (D_f) and which remain (D_r).

Make a :class:`Split` with one of the functions ``NAME_split``; :meth:`Split.save` writes its manifest.
"""

from __future__ import annotations

from pymixunlearn.tasks.deletion_list import DeletionList, read_deletion_list, read_indices
from pymixunlearn.tasks.indices import indices_sha256
from pymixunlearn.tasks.make import class_split, data_split, index_split, noisy_split, semi_supervised_split
from pymixunlearn.tasks.manifest import JSON, MANIFEST_FORMAT
from pymixunlearn.tasks.samples import Sample, list_samples
from pymixunlearn.tasks.split import TASKS, Split

__all__ = [
    "JSON",
    "MANIFEST_FORMAT",
    "TASKS",
    "DeletionList",
    "Sample",
    "Split",
    "class_split",
    "data_split",
    "index_split",
    "indices_sha256",
    "list_samples",
    "noisy_split",
    "read_deletion_list",
    "read_indices",
    "semi_supervised_split",
]
