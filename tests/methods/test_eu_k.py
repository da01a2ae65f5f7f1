"""EU-k: where networks are cut, that what is frozen stays and what is fresh knows nothing, and the frozen outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, methods, models, tasks
from pymixunlearn.data import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.methods.eu_k.cut import Cut, Cuts, Tail, outputs
from pymixunlearn.methods.eu_k.eu_k import depths, rate
from pymixunlearn.methods.frozen_outputs import FrozenOutputs
from pymixunlearn.training import TrainConfig
from tests.methods.test_search import Decisions

Same = Callable[[nn.Module, nn.Module], bool]
SIZES = {"cnn": (1, 28), "resnet14": (3, 16), "resnet18": (3, 32), "vit": (3, 16)}


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose BatchNorm has statistics of its own, and two images for it."""
    channels, size = SIZES[name]
    model = models.build(name, num_classes=10, in_channels=channels, image_size=size, seed=1)
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    model.train()(torch.rand(8, channels, size, size, generator=torch.Generator().manual_seed(1)))
    return model.eval(), images


def check_cut(model: nn.Module, cut: Cut, images: Tensor) -> None:
    """The logits of other images than the traced ones come out of the frozen outputs, without any layer before."""
    ran: list[str] = []
    modules = dict(model.named_modules())
    before = {
        name for name in modules if any(f"{name}.".startswith(f"{layer}.") for layer in (*cut.skipped, cut.layer))
    }
    with torch.no_grad():
        expected = model(images)
        given = outputs(model, cut.layer, images)
        handles = [
            modules[name].register_forward_hook(lambda *_, name=name: ran.append(name))
            for name in before - {*cut.skipped, cut.layer}
        ]
        with Tail(model, cut, images.shape[1:]) as tail:
            torch.testing.assert_close(tail(given), expected, rtol=1e-4, atol=1e-5)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(model(images), expected)  # all layers are back
    assert not ran
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    fresh = sum(sizes[name] for name in cut.fresh)
    assert cut.frozen_share == pytest.approx(1 - fresh / sum(sizes.values()))
    assert not any(name.startswith(tuple(f"{layer}." for layer in before)) for name in cut.fresh)


@pytest.mark.parametrize(
    ("name", "most", "layer"),
    [
        ("cnn", 0.1, "features"),
        ("resnet14", 0.1, "stage1"),
        ("resnet14", 0.5, "stage2"),
        ("resnet18", 0.1, "layer2"),
        ("vit", 0.5, "blocks.1"),
        ("vit", 0.1, "patches"),
    ],
)
def test_built_in_networks_are_cut_between_their_stages(name: str, most: float, layer: str) -> None:
    model, images = network(name)
    before = copy.deepcopy(model)
    cut = Cuts(model, images).deepest(most)
    assert cut is not None and cut.layer == layer and 0 < cut.frozen_share <= most
    check_cut(model, cut, torch.rand(5, *images.shape[1:]))
    assert all(a.requires_grad == b.requires_grad for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert [a.training for a in model.modules()] == [b.training for b in before.modules()]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("cnn", ["features", "features.relu1"]),
        ("resnet14", ["stage1", "stem"]),
        ("resnet18", ["layer2", "layer1"]),
        ("vit", ["patches"]),
    ],
)
def test_a_tenth_is_tried_first_and_then_at_most_half_of_that(name: str, layers: list[str]) -> None:
    model, images = network(name)
    found = list(depths(Cuts(model, images)))
    assert [cut.layer for cut in found] == layers
    shares = [cut.frozen_share for cut in found]
    assert all(deeper <= share / 2 for share, deeper in zip(shares, shares[1:], strict=False))


def library_network(factory: str) -> nn.Module:
    """A network of torchvision or timm with ten classes."""
    library, _, name = factory.partition(":")
    torch.manual_seed(0)
    if library == "timm":
        import timm

        return timm.create_model(name, num_classes=10)
    import torchvision

    return getattr(torchvision.models, name)(num_classes=10)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("factory", "size", "layers"),
    [
        ("torchvision:resnet18", 64, ("layer2", "layer3")),
        ("torchvision:convnext_tiny", 64, ("features.5.0", "features.6")),
        ("torchvision:vit_b_16", 224, ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_4")),
        ("torchvision:swin_t", 64, ("features.4", "features.6")),
        ("timm:resnet18", 64, ("layer2", "layer3")),
        ("timm:convnext_atto", 64, ("stages.2.downsample", "stages.3.downsample.0")),
        ("timm:vit_tiny_patch16_224", 224, ("norm_pre", "blocks.4")),
        ("timm:swin_tiny_patch4_window7_224", 224, ("layers.2.downsample", "layers.3.downsample")),
    ],
)
def test_the_same_rule_cuts_networks_of_libraries(factory: str, size: int, layers: tuple[str, str]) -> None:
    """Networks whose last layers start at zero or whose blocks start as the identity too: values do not matter."""
    model = library_network(factory).eval()
    cuts = Cuts(model, torch.rand(2, 3, size, size))
    found = [cuts.deepest(most) for most in (0.1, 0.5)]
    assert [cut.layer for cut in found if cut is not None] == list(layers)
    assert next(depths(cuts)).layer == layers[0]
    with torch.no_grad():  # weights for which a wrong cut would show in the logits
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    for cut in found:
        assert cut is not None
        check_cut(model, cut, torch.rand(3, 3, size, size))


@pytest.mark.extras
@pytest.mark.parametrize(
    ("factory", "size"),
    [
        ("timm:resnet18", 32),
        ("timm:convnext_atto", 32),
        ("timm:vit_tiny_patch16_224", 224),
        ("torchvision:swin_t", 64),
    ],
)
def test_networks_of_libraries_are_trained_behind_the_cut_alone(factory: str, size: int) -> None:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, size, size), generator=stream, dtype=torch.uint8)
    classes = tuple("abcdefghij")
    dataset = data.from_tensors(images, torch.arange(8), images[:4], torch.arange(4), classes=classes)
    split, model = tasks.index_split(dataset, [0, 1]), library_network(factory)
    cut = Cuts(model, split.preprocess.evaluation(images[:2])).deepest(0.9)
    done = methods.EuK(frozen=0.9, epochs=1, batch_size=4, lr=0.01).unlearn(model, split, device="cpu")
    assert cut is not None and done.search is not None and done.search.kept == f"frozen up to {cut.layer}"
    after = dict(done.model.named_parameters())
    same = {name for name, parameter in model.named_parameters() if torch.equal(parameter, after[name])}
    assert same == set(after) - cut.fresh


class Bypassed(nn.Module):
    """A network with a way past its middle: the image itself, or a weight used on both sides."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.middle, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        if way == "weights":
            self.middle.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        hidden = self.first(flat).relu()
        middle = self.middle(hidden) if self.way != "module" else self.first(hidden)
        return self.last(middle + flat if self.way == "image" else middle)


@pytest.mark.parametrize(("way", "expected"), [("none", "first"), ("image", None), ("weights", None), ("module", None)])
def test_nothing_may_go_past_a_cut(way: str, expected: str | None) -> None:
    cut = Cuts(Bypassed(way), torch.rand(2, 3, 2, 2)).deepest(0.5)
    assert (None if cut is None else cut.layer) == expected


def resnet_job(tiny: Any, preprocess: Preprocess | None = None) -> Any:
    """A job for the small residual network on images [2, 8, 8]."""
    job = tiny.job(model=models.build("resnet14", num_classes=4, in_channels=2, image_size=8, seed=3))
    return job if preprocess is None else replace(job, split=replace(job.split, preprocess=preprocess))


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess(flip=True)], ids=["stored", "augmented"])
def test_the_front_stays_and_the_rest_starts_anew(preprocess: Preprocess, tiny: Any) -> None:
    job = resnet_job(tiny, preprocess)
    initial = copy.deepcopy(job.model).state_dict()
    other = replace(job, model=copy.deepcopy(job.model))
    method = methods.EuK(frozen=0.1, epochs=2, batch_size=4)
    done = method._run(job)
    front = ("stem.", "stage1.")
    for name, value in done.model.state_dict().items():
        if name.startswith(front):
            assert torch.equal(value, initial[name]), name  # statistics too
        elif "num_batches" not in name:
            assert not torch.equal(value, initial[name]), name
    assert all(parameter.requires_grad for parameter in done.model.parameters())
    # What it ends in depends on the front alone.
    with torch.no_grad():
        for name, parameter in other.model.named_parameters():
            if not name.startswith(front):
                parameter.add_(1.0)
    again = method._run(other).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in done.model.state_dict().items())


def test_a_step_is_that_of_the_whole_network_with_a_frozen_front(tiny: Any) -> None:
    """The rest sees what it would in the whole network: the front in evaluation mode, itself in training mode."""
    loop = methods.EuK(frozen=0.1, batch_size=4).begin(resnet_job(tiny))
    with loop.closing:
        loop.start(0)
        batch = next(loop.retain_batches(0))
        whole = copy.deepcopy(loop.model)
        whole.stem.eval()
        whole.stage1.eval()
        expected = whole(batch.images)
        torch.testing.assert_close(loop.logits(batch), expected, rtol=1e-4, atol=1e-5)
        trained = {name for name, parameter in loop.model.named_parameters() if parameter.requires_grad}
        assert trained == {name for name, _ in whole.named_parameters() if not name.startswith(("stem.", "stage1."))}
        for mine, theirs in zip(loop.model.buffers(), whole.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_depths_are_tried_until_one_is_accepted(tiny: Any) -> None:
    recipe = methods.Recipe(TrainConfig(epochs=2), TrainConfig(epochs=2))
    for decisions, kept in ((("accepted",), "frozen up to stage1"), (("refused", "accepted"), "frozen up to stem")):
        job = replace(resnet_job(tiny), chooser=Decisions(*decisions), given_recipe=recipe)
        done = methods.EuK(batch_size=4)._run(job)
        assert done.search is not None and done.search.tested and done.search.kept == kept
    job = replace(resnet_job(tiny), chooser=Decisions("refused", "refused"), given_recipe=recipe)
    done = methods.EuK(batch_size=4)._run(job)
    assert done.search is not None and done.search.kept == "Retrain"
    initial = resnet_job(tiny).model.state_dict()
    assert not any(
        torch.equal(done.model.state_dict()[name], initial[name]) for name in ("stem.conv.weight", "head.weight")
    )


def test_what_the_owner_froze_is_neither_renewed_nor_trained(tiny: Any) -> None:
    job = resnet_job(tiny)
    job.model.stage3.requires_grad_(False)
    before = copy.deepcopy(job.model.stage3.state_dict())
    done = methods.EuK(frozen=0.1, epochs=1, batch_size=4)._run(job)
    after = dict(done.model.stage3.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name in after)
    assert not any(parameter.requires_grad for parameter in after.values())


def test_a_network_that_cannot_be_cut_is_retrained(tiny: Any) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Linear(128, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.only(images.flatten(1))

    recipe = methods.Recipe(TrainConfig(epochs=1), TrainConfig(epochs=2))
    done = methods.EuK(batch_size=4)._run(replace(tiny.job(model=Whole()), given_recipe=recipe))
    assert done.search is not None and done.search.kept == "Retrain" and len(done.history) == 2


@pytest.mark.parametrize("budget", [0, 1024])
def test_frozen_outputs_are_the_fronts_in_memory_and_in_a_file(budget: int, tiny: Any) -> None:
    split = tiny.split()
    front = nn.Conv2d(2, 3, 3)
    with ExitStack() as closing:
        found = FrozenOutputs(
            lambda images: [front(images), images.mean((2, 3))],
            split.retain,
            split.preprocess,
            device=torch.device("cpu"),
            budget_mb=budget,
            closing=closing,
        )
        wanted = torch.tensor([3, 0, 7])
        images = split.preprocess.evaluation(split.retain.gather(wanted))
        maps, means = found(wanted)
        torch.testing.assert_close(maps, front(images), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(means, images.mean((2, 3)))


def test_a_folder_without_room_is_named(tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match=r"outputs of frozen layers need .* has 0.0 GB left; set TMPDIR"):
        methods.EuK(frozen=0.1, epochs=1, cache_mb=0)._run(resnet_job(tiny))
    assert not list(tmp_path.iterdir())


def test_a_file_changes_no_bit(tiny: Any, same_weights: Same) -> None:
    in_memory, in_file = (
        methods.EuK(frozen=0.1, epochs=2, batch_size=4, cache_mb=cache)._run(resnet_job(tiny)).model
        for cache in (64, 0)
    )
    assert same_weights(in_memory, in_file)


def test_the_rate_is_constant_and_falls_over_the_last_part() -> None:
    assert [rate(step, 100) for step in (0, 50, 70)] == [1.0, 1.0, 1.0]
    assert [rate(step, 100) for step in (85, 99)] == pytest.approx([0.5, 1 / 30])


def test_it_forgets_a_class_with_labels_and_without(digits_model: nn.Module, digits_class: tasks.Split) -> None:
    for label_aware in (True, False):
        result = methods.EuK(label_aware=label_aware).unlearn(digits_model, digits_class, device="cpu")
        with torch.no_grad():
            test = digits_class.test
            predicted = result.model(digits_class.preprocess.evaluation(test.images)).argmax(1)
        assert not (predicted == 0).any()
        assert (predicted == test.targets)[test.targets != 0].double().mean() > 0.9
        assert result.search is not None and result.search.untested == "there is no validation set"
