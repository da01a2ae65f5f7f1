"""The newest model of a ledger, which must have the weights that the entries say."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pymixunlearn.data import Dataset
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.initial_model import choose_model
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.request.entries import State
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.experiments.request.settings import settings_inputs
from pymixunlearn.training import resolve_device


def newest_folder(ledger: Ledger, state: State) -> Path | None:
    """Return the run folder of the newest model, None where that is still the first one."""
    return None if state.current is None else ledger.run_folder(str(state.current["run"]))


def newest_model(ledger: Ledger, state: State, dataset: Dataset) -> tuple[nn.Module, torch.device]:
    """Load the newest model, and return it with the device that it is on, the one of the ledger's runs.

    Raises:
        BadRequest: Its file is gone.
        UserError: It is another model than the ledger says, or was made for other images.
    """
    folder = newest_folder(ledger, state)
    text = ledger.store.settings(str(state.init["settings_sha256"]))
    inputs = settings_inputs(text, split=SplitRequest(), model=folder, key=ledger.key_file)
    device, model = resolve_device(inputs.device), choose_model(inputs.model, dataset)
    check_model(model.sha256, state, folder)
    assert model.loaded is not None  # it has a hash
    return model.loaded.to(device), device


def check_model(sha256: str | None, state: State, folder: Path | None) -> None:
    """Check that a model is what the ledger says.

    Raises:
        UserError: It is not.
    """
    if sha256 != state.model_sha256:
        where = "the ledger's first model" if folder is None else f"the newest model, in '{folder}',"
        raise UserError(
            f"{where} is not what the ledger says: its weights have the sha256 {str(sha256)[:12]}…, expected "
            f"{state.model_sha256[:12]}…"
        )
