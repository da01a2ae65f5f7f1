"""`request init`: a new ledger, for one line of models."""

from __future__ import annotations

from dataclasses import replace

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.forget_chain import key_id
from pymixunlearn.experiments.common.forget_history import read_history
from pymixunlearn.experiments.common.given import GivenData, GivenModel
from pymixunlearn.experiments.common.initial_model import choose_model
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.signing import Signer
from pymixunlearn.experiments.request.entries import LEDGER_FORMAT, State
from pymixunlearn.experiments.request.inputs import InitInputs
from pymixunlearn.experiments.request.ledger import MAX_DROP, Ledger
from pymixunlearn.experiments.request.settings import settings_text
from pymixunlearn.files import sha256


def run_init(inputs: InitInputs, *, observer: Observer | None = None) -> State:
    """Make a ledger, having checked that its data and its model can be loaded.

    A model that has forgotten samples before is taken on with its chain of requests and its key.

    Raises:
        BadRequest: The model is none with weights, or data or model are in memory.
        UserError: There is a ledger already, a file is missing, or the folder cannot be written.
    """
    signer = None if inputs.unlearn.sign_key is None else Signer(inputs.unlearn.sign_key)
    limit = MAX_DROP if inputs.unlearn.max_drop is None else inputs.unlearn.max_drop
    unlearn = replace(inputs.unlearn, max_drop=limit, sign_key=None)
    if isinstance(unlearn.data, GivenData) or isinstance(unlearn.model, GivenModel):
        raise BadRequest("a ledger needs data and a model that can be found again; expected names, files and folders")
    ledger = Ledger(inputs.ledger, inputs.ledger_dir)
    ledger.store.check_new()
    load_plugins(unlearn.plugin)
    history = read_history((unlearn.model.model, unlearn.model.weights), unlearn.history)
    dataset = fed(unlearn.data, unlearn.model).load(observer)
    model = choose_model(unlearn.model, dataset)
    if model.loaded is None:
        raise BadRequest(
            f"'{model.name}' is a network without weights; a ledger begins with a trained model: expected its file or "
            "run folder by --model, for example of 'mixunlearn-cli train'"
        )
    known = next((earlier for earlier in history.earlier if earlier.key is not None), None)
    try:
        ledger.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"ledger '{ledger.folder}' cannot be written: {error.strerror}") from error
    key = ledger.first_key(None if known is None else known.key)
    text = settings_text(unlearn)
    chain = None if known is None else known.chain
    body = {
        "format": LEDGER_FORMAT,
        "key_id": key_id(key),
        "settings_sha256": sha256(text.encode()),
        "model_sha256": model.sha256,
        "data_sha256": dataset.fingerprint(),
        "max_drop": limit,
        "earlier": None if chain is None else {"requests": len(chain), "head": chain.head},
    }
    with ledger.store.writing() as writer:
        writer.create()
        writer.add_settings(sha256(text.encode()), text)
        writer.append("init", body, signer)
        ledger.keep_key(key)  # last, so that nothing but the end of the transaction can fail after it
    return ledger.state()
