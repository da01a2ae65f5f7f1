"""A small vision transformer: enough to exercise token features without a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTH = 4
"""Number of transformer blocks."""

_WIDTH = 128
_HEADS = 4
_SMALLEST_GRID = 7


class VisionTransformer(nn.Module):
    """Pre-norm transformer over square patches with a class token and learned positions; no dropout.

    The patch is the largest that divides the image and leaves at least 7 x 7 of them (28: patch 4; 224: patch 32).

    Args:
        num_classes: C, the number of logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        """Create the layers; positions and the class token start from N(0, 0.02^2)."""
        super().__init__()
        patch = _patch_size(image_size)
        tokens = (image_size // patch) ** 2
        self.patches = nn.Conv2d(in_channels, _WIDTH, patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, _WIDTH))
        self.positions = nn.Parameter(torch.empty(1, 1 + tokens, _WIDTH))
        self.reset_parameters()
        self.blocks = nn.Sequential(*(_Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.embedding = nn.Linear(_WIDTH, 256)
        self.head = nn.Linear(256, num_classes)

    def reset_parameters(self) -> None:
        """Draw the class token and the positions, the parameters that belong to no layer, from N(0, 0.02^2)."""
        with torch.no_grad():
            for parameter in (self.class_token, self.positions):
                parameter.copy_(torch.randn(parameter.shape, device=parameter.device) * 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, in_channels, image_size, image_size] to logits [N, num_classes]."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], dim=1) + self.positions
        logits: Tensor = self.head(self.embedding(self.norm(self.blocks(tokens)[:, 0])))
        return logits


class _Block(nn.Module):
    """Self-attention and a two-layer perceptron, each with a norm before and a skip around: [N, T, D] -> [N, T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(_WIDTH)
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.projection = nn.Linear(_WIDTH, _WIDTH)
        self.norm_mlp = nn.LayerNorm(_WIDTH)
        self.mlp = nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        # [N, T, 3 D] -> three of [N, heads, T, D / heads]
        q, k, v = self.qkv(self.norm_attention(tokens)).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.projection(attended)
        result: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return result


def _patch_size(image_size: int) -> int:
    """Return the largest divisor of ``image_size`` that leaves the smallest grid or a finer one."""
    return max(size for size in range(1, image_size // _SMALLEST_GRID + 1) if image_size % size == 0)
