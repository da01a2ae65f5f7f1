"""The unlearned model in the form in which the initial one came: for the program that it came from."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pymixunlearn.files import write_atomically
from pymixunlearn.models import Ensemble
from pymixunlearn.models.weight_forms import in_form_of

ORIGINAL_FORM = "original-form"
"""The folder of it in a run folder."""


def write_original_form(folder: Path, model: nn.Module, source: Path | None) -> bool:
    """Write a model as the file or folder ``source`` is written; tell whether there is one.

    A Hugging Face model is written by its own ``save_pretrained``, with the image processor of the folder beside it;
    any other under the name of its file, with the same keys and types.

    Raises:
        UserError: The folder cannot be written.
    """
    if isinstance(model, Ensemble):  # another network than came
        return False
    if source is not None and source.is_file():
        for name, content in in_form_of(source, model):
            write_atomically(folder / name, content)
        return True
    save = getattr(model, "save_pretrained", None)
    if not callable(save):
        return False
    save(folder)
    processor = "preprocessor_config.json"
    if source is not None and (source / processor).is_file():
        write_atomically(folder / processor, (source / processor).read_bytes())
    return True
