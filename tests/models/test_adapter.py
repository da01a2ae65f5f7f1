from __future__ import annotations

import copy
import threading
import warnings
from collections import namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import adapted, check_predictions, input_dtype, release, trainable
from pymixunlearn.models.copying import Precision, private_copy
from pymixunlearn.models.logits import are_probabilities, find_logits, log_probabilities
from pymixunlearn.training import model_hash

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Pair = namedtuple("Pair", ["hidden", "scores"])


def cnn(**changes: int) -> nn.Module:
    return models.build("cnn", **{"num_classes": 4, "in_channels": 1, "image_size": 8, **changes}).eval()


class Returning(nn.Module):
    """The logits of a network, in whatever form."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.network, self.form = cnn(), form

    def forward(self, images: Tensor) -> Any:
        return self.form(self.network(images))


@pytest.fixture
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


FORMS = {
    "tensor": (lambda z: z, ()),
    "attribute": (lambda z: SimpleNamespace(logits=z, loss=None), ()),
    "tuple": (lambda z: (z, torch.zeros(3)), ("1",)),
    "later in a list": (lambda z: [None, z[:, :2], z], ("1",)),
    "dict": (lambda z: {"scores": z}, ()),
    "key": (lambda z: {"hidden": z * 0, "logits": z}, ("hidden",)),
    "named tuple": (lambda z: Pair(z[:, :3], z), ("hidden",)),
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_any_output(form: str) -> None:
    make, ignored = FORMS[form]
    logits = torch.rand(5, 4)
    found = find_logits(make(logits), 5, 4)
    assert found.logits is logits
    assert found.ignored == ignored


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(5, 7), r"maps one image to \[1, 7\]; expected logits \[1, 4\]"),
        (torch.zeros(5, 4, 1), r"to \[1, 4, 1\]"),
        (torch.zeros(4), r"to \[4\]"),
        (torch.zeros(5, 4, dtype=torch.int64), r"to \[1, 4\] of torch.int64"),
        (
            {"a": torch.zeros(5, 3), "b": None},
            r"to a dict with a \(\[1, 3\]\), b \(NoneType\); expected logits \[1, 4\]",
        ),
        ((), "to a tuple; expected"),
        (None, "to a NoneType; expected"),
        ("text", "to a str; expected"),
    ],
)
def test_outputs_without_logits_are_named(output: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_logits(output, 5, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("built", [True, False], ids=["built", "own"])
def test_a_network_of_any_type_takes_and_gives_float32(dtype: torch.dtype, built: bool) -> None:
    model = cnn() if built else Returning(lambda z: z)
    expected = model(IMAGES)
    model.to(dtype)
    before = model_hash(model)
    with adapted(model, IMAGES, 4):
        for network in (model, copy.deepcopy(model)):
            logits = network(IMAGES)
            assert logits.dtype == torch.float32
            torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.05)
    assert model_hash(model) == before
    assert model(IMAGES.to(dtype)).dtype == dtype
    assert not model._forward_hooks and not model._forward_pre_hooks


@pytest.mark.usefixtures("silent")
def test_networks_that_need_nothing_get_nothing() -> None:
    model = cnn()
    with adapted(model, IMAGES, 4):
        assert not model._forward_hooks and not model._forward_pre_hooks


@pytest.mark.parametrize("form", [name for name, (_, ignored) in FORMS.items() if ignored])
def test_outputs_that_are_ignored_are_said_once(form: str) -> None:
    model = Returning(FORMS[form][0]).eval()
    with pytest.warns(UserWarning, match="further outputs.*ignored") as said, adapted(model, IMAGES, 4):
        for _ in range(3):
            assert torch.equal(model(IMAGES), model.network(IMAGES))
    assert len(said) == 1


@pytest.mark.usefixtures("silent")
def test_auxiliary_heads_that_only_speak_in_training() -> None:
    class Auxiliary(Returning):
        def forward(self, images: Tensor) -> Any:
            logits = self.network(images)
            return Pair(logits, logits * 2) if self.training else logits

    model = Auxiliary(None).eval()
    with adapted(model, IMAGES, 4), pytest.warns(UserWarning, match="further outputs, scores; they are ignored"):
        assert torch.equal(model(IMAGES), model.train()(IMAGES))


def test_probabilities_are_noticed_and_become_logarithms() -> None:
    model = Returning(lambda z: z.softmax(1)).eval()
    with pytest.warns(
        UserWarning, match=r"returns probabilities: its outputs for 5 images lie in \[0, 1\] and sum to 1"
    ):
        with adapted(model, IMAGES, 4):
            logits = model(IMAGES)
    torch.testing.assert_close(logits.softmax(1), model(IMAGES))
    assert are_probabilities(model(IMAGES)) and not are_probabilities(model.network(IMAGES))
    assert log_probabilities(torch.tensor([0.0, 1.0])).isfinite().all()


def test_outputs_of_a_sigmoid_are_noticed_and_stay_what_they_are() -> None:
    model = Returning(lambda z: z.sigmoid()).eval()
    with pytest.warns(UserWarning, match=r"numbers from 0 to 1 for 5 images, as a sigmoid does; they are used as"):
        with adapted(model, IMAGES, 4):
            logits = model(IMAGES)
    assert torch.equal(logits, model(IMAGES))


@pytest.mark.parametrize("form", [lambda z: z, lambda z: z.log_softmax(1)])
@pytest.mark.usefixtures("silent")
def test_other_outputs_are_no_probabilities(form: Any) -> None:
    with adapted(Returning(form).eval(), IMAGES, 4):
        pass


def test_release_frees_copies_and_leaves_the_users_hooks() -> None:
    model = Returning(lambda z: (z,)).eval()
    seen: list[Any] = []
    model.register_forward_hook(lambda module, args, output: seen.append(type(output)))
    with adapted(model, IMAGES, 4):
        outer = nn.Sequential(copy.deepcopy(model))
        assert isinstance(outer(IMAGES), Tensor)
    release(outer)
    assert isinstance(outer(IMAGES), tuple) and isinstance(model(IMAGES), tuple)
    assert set(seen) == {tuple}


def test_nested_blocks_adapt_once() -> None:
    model = Returning(lambda z: (z,)).eval()
    with adapted(model, IMAGES, 4), adapted(model), trainable(model):
        assert len(model._forward_hooks) == 1
        assert isinstance(model(IMAGES), Tensor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_widened_for_training_and_come_back(dtype: torch.dtype) -> None:
    model = cnn().to(dtype)
    model.head.float()  # a part that was float32 stays so
    model.register_buffer("scale", torch.ones(1, dtype=dtype))
    before = model_hash(model)
    with trainable(model):
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
        ensemble = models.Ensemble([copy.deepcopy(model)])
        precision = Precision(copy.deepcopy(model))
    assert model_hash(model) == before
    assert input_dtype(model) == dtype and model.head.weight.dtype == torch.float32
    precision.restore(ensemble)  # of a float32 network: nothing to do
    assert input_dtype(ensemble.members[0]) == torch.float32
    noted = Precision(copy.deepcopy(model))
    noted.restore(ensemble)
    assert model_hash(ensemble.members[0]) == before and ensemble.weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (cnn(), torch.rand(2, 3, 8, 8), r"\[2, 3, 8, 8\].*first convolution takes 1 channels, the images have 3"),
        (cnn(), torch.rand(2, 1, 9, 20), r"cannot process images \[2, 1, 9, 20\] of torch.float32: "),
        (
            cnn(num_classes=1000),
            IMAGES,
            r"\[1, 1000\]; expected .*\[1, 4\].*'head' has 1000 outputs: replace it by one",
        ),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), IMAGES, r"lazy layers without weights \('1.weight'\)"),
        (Returning(lambda z: {"a": z[0]}), IMAGES, r"a dict with a \(\[4\]\)"),
        (lambda images: images, IMAGES, "model is a function; expected a torch.nn.Module"),
        (cnn().to("meta"), IMAGES, "'features.conv1.weight' is on the device meta.; expected loaded weights"),
        (
            Returning(lambda z: z + 0j),
            IMAGES,
            "model returns torch.complex64; expected logits of a floating-point type",
        ),
        (Returning(lambda z: z.long()), IMAGES, "model returns torch.int64; expected logits of a floating-point type"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_one_sentence(model: Any, images: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised, adapted(model, images, 4):
        pass
    assert "\n" not in str(raised.value)
    assert not getattr(model, "_forward_hooks", None)


def test_models_without_a_gradient_are_judged_but_not_trained() -> None:
    detached = Returning(lambda z: z.detach())
    with adapted(detached, IMAGES, 4):
        assert detached(IMAGES).shape == (len(IMAGES), 4)
    with (
        pytest.raises(UserError, match="logits without a gradient; expected"),
        adapted(detached, IMAGES, 4, finite=True),
    ):
        pass
    frozen = cnn().requires_grad_(False)  # told elsewhere
    with adapted(frozen, IMAGES, 4, finite=True):
        pass
    quantized = cnn()
    quantized.head = type("Linear", (nn.Linear,), {"__module__": "torch.ao.nn.quantized.dynamic"})(128, 4)
    with pytest.raises(UserError, match="quantized layer 'head'"), adapted(quantized, IMAGES, 4, finite=True):
        pass


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of TorchScript itself
@pytest.mark.parametrize("kind", ["script", "trace", "exported", "exported module"])
def test_programs_are_refused_with_the_way_out(kind: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    model: Any = {
        "script": torch.jit.script,
        "trace": lambda module: torch.jit.trace(module, IMAGES),
        "exported": lambda module: torch.export.export(module, (IMAGES,)),
        "exported module": lambda module: torch.export.export(module, (IMAGES,)).module(),
    }[kind](network)
    with pytest.raises(UserError, match="program.*expected the torch.nn.Module that it was made from"):
        with adapted(model, IMAGES, 4):
            pass


def test_a_traced_graph_that_can_be_trained_is_accepted() -> None:
    with adapted(torch.fx.symbolic_trace(cnn()), IMAGES, 4):
        pass


def test_weights_that_are_not_finite_are_named() -> None:
    model = cnn()
    model.hidden.weight.data[0, :2] = float("nan")
    with pytest.raises(
        UserError, match="diverged: its parameter 'hidden.weight' holds such values, 2 of 32768; expected neither NaN"
    ):
        with adapted(model, IMAGES, 4, finite=True):
            pass
    with adapted(model, IMAGES, 4):
        with pytest.raises(UserError, match="NaN or infinite for 5 of 5 images .its parameter 'hidden.weight'"):
            check_predictions(model, model(IMAGES))


@pytest.mark.parametrize(("value", "accepted"), [("-inf", True), ("inf", False), ("nan", False)])
def test_a_masked_class_may_be_judged_but_not_trained_with(value: str, accepted: bool) -> None:
    model = Returning(lambda z: z.masked_fill(torch.arange(4) == 2, float(value))).eval()
    with pytest.raises(UserError, match="logit -inf for class 2" if accepted else "NaN or infinite"):
        with adapted(model, IMAGES, 4, finite=True):
            pass
    if accepted:
        check_predictions(model, model(IMAGES))
    else:
        with pytest.raises(UserError, match="for 5 of 5 images"):
            check_predictions(model, model(IMAGES))
    with pytest.raises(UserError, match="infinite for 1 of 2"):
        check_predictions(model, torch.tensor([[0.0, 1.0], [-torch.inf, -torch.inf]]))


@pytest.mark.parametrize("where", ["attribute", "list", "buffer"])
def test_a_network_that_keeps_an_activation_is_copied(where: str) -> None:
    model = cnn()
    activation = model.features(IMAGES)
    if where == "buffer":
        model.register_buffer("seen", activation, persistent=False)
    else:
        model.seen = activation if where == "attribute" else [activation]
    copied = private_copy(model)
    kept = copied.seen[0] if where == "list" else copied.seen
    assert torch.equal(kept, activation) and kept.grad_fn is None
    assert activation.grad_fn is not None  # the given network is as it was
    assert model_hash(copied) == model_hash(model)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the old form is still widely used
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_network_with_weight_norm_is_copied(norm: Any) -> None:
    model = nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 4)))
    model(IMAGES).sum().backward()
    copied = private_copy(model)
    assert torch.equal(copied(IMAGES), model(IMAGES))
    copied.load_state_dict({name: 2 * value for name, value in copied.state_dict().items()})
    assert not torch.equal(copied(IMAGES), model(IMAGES))


@pytest.mark.parametrize("layer", ["", "hidden"])
def test_an_attribute_that_cannot_be_copied_is_named(layer: str) -> None:
    model = cnn()
    model.get_submodule(layer).guard = threading.Lock()
    place = f"{layer}.guard".lstrip(".")
    with pytest.raises(
        UserError, match=f"cannot be copied because of its attribute '{place}' \\(lock\\): cannot pickle"
    ):
        private_copy(model)
