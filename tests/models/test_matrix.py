"""Every kind of model that people bring, with unlearn, retrain, evaluate, save and load."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, methods, models, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import evaluate
from pymixunlearn.models.copying import private_copy
from pymixunlearn.training import load_model, model_hash, save_model

CLASSES = 4


class Small(nn.Module):
    """A small network; what kinds of models add to it is in their rows."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.head = nn.Linear(64, classes)  # not the last module
        self.conv, self.norm, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(4)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.pool(self.norm(self.conv(images)).relu()).flatten(1))


def _returning(form: Callable[[Tensor], Any]) -> nn.Module:
    class Form(Small):
        def forward(self, images: Tensor) -> Any:
            return form(super().forward(images))

    return Form()


def _keeping() -> nn.Module:
    class Keeping(Small):
        def forward(self, images: Tensor) -> Any:
            self.seen = super().forward(images)
            return self.seen

    model = Keeping()
    model(torch.rand(2, 3, 8, 8))
    return model


def _with_new_head() -> nn.Module:
    model = models.build("cnn", num_classes=10, in_channels=3, image_size=8)
    model.head = nn.Linear(128, CLASSES)
    return model


def _not_contiguous() -> nn.Module:
    model = Small().to(memory_format=torch.channels_last)
    model.head.weight = nn.Parameter(torch.randn(64, CLASSES).t())
    return model


def _tied() -> nn.Module:
    class Tied(Small):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Conv2d(4, 4, 3, padding=1)
            self.more = nn.Conv2d(4, 4, 3, padding=1)
            self.more.weight = self.again.weight

        def forward(self, images: Tensor) -> Any:
            hidden = self.more(self.again(self.norm(self.conv(images))))
            return self.head(self.pool(hidden).flatten(1))

    return Tied()


def _normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = Small()
    norm(model.head)
    model(torch.rand(2, 3, 8, 8))  # the old form then holds a weight with a history
    return model


def _torchvision(name: str, **options: Any) -> nn.Module:
    model: nn.Module = importlib.import_module("torchvision.models").get_model(
        name, weights=None, num_classes=CLASSES, **options
    )
    return model


def _timm(name: str, **options: Any) -> nn.Module:
    model: nn.Module = importlib.import_module("timm").create_model(name, num_classes=CLASSES, **options)
    return model


def _hugging_face() -> nn.Module:
    transformers = importlib.import_module("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=CLASSES)
    model: nn.Module = transformers.ViTForImageClassification(config)
    return model


def _lora(model: nn.Module, targets: list[str]) -> nn.Module:
    peft = importlib.import_module("peft")
    adapted: nn.Module = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, r=2))
    return adapted


ROWS: dict[str, Callable[[], nn.Module]] = {
    "own": Small,
    "float16": lambda: Small().half(),
    "bfloat16": lambda: Small().bfloat16(),
    "float64": lambda: Small().double(),
    "built, float64": lambda: models.build("cnn", num_classes=CLASSES, in_channels=3, image_size=8).double(),
    "object": lambda: _returning(lambda z: SimpleNamespace(logits=z)),
    "tuple": lambda: _returning(lambda z: (z.mean(), z)),
    "dict": lambda: _returning(lambda z: {"scores": z}),
    "softmax": lambda: _returning(lambda z: z.softmax(1)),
    "keeps an activation": _keeping,
    "weight_norm": lambda: _normed(nn.utils.parametrizations.weight_norm),
    "old weight_norm": lambda: _normed(nn.utils.weight_norm),
    "new head": _with_new_head,
    "DataParallel": lambda: nn.DataParallel(Small()),
    "compiled": lambda: torch.compile(Small(), backend="eager"),  # type: ignore[dict-item]
    "not contiguous": _not_contiguous,
    "tied": _tied,
    "mobilenet": lambda: _torchvision("mobilenet_v3_small"),
}
SLOW = {
    "resnet18": lambda: _torchvision("resnet18"),
    "googlenet": lambda: _torchvision("googlenet", aux_logits=True, init_weights=False),
    "inception": lambda: _torchvision("inception_v3", aux_logits=True, init_weights=False),
    "inception without auxiliary head": lambda: _torchvision("inception_v3", aux_logits=False, init_weights=False),
}
EXTRAS = {
    "timm vit": lambda: _timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2),
    "timm resnet10t": lambda: _timm("resnet10t"),
    "timm convnext": lambda: _timm("convnext_atto"),
    "timm swin": lambda: _timm("swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(1, 1, 1, 1)),
    "Hugging Face": _hugging_face,
    "LoRA on timm": lambda: _lora(_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2), ["qkv"]),
    "LoRA on Hugging Face": lambda: _lora(_hugging_face(), ["q_proj", "query"]),
}
SIZES = {
    "googlenet": 64,
    "inception": 299,
    "inception without auxiliary head": 75,
    **{name: 32 for name in (*EXTRAS, "mobilenet", "resnet18")},
}


def _split(size: int) -> tasks.Split:
    count = 8 if size == 299 else 24
    targets = torch.arange(count) % CLASSES
    noise = torch.randint(0, 60, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    images = (noise + 60 * targets[:, None, None, None]).to(torch.uint8)
    return tasks.class_split(data.from_tensors(images, targets, images, targets, classes=tuple("abcd")), [0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [*ROWS]
    + [pytest.param(name, marks=pytest.mark.slow) for name in SLOW]
    + [pytest.param(name, marks=pytest.mark.extras) for name in EXTRAS],
)
def test_a_model_is_unlearned_retrained_evaluated_saved_and_loaded(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = {**ROWS, **SLOW, **EXTRAS}[name]()
    split = _split(SIZES.get(name, 8))
    before, hooks = model_hash(model), (len(model._forward_hooks), len(model._forward_pre_hooks))

    for method in (methods.get("mixunlearn")(epochs=1, lr=0.01), methods.get("retrain")(epochs=1, lr=0.01)):
        result = method.unlearn(model, split, device="cpu").model
        assert type(result) is type(model)
        state, given = result.state_dict(), model.state_dict()
        assert {key: (value.shape, value.dtype, value.stride()) for key, value in state.items()} == {
            key: (value.shape, value.dtype, value.stride()) for key, value in given.items()
        }
        assert model_hash(result) != before
        assert [p.requires_grad for p in result.parameters()] == [p.requires_grad for p in model.parameters()]
        metrics = evaluate(result, split, device="cpu")
        assert metrics["test_r"] is not None and metrics["test_f"] is not None

        save_model(tmp_path / "model.safetensors", result)
        back = load_model(tmp_path / "model.safetensors", into=private_copy(model))
        assert model_hash(back) == model_hash(result)
        assert not result._forward_pre_hooks or name == "old weight_norm"
    assert model_hash(model) == before
    assert hooks == (len(model._forward_hooks), len(model._forward_pre_hooks))


@pytest.mark.parametrize("name", ["own", "bfloat16", "not contiguous", "mobilenet"])
def test_a_model_comes_back_in_the_memory_layout_that_it_was_given_in(name: str) -> None:
    model, split = ROWS[name](), _split(SIZES.get(name, 8))
    result = methods.get("mixunlearn")(epochs=1, lr=0.01, channels_last=True).unlearn(model, split, device="cpu").model
    assert model_hash(result) != model_hash(model)
    for key, value in result.state_dict().items():
        assert value.stride() == model.state_dict()[key].stride(), key


def test_auxiliary_heads_are_ignored_and_said() -> None:
    class Auxiliary(Small):
        def forward(self, images: Tensor) -> Any:
            logits = super().forward(images)
            return (logits, logits.flip(1)) if self.training else logits

    with pytest.warns(UserWarning, match="further outputs, 1; they are ignored, in training too"):
        methods.get("retrain")(epochs=1).unlearn(Auxiliary(), _split(8), device="cpu")


class _Large(Small):
    """Has an auxiliary head that needs larger images than the network itself, as Inception v3 does."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(4, CLASSES, 17)

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return (logits, self.auxiliary(self.conv(images)).flatten(1)) if self.training else logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["mixunlearn", "retrain"])
def test_an_auxiliary_head_that_needs_larger_images_is_named_before_any_work(method: str) -> None:
    told = "in training mode, where 'auxiliary' runs too: .*; expected larger images, or a model without its auxiliary"
    with pytest.raises(UserError, match=told):
        methods.get(method)(epochs=1).unlearn(_Large(), _split(8), device="cpu")
    assert methods.get(method)(epochs=1).unlearn(_Large(), _split(17), device="cpu").history
    evaluate(_Large(), _split(8), device="cpu")  # where the head does not run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(CLASSES)), "lazy layers"),
        (lambda: torch.jit.script(Small()), "TorchScript program"),
        (lambda: models.build("cnn", num_classes=CLASSES, in_channels=1, image_size=8), "takes 1 channels.*have 3"),
        (lambda: Small(1000), "'head' has 1000 outputs"),
        (lambda: _returning(lambda z: {"scores": z[0]}), r"a dict with scores \(\[4\]\)"),
    ],
    ids=["lazy", "script", "one channel", "1000 classes", "dict without logits"],
)
@pytest.mark.parametrize("action", ["mixunlearn", "retrain", "evaluate"])
def test_what_cannot_work_is_one_sentence(model: Callable[[], nn.Module], message: str, action: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        if action == "evaluate":
            evaluate(model(), _split(8), device="cpu")
        else:
            methods.get(action)(epochs=1).unlearn(model(), _split(8), device="cpu")
    assert "\n" not in str(raised.value)


def test_a_plain_model_gives_no_notes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(Small(), _split(8), device="cpu")
