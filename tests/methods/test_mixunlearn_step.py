"""One training step of MixUnlearn against the paper's equations written out in double precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.mixunlearn import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.step import MixUnlearnLoop

LAM_GEN, LAM_MIX = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.65, dtype=torch.float64)
CASES = [
    {"pairing": "zip", "label_aware": False},
    {"pairing": "zip", "label_aware": True},
    {"pairing": "grid", "label_aware": False},
    {"pairing": "grid", "label_aware": True, "reduction": "mean"},
    {"pairing": "zip", "sharpen": False},
    {"pairing": "zip", "adversary": "ema", "ema_momentum": 0.9},
    {"pairing": "grid", "generator": "vanilla"},
    {"pairing": "zip", "generator": "mixblock-lam"},
    {"pairing": "grid", "generator": "mixblock-lam", "label_aware": True},
    {"pairing": "zip", "use_mix_loss": False},
    {"pairing": "zip", "use_real_loss": False},
]


def _loop(config: MixUnlearnConfig, tiny: Any) -> MixUnlearnLoop:
    """A loop in float64 whose unlearner has left the initial model and whose MixBlock has large weights."""
    loop = MixUnlearnLoop(config).begin(tiny.job())
    stream = torch.Generator().manual_seed(9)
    for module, scale in ((loop.model, 0.05), (loop.mixblock, 1.0)):
        if module is None:
            continue
        module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64), alpha=scale)
    loop.initial.double()
    loop.adversary.double()
    return loop


def _batches() -> tuple[Batch, Batch]:
    stream = torch.Generator().manual_seed(4)

    def draw(n: int) -> Batch:
        images = torch.rand(n, 2, 8, 8, generator=stream, dtype=torch.float64)
        return Batch(images, torch.randint(4, (n,), generator=stream), torch.arange(n))

    return draw(5), draw(5)


class Literal:
    """The equations of the paper, pair by pair, with nothing shared with the code under test."""

    def __init__(self, config: MixUnlearnConfig, initial: nn.Module, forget: Batch, retain: Batch) -> None:
        self.config = config
        self.x_f, self.x_r = forget.images, retain.images
        with torch.no_grad():
            self.h_f, self.h_r = (self._features(initial, images) for images in (self.x_f, self.x_r))
            self.p_f = self._target(initial(self.x_f), forget.targets)
            self.p_r = self._target(initial(self.x_r), retain.targets)

    def _features(self, initial: nn.Module, images: Tensor) -> Tensor:
        """h_D, in the held form as deviations from each image's mean, in units of their root mean square."""
        features = initial.body(images)
        if self.config.generator == "mixblock-lam":
            features = features - features.mean((1, 2, 3), keepdim=True)
            features = features / features.square().mean((1, 2, 3), keepdim=True).sqrt()
        return features

    def _held(self, logits: Tensor, lam: Tensor) -> Tensor:
        """Shift mask logits [1, h, w] until the mean of their sigmoid is lam, by halving, and once by Newton's step."""
        low, high = -50.0, 50.0
        for _ in range(100):
            shift = (low + high) / 2
            low, high = (shift, high) if (logits + shift).sigmoid().mean() < lam else (low, shift)
        shown = (logits + shift).sigmoid()
        # The value of this step is zero; its gradient is what the shift does as the logits change.
        return logits + shift - (shown.mean() - lam) / (shown * (1 - shown)).mean().detach()

    def _target(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """Eqs. 4 and 8."""
        if self.config.label_aware:
            assert labels is not None
            return torch.eye(4, dtype=torch.float64)[labels]
        powers = torch.softmax(logits, 1) ** (1 / self.config.sharpen_T if self.config.sharpen else 1)
        return powers / powers.sum(1, keepdim=True)

    def pairs(self, order: Tensor) -> list[tuple[int, int]]:
        """(forget, retain) samples in the order of the mixes."""
        if self.config.pairing == "grid":
            return [(i, j) for i in range(5) for j in range(5)]
        return [(i, int(order[i])) for i in range(5)]

    def mix(self, weight: Tensor | None, bias: Tensor | None, lam: Tensor, order: Tensor) -> Tensor:
        """Eqs. 1 and 2."""
        mixes = []
        for i, j in self.pairs(order):
            if weight is None or bias is None:
                mixes.append(lam * self.x_f[i] + (1 - lam) * self.x_r[j])
                continue
            d = (len(weight) - 1) // 2
            a, b = self.h_f[i], self.h_r[j]
            a = torch.cat([a, lam.expand(1, *a.shape[1:])]).flatten(1)
            b = torch.cat([b, (1 - lam).expand(1, *b.shape[1:])]).flatten(1)
            m_f, m_r = weight @ a + bias[:, None], weight @ b + bias[:, None]
            l_f = torch.softmax(m_f[:d].T @ m_r[d : 2 * d] / math.sqrt(d), 1) @ m_f[2 * d]
            l_r = torch.softmax(m_r[:d].T @ m_f[d : 2 * d] / math.sqrt(d), 1) @ m_r[2 * d]
            maps = torch.stack([l_f, l_r]).view(1, 2, 4, 4)
            if self.config.generator == "mixblock-lam":
                maps = torch.stack([self._held(maps[:, 0] - maps[:, 1], lam), torch.zeros_like(maps[:, 0])], 1)
            mask = torch.softmax(F.interpolate(maps, (8, 8), mode="bilinear", align_corners=False), 1)[0]
            mixes.append(mask[0] * self.x_f[i] + mask[1] * self.x_r[j])
        return torch.stack(mixes)

    @staticmethod
    def sim(logits: Tensor, target: Tensor) -> Tensor:
        p = torch.softmax(logits, 0)
        return 1 - (p @ target) / (p @ p).sqrt() / (target @ target).sqrt()

    def mix_loss(self, logits: Tensor, lam: Tensor, tau: float, order: Tensor) -> Tensor:
        """Eq. 5."""
        pairs = self.pairs(order)
        s_f = [self.sim(z, self.p_f[i]) for z, (i, _) in zip(logits, pairs, strict=True)]
        s_r = [self.sim(z, self.p_r[j]) for z, (_, j) in zip(logits, pairs, strict=True)]
        if self.config.pairing == "zip":
            denominator = sum(torch.exp(lam * s / tau) for s in s_f)
            terms = [torch.log(torch.exp((1 - lam) * s) / denominator) for s in s_r]
        else:
            terms = []
            for j in range(5):
                rows = [i * 5 + j for i in range(5)]
                numerator = torch.exp((1 - lam) * sum(s_r[row] for row in rows) / 5)
                terms.append(torch.log(numerator / sum(torch.exp(lam * s_f[row] / tau) for row in rows)))
        return torch.stack(terms).sum() / (5 if self.config.reduction == "mean" else 1)

    def real_loss(self, z_f: Tensor, z_r: Tensor) -> Tensor:
        """Eq. 6."""
        denominator = sum(torch.exp(self.sim(z, p) / self.config.tau_real) for z, p in zip(z_f, self.p_f, strict=True))
        terms = [torch.log(torch.exp(self.sim(z, p)) / denominator) for z, p in zip(z_r, self.p_r, strict=True)]
        return torch.stack(terms).sum() / (5 if self.config.reduction == "mean" else 1)


def _close(got: Tensor | None, expected: Tensor) -> None:
    assert got is not None
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-11)


def _adam_first_step(before: Tensor, gradient: Tensor, lr: float) -> Tensor:
    """Adam's first step: both moments are bias-corrected back to the gradient itself."""
    return before - lr * gradient / (gradient.abs() + 1e-8)


@pytest.mark.parametrize("fields", CASES, ids=str)
def test_a_step_is_the_equations(fields: dict[str, Any], tiny: Any) -> None:
    config = MixUnlearnConfig(batch_size=5, lr=1e-3, **fields)
    loop = _loop(config, tiny)
    forget_batch, retain_batch = _batches()
    literal = Literal(config, loop.initial, forget_batch, retain_batch)
    forget, retain = loop.prepare(forget_batch, retain_batch)
    block = loop.mixblock
    identity = torch.arange(5)

    if block is not None:
        weight, bias = (parameter.detach().clone().requires_grad_() for parameter in (block.weight, block.bias))
        adversary = copy.deepcopy(loop.adversary).eval()
        mixed = literal.mix(weight, bias, LAM_GEN, identity)
        expected = -literal.mix_loss(adversary(mixed), LAM_GEN, config.tau_gen, identity)
        gradients = torch.autograd.grad(expected, (weight, bias))
        measured = loop.train_generator(forget, retain, LAM_GEN)
        _close(measured["generator"], expected)
        plain = adversary(literal.mix(None, None, LAM_GEN, identity))
        _close(measured["generator_vanilla"], -literal.mix_loss(plain, LAM_GEN, config.tau_gen, identity))
        for parameter, before, gradient in zip((block.weight, block.bias), (weight, bias), gradients, strict=True):
            _close(parameter.grad, gradient)
            assert gradient.abs().max() > 1e-6
            _close(parameter, _adam_first_step(before, parameter.grad, loop.config.generator_lr))
    else:
        assert loop.train_generator(forget, retain, LAM_GEN) == {}

    order = torch.randperm(5, generator=torch.Generator().manual_seed(3))
    network = copy.deepcopy(loop.model).train()
    images = [literal.x_f, literal.x_r]
    if config.use_mix_loss:
        parts = (None, None) if block is None else (block.weight.detach(), block.bias.detach())
        images.append(literal.mix(*parts, LAM_MIX, order))
    logits = network(torch.cat(images))
    expected = torch.zeros((), dtype=torch.float64)
    if config.use_mix_loss:
        expected = expected + literal.mix_loss(logits[10:], LAM_MIX, config.tau_mix, order)
    if config.use_real_loss:
        expected = expected + config.omega * literal.real_loss(logits[:5], logits[5:10])
    expected.backward()

    measured = loop.train_unlearner(forget, retain, LAM_MIX, None if config.pairing == "grid" else order)
    _close(measured["total"], expected)
    for (name, parameter), mine in zip(network.named_parameters(), loop.model.parameters(), strict=True):
        assert parameter.grad is not None and mine.grad is not None
        assert parameter.grad.abs().max() > 1e-6, name
        _close(mine.grad, parameter.grad)
        _close(mine, _adam_first_step(parameter, mine.grad, config.lr))
    for buffer, mine in zip(network.buffers(), loop.model.buffers(), strict=True):
        _close(mine, buffer)
    if config.adversary == "ema":
        for average, old, new in zip(
            loop.adversary.parameters(), adversary.parameters(), loop.model.parameters(), strict=True
        ):
            _close(average, 0.9 * old + 0.1 * new)
        for average, new in zip(loop.adversary.buffers(), loop.model.buffers(), strict=True):
            assert torch.equal(average, new)


@pytest.mark.parametrize("adversary", ["current", "ema"])
def test_the_generator_step_leaves_the_unlearner_alone(
    adversary: Any, tiny: Any, same_weights: Callable[[nn.Module, nn.Module], bool]
) -> None:
    loop = _loop(MixUnlearnConfig(batch_size=5, adversary=adversary), tiny)
    loop.model.body.norm.eval()  # a user may have frozen some layers; their modes are put back too
    loop.model.head.bias.requires_grad_(False)
    before = copy.deepcopy(loop.model), copy.deepcopy(loop.adversary), copy.deepcopy(loop.initial)
    forget, retain = loop.prepare(*_batches())
    loop.train_generator(forget, retain, LAM_GEN)
    for old, new in zip(before, (loop.model, loop.adversary, loop.initial), strict=True):
        assert same_weights(old, new)
    assert all(parameter.grad is None for parameter in loop.model.parameters())
    assert loop.model.training and not loop.model.body.norm.training
    flags = {name: parameter.requires_grad for name, parameter in loop.model.named_parameters()}
    assert flags == {"body.conv.weight": True, "body.norm.weight": True, "body.norm.bias": True} | {
        "head.weight": True,
        "head.bias": False,
    }


def test_the_unlearner_step_leaves_the_generator_and_the_initial_model_alone(
    tiny: Any, same_weights: Callable[[nn.Module, nn.Module], bool]
) -> None:
    loop = _loop(MixUnlearnConfig(batch_size=5), tiny)
    assert loop.mixblock is not None
    before = copy.deepcopy(loop.mixblock), copy.deepcopy(loop.initial)
    forget, retain = loop.prepare(*_batches())
    loop.train_unlearner(forget, retain, LAM_MIX, torch.arange(5))
    assert same_weights(before[0], loop.mixblock) and same_weights(before[1], loop.initial)


def test_the_generator_learns_to_challenge_the_unlearner(tiny: Any) -> None:
    loop = _loop(MixUnlearnConfig(batch_size=5, generator_lr=1e-2), tiny)
    forget, retain = loop.prepare(*_batches())
    losses = [loop.train_generator(forget, retain, LAM_GEN)["generator"].item() for _ in range(40)]
    assert losses[-1] < losses[0]


def test_zip_pairing_cuts_the_longer_side(tiny: Any) -> None:
    forget, retain = _batches()
    short = Batch(forget.images[:3], forget.targets[:3], forget.indices[:3])
    for pairing, sizes in (("zip", (3, 3)), ("grid", (3, 5))):
        loop = _loop(MixUnlearnConfig(batch_size=5, pairing=pairing, label_aware=True), tiny)
        mine, other = loop.prepare(short, retain)
        assert (len(mine.images), len(other.images)) == sizes == (len(mine.target), len(other.target))
        assert torch.equal(mine.target, short.targets) and torch.equal(other.target, retain.targets[: sizes[1]])
        longer, shorter = loop.prepare(retain, short)
        assert (len(shorter.images), len(longer.images)) == sizes


@pytest.mark.parametrize(("interval", "expected"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (4, [0, 4]), (9, [0])])
def test_the_generator_steps_every_few_steps_counted_through_all_epochs(
    interval: int, expected: list[int], tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten forget images in batches of four: epochs of three steps."""
    loop = MixUnlearnLoop(MixUnlearnConfig(batch_size=4, epochs=2, generator_interval=interval)).begin(tiny.job())
    steps: list[int] = []
    monkeypatch.setattr(loop, "train_generator", lambda *_: steps.append(done) or {})
    done = 0
    with loop.closing:
        for epoch in range(2):
            for _ in loop.epoch(epoch):
                done += 1
    assert done == 6 and steps == expected
