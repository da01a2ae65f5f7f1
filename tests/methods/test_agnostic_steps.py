"""One step of every label-agnostic method against its equations, written out in double precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn import methods, models
from pymixunlearn.methods.laf import Autoencoder
from tests.methods.literal import adam, check_step, make_loop, pair, probabilities


def test_randlabel(tiny: Any) -> None:
    loop, (f, r) = make_loop(tiny, methods.RandLabel(retain_weight=0.3)), pair()
    initial = tiny.model(5).double().eval()
    labels = torch.eye(4, dtype=torch.int64)[[2, 0, 3]]

    def loss(net: nn.Module) -> Tensor:
        p_f, p_r, target = probabilities(net(f.images)), probabilities(net(r.images)), probabilities(initial(r.images))
        return ((p_f - labels) ** 2).sum() / (3 * 4) + 0.3 * ((p_r - target) ** 2).sum() / (5 * 4)

    check_step(loop.model, lambda: loop.step(f, r, labels), loss, adam(5e-5))


def _reconstruct(vae: Autoencoder, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The autoencoder's layers in order, with a code drawn as mean + deviation times noise."""
    first, second = vae.encoder[0], vae.encoder[2]
    hidden = (first.weight @ e.T).T.add(first.bias).clamp(min=0)
    hidden = (second.weight @ hidden.T).T.add(second.bias).clamp(min=0)
    mean = (vae.mean.weight @ hidden.T).T + vae.mean.bias
    log_variance = (vae.log_variance.weight @ hidden.T).T + vae.log_variance.bias
    code = mean + log_variance.exp().sqrt() * torch.randn(mean.shape, dtype=mean.dtype)
    for layer in (vae.decoder[0], vae.decoder[2]):
        code = (layer.weight @ code.T).T.add(layer.bias).clamp(min=0)
    last = vae.decoder[4]
    return 1 / (1 + (-((last.weight @ code.T).T + last.bias)).exp()), mean, log_variance


def _loop(tiny: Any, method: Any) -> Any:
    loop = make_loop(tiny, method)
    for vae in (loop.vae, loop.vae_forget):
        vae.double()
    return loop


def test_an_autoencoder_of_laf(tiny: Any) -> None:
    loop, (f, _) = _loop(tiny, methods.Laf(kl_weight=0.2)), pair()
    embedding = tiny.model(5).double().eval().body(f.images).flatten(1).detach()

    def loss(vae: nn.Module) -> Tensor:
        torch.manual_seed(1)
        output, mean, log_variance = _reconstruct(vae, embedding)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2
        return (((output - embedding) ** 2).sum() + 0.2 * divergence) / 3

    def step() -> None:
        torch.manual_seed(1)
        loop.vae_step(loop.vae, loop.vae_optimizer, f.images)

    with torch.random.fork_rng():
        check_step(loop.vae, step, loss, adam(1e-3))


def test_the_extraction_of_laf(tiny: Any) -> None:
    loop, (f, r) = _loop(tiny, methods.Laf()), pair()

    def loss(net: nn.Module) -> Tensor:
        torch.manual_seed(2)
        total = torch.zeros((), dtype=torch.float64)
        for images, vae, sign in ((r.images, loop.vae, 1), (f.images, loop.vae_forget, -1)):
            e = net.body(images).flatten(1)
            output, _, _ = _reconstruct(vae, e)
            for n in range(len(images)):
                m = ((output[n] - e[n]) ** 2).sum()
                total = total + sign * (m / (m + 1)).exp()
        return total

    def step() -> None:
        torch.manual_seed(2)
        loop.extract_step(f, r)

    with torch.random.fork_rng():
        check_step(loop.model, step, loss, adam(5e-5), fixed=("head",))


def _alignment(net: nn.Module, initial: nn.Module, f: Tensor, r: Tensor, tau: float) -> Tensor:
    def turned(images: Tensor) -> list[Tensor]:
        now, before = net.body(images).flatten(1), initial.body(images).flatten(1)
        return [1 - (a @ b) / (a @ a).sqrt() / (b @ b).sqrt() for a, b in zip(now, before, strict=True)]

    denominator = sum((d / tau).exp() for d in turned(f))
    return sum((d.exp() / denominator).log() for d in turned(r))  # type: ignore[return-value]


def test_the_alignment_of_laf(tiny: Any) -> None:
    loop, (f, r) = _loop(tiny, methods.Laf(tau=5.0)), pair()
    initial = tiny.model(5).double().eval()
    check_step(
        loop.model,
        lambda: loop.align_step(f, r),
        lambda net: _alignment(net, initial, f.images, r.images, 5.0),
        adam(1e-4),
        fixed=("head",),
    )


def test_l_mix(tiny: Any) -> None:
    loop, (f, r) = _loop(tiny, methods.LMix(mix_weight=3.0)), pair()
    initial = tiny.model(5).double().eval()
    labels = torch.eye(4, dtype=torch.int64)[[1, 1, 2]]

    def loss(net: nn.Module) -> Tensor:
        mixed = 0.3 * f.images + 0.7 * r.images[:3]
        target = 0.3 * labels + 0.7 * probabilities(initial(r.images[:3]))
        mix = ((probabilities(net(mixed)) - target) ** 2).sum() / (3 * 4)
        return _alignment(net, initial, f.images, r.images, 20.0) + 3 * mix

    check_step(loop.model, lambda: loop.align_and_mix_step(f, r, 0.3, labels), loss, adam(1e-4))


def test_laf_takes_the_settings_of_the_network(tiny: Any) -> None:
    network = models.build("resnet18", num_classes=10, in_channels=3, image_size=32)
    for method in (methods.Laf(), methods.LafRepair(), methods.LMix()):
        settings = method.resolve(network)
        assert (settings.epochs, settings.extract_lr, settings.align_lr, settings.latent) == (40, 1e-5, 5e-5, 16)
        settings = method.resolve(tiny.model())
        assert (settings.epochs, settings.extract_lr, settings.align_lr, settings.latent) == (20, 5e-5, 1e-4, 8)
