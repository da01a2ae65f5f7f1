"""The rival of ``bench step``: the training step as the paper describes it, written with plain PyTorch alone.

It shares no code with the method it is compared with. It is lean where a careful author would be (losses in a few
calls, no gradients that nobody needs), but f_D runs in every step, for forget and retain images one after the
other, images come from data loaders, and the optimisers are PyTorch's defaults.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.data.optional import require

ALPHA, SHARPEN_T, TAU_GEN, TAU_MIX, TAU_REAL, OMEGA = 0.75, 0.3, 0.5, 10.0, 5.0, 10.0
GENERATOR_INTERVAL = 4
PLAIN_CNN_LAYER = "5"


def plain_cnn() -> nn.Module:
    """Return the paper's network for 28 x 28 grey images in the order in which it is described."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 256),
        nn.Linear(256, 128),
        nn.Linear(128, 10),
    )


class PlainMixBlock(nn.Module):
    """Cross-attention masks for features [N, C', h, w] of both images: Eq. 2, term by term."""

    def __init__(self, channels: int) -> None:
        """Make the 1 x 1 convolutions over features and mixing ratio."""
        super().__init__()
        self.query = nn.Conv2d(channels + 1, channels // 2, 1)
        self.key = nn.Conv2d(channels + 1, channels // 2, 1)
        self.value = nn.Conv2d(channels + 1, 1, 1)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, h_f: Tensor, h_r: Tensor, lam: Tensor, x_f: Tensor, x_r: Tensor) -> Tensor:
        """Return the mixes [N, C, H, W]."""
        n, _, h, w = h_f.shape
        h_f = torch.cat([h_f, lam.expand(n, 1, h, w)], dim=1)
        h_r = torch.cat([h_r, (1 - lam).expand(n, 1, h, w)], dim=1)
        masks = torch.cat([self._attend(h_f, h_r), self._attend(h_r, h_f)], dim=1)
        masks = F.interpolate(masks, size=x_f.shape[-2:], mode="bilinear", align_corners=False)
        share = torch.softmax(masks, dim=1)
        mixed: Tensor = x_f * share[:, :1] + x_r * share[:, 1:]
        return mixed

    def _attend(self, own: Tensor, other: Tensor) -> Tensor:
        query, key, value = self.query(own).flatten(2), self.key(other).flatten(2), self.value(own).flatten(2)
        scores = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(query.shape[1]), dim=-1)
        attended: Tensor = (scores @ value.transpose(1, 2)).transpose(1, 2)
        return attended.reshape(len(own), 1, *own.shape[-2:])


class PlainStep:
    """The networks and optimisers of a run, and its step.

    Args:
        model: The initial model; it is copied.
        layer: The module of ``model`` whose output MixBlock sees, by name.
        example: One network input [1, C, H, W], on the model's device.
    """

    def __init__(self, model: nn.Module, layer: str, example: Tensor) -> None:
        """Copy the model and make the optimisers."""
        self.unlearner = copy.deepcopy(model).train()
        self.initial = copy.deepcopy(model).eval()
        self.initial.get_submodule(layer).register_forward_hook(self._keep)
        self.mixblock = PlainMixBlock(self._look(example)[1].shape[1]).to(example.device)
        self.optimizer = torch.optim.Adam(self.unlearner.parameters(), lr=5e-5)
        self.generator_optimizer = torch.optim.Adam(self.mixblock.parameters(), lr=1e-3)
        self._device = example.device
        self._steps = 0

    def _keep(self, module: nn.Module, args: object, output: Tensor) -> None:
        tokens = output.dim() == 3
        side = math.isqrt(output.shape[1]) if tokens else 0
        # The last side x side tokens are the image's; one before them is the class token.
        self._features = output[:, -(side**2) :].mT.reshape(len(output), -1, side, side) if tokens else output

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the targets of Eq. 8 and the features of f_D."""
        with torch.no_grad():
            target = torch.softmax(self.initial(images) / SHARPEN_T, dim=1)
        return target, self._features

    def draw(self) -> Tensor:
        """Draw lam from Beta(alpha, alpha)."""
        concentration = torch.full((), ALPHA, device=self._device)
        return torch.distributions.Beta(concentration, concentration).sample()

    def __call__(self, x_f: Tensor, x_r: Tensor) -> Tensor:
        """Take a step on network inputs [N, C, H, W] of both sets; return the unlearner's loss."""
        order = torch.randperm(len(x_r), device=self._device)
        self._steps += 1
        return self.step(x_f, x_r, self.draw(), self.draw(), order, self._steps % GENERATOR_INTERVAL == 1)

    def step(self, x_f: Tensor, x_r: Tensor, lam_gen: Tensor, lam_mix: Tensor, order: Tensor, generate: bool) -> Tensor:
        """Take a step whose draws are given."""
        p_f, h_f = self._look(x_f)
        p_r, h_r = self._look(x_r)
        if generate:
            self.unlearner.eval()
            mixed = self.mixblock(h_f, h_r, lam_gen, x_f, x_r)
            loss = -mix_loss(self.unlearner(mixed), p_f, p_r, lam_gen, TAU_GEN)
            weights = list(self.mixblock.parameters())
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            self.generator_optimizer.step()
            self.unlearner.train()
        with torch.no_grad():
            mixed = self.mixblock(h_f, h_r[order], lam_mix, x_f, x_r[order])
        z_f, z_r, z_mix = self.unlearner(torch.cat([x_f, x_r, mixed])).chunk(3)
        loss = mix_loss(z_mix, p_f, p_r[order], lam_mix, TAU_MIX) + OMEGA * real_loss(z_f, z_r, p_f, p_r)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()


def _dissimilarity(probabilities: Tensor, target: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(probabilities, target)


def mix_loss(logits: Tensor, p_f: Tensor, p_r: Tensor, lam: Tensor, tau: float) -> Tensor:
    """Eq. 5."""
    probabilities = torch.softmax(logits, dim=1)
    keep = ((1 - lam) * _dissimilarity(probabilities, p_r)).sum()
    return keep - len(logits) * torch.logsumexp(lam * _dissimilarity(probabilities, p_f) / tau, dim=0)


def real_loss(z_f: Tensor, z_r: Tensor, p_f: Tensor, p_r: Tensor) -> Tensor:
    """Eq. 6."""
    keep = _dissimilarity(torch.softmax(z_r, dim=1), p_r).sum()
    return keep - len(z_r) * torch.logsumexp(_dissimilarity(torch.softmax(z_f, dim=1), p_f) / TAU_REAL, dim=0)


class _Images(Dataset[Tensor]):
    """Network inputs one at a time, as data loaders want them."""

    def __init__(self, images: ImageSet, preprocess: Preprocess) -> None:
        self._images, self._transform = images.images, _transform(preprocess, images.images.shape[-1])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        inputs: Tensor = self._transform(self._images[index].float() / 255)
        return inputs


def _transform(preprocess: Preprocess, stored: int) -> nn.Module:
    """Return torchvision's transformations of one image that do what ``preprocess`` does to a batch."""
    layers: list[nn.Module] = []
    size = preprocess.size or stored
    if preprocess.random_crop or preprocess.flip or preprocess.mean is not None or size != stored:
        transforms = require("torchvision.transforms", purpose="bench step", remedy="install torchvision")
        if preprocess.random_crop:
            layers += [transforms.RandomResizedCrop(size, antialias=True)]
        elif size != stored:
            layers += [transforms.Resize(size, antialias=True)]
        if preprocess.flip:
            layers += [transforms.RandomHorizontalFlip()]
        if preprocess.mean is not None:
            layers += [transforms.Normalize(preprocess.mean, preprocess.std)]
    return nn.Sequential(*layers)


def endless(images: ImageSet, preprocess: Preprocess, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield full shuffled batches of network inputs, epoch after epoch."""
    loader = DataLoader(_Images(images, preprocess), batch_size, shuffle=True, drop_last=True)
    while True:
        for batch in loader:
            yield batch.to(device)
