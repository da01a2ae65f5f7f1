from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models import Ensemble
from pymixunlearn.models.layers import find_embedding_layer
from pymixunlearn.training import fresh_weights, load_model, model_hash, save_model


class Fixed(nn.Module):
    """Answers every image with the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


IMAGES = torch.zeros(2, 1, 8, 8)


def probabilities(ensemble: Ensemble) -> list[float]:
    answers = ensemble.double()(IMAGES).softmax(dim=1)
    assert torch.equal(answers[0], answers[1])
    return answers[0].tolist()


def test_the_mean_is_that_of_the_softmax() -> None:
    members = [Fixed(0.0, 1.0, 2.0), Fixed(3.0, -1.0, 0.5)]
    soft = [member.logits.softmax(0) for member in members]
    assert probabilities(Ensemble(members)) == pytest.approx(((soft[0] + soft[1]) / 2).tolist(), abs=1e-9)
    weighted = probabilities(Ensemble(members, [1, 3]))
    assert weighted == pytest.approx((soft[0] / 4 + 3 * soft[1] / 4).tolist(), abs=1e-9)
    assert torch.allclose(Ensemble(members).double()(IMAGES).exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_a_majority_counts_first_choices() -> None:
    members = [Fixed(9.0, 0.0, 0.0), Fixed(0.0, 0.1, 0.0), Fixed(0.0, 0.1, 0.0)]
    assert Ensemble(members, aggregate="mean")(IMAGES).argmax(1).tolist() == [0, 0]
    ensemble = Ensemble(members, aggregate="majority")
    assert ensemble(IMAGES).argmax(1).tolist() == [1, 1]
    assert probabilities(ensemble) == pytest.approx([1 / 3, 2 / 3, 0.0], abs=1e-3)
    assert probabilities(Ensemble(members, [3, 1, 1], "majority")) == pytest.approx([3 / 5, 2 / 5, 0.0], abs=1e-3)


def test_among_as_many_votes_the_mean_decides_and_nothing_is_impossible() -> None:
    ensemble = Ensemble([Fixed(1.0, 0.0, -1.0), Fixed(0.0, 5.0, -1.0)], aggregate="majority")
    assert ensemble(IMAGES).argmax(1).tolist() == [1, 1]
    assert torch.isfinite(ensemble(IMAGES)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "members is empty"),
        (([Fixed(0.0)], [1, 2]), r"weights must be 1 numbers above 0, one per member, got \[1, 2\]"),
        (([Fixed(0.0), Fixed(1.0)], [1, 0]), "weights must be 2 numbers above 0"),
        (([Fixed(0.0)], None, "vote"), "unknown aggregate 'vote'"),
    ],
)
def test_mistakes_are_named(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ensemble(*arguments)


def built(count: int = 3) -> Ensemble:
    networks = [models.build("cnn", num_classes=4, in_channels=1, image_size=8, seed=seed) for seed in range(count)]
    return models.ensemble_of(networks, [1, 2, 3], "majority")


def test_a_saved_ensemble_is_loaded_by_its_file_alone(tmp_path: Path) -> None:
    ensemble = built()
    save_model(tmp_path / "model.safetensors", ensemble)
    loaded = load_model(tmp_path / "model.safetensors", num_classes=4)
    assert isinstance(loaded, Ensemble) and loaded.aggregate == "majority"
    assert model_hash(loaded) == model_hash(ensemble)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(loaded(images), ensemble.eval()(images))
    assert models.architecture_name(loaded) == "cnn"


def test_an_ensemble_of_ones_own_networks_is_loaded_into_one(tmp_path: Path) -> None:
    ensemble = models.ensemble_of([nn.Linear(3, 2), nn.Linear(3, 2)], None, "mean")
    assert not hasattr(ensemble, "architecture")
    save_model(tmp_path / "model.safetensors", ensemble)
    other = models.ensemble_of([nn.Linear(3, 2), nn.Linear(3, 2)], [1, 9], "mean")
    assert model_hash(load_model(tmp_path / "model.safetensors", into=other)) == model_hash(ensemble)


def test_fresh_weights_differ_between_members_and_seeds() -> None:
    first, again, other = (fresh_weights(built(), seed) for seed in (1, 1, 2))
    assert model_hash(first) == model_hash(again) != model_hash(other)
    assert isinstance(first, Ensemble) and len(first.members) == 3
    assert model_hash(first.members[0]) != model_hash(first.members[1])


@pytest.mark.parametrize("members", [0, 1001, 1.5])
def test_a_number_of_members_out_of_range_is_refused(members: int) -> None:
    with pytest.raises(UserError, match="members of model 'cnn'.*an integer from 1 to 1000"):
        models.build("cnn", num_classes=4, in_channels=1, image_size=8, members=members)


def test_the_first_member_stands_for_the_architecture_but_has_not_the_only_embedding() -> None:
    ensemble = built()
    assert models.first_member(Ensemble([ensemble])) is ensemble.members[0]
    single = copy.deepcopy(ensemble.members[1])
    assert models.first_member(single) is single
    with pytest.raises(UserError, match="an embedding in every member"):
        find_embedding_layer(ensemble, torch.rand(1, 1, 8, 8))
