"""`request check`: whether something that the ledger has forgotten comes back, in data or in a model."""

from __future__ import annotations

from dataclasses import dataclass

from pymixunlearn.data.image_set import image_hashes
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.forget_chain import Chain
from pymixunlearn.experiments.common.forget_history import CHAIN, SampleHashes
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.request.add import ledger_data, pixel_hash
from pymixunlearn.experiments.request.inputs import CheckInputs
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.tasks.known_samples import parts_of
from pymixunlearn.training import read_metadata


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        subject: What was looked at.
        forgotten: How many samples the served requests name.
        back: Names of the samples of a data set that are forgotten; by their id, or by their pixels.
        lacking: Ids of the served requests whose samples a model's chain lacks.
    """

    subject: str
    forgotten: int
    back: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing came back."""
        return not self.back and not self.lacking


def run_check(inputs: CheckInputs, *, observer: Observer | None = None) -> Found:
    """Look for forgotten samples in a data set, or for requests that a model's chain lacks.

    Raises:
        BadRequest: Neither data nor a model is given, or both.
        UserError: There is no ledger, or what is given cannot be read.
    """
    if (inputs.dataset is None) is (inputs.model is None):
        raise BadRequest("expected one of --dataset SPEC and --model FILE to look at")
    ledger = Ledger(inputs.ledger, inputs.ledger_dir)
    state, every = ledger.state(), ledger.store.samples()
    by_request = {
        name: every.get(int(request.added["seq"]), {})
        for name, request in state.requests.items()
        if request.served is not None
    }
    ids = {key for samples in by_request.values() for key in samples}
    if inputs.model is not None:
        file = inputs.model / CHECKPOINT if inputs.model.is_dir() else inputs.model
        metadata = read_metadata(file)
        chain = Chain.read(metadata[CHAIN], f"'{inputs.model}'") if CHAIN in metadata else None
        if chain is not None and chain.key_id != state.init["key_id"]:
            raise UserError(
                f"'{inputs.model}' has a chain of requests of another key than the ledger's, so it cannot be compared"
            )
        known = frozenset() if chain is None else chain.unlearned
        # What was not in the data when it was requested could not be unlearned, and is in no chain.
        lacking = [
            name
            for name, samples in by_request.items()
            if {key for key, pixels in samples.items() if pixels is not None} - known
        ]
        return Found(str(inputs.model), len(ids), lacking=tuple(lacking))
    assert inputs.dataset is not None
    dataset = ledger_data(ledger, state, observer, other=(inputs.dataset, inputs.data_dir))
    pixels = {value for samples in by_request.values() for value in samples.values() if value is not None}
    hashed, back = SampleHashes(dataset).of(ledger.key), []
    for part, images in parts_of(dataset).items():
        for name, own, content in zip(images.ids, hashed[part], image_hashes(images), strict=True):
            if own in ids or pixel_hash(ledger, content) in pixels:
                back.append(f"{part}: {name}")
    return Found(dataset.name, len(ids), back=tuple(back))
