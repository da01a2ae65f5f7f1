"""LAF, label-agnostic forgetting: unlearn at the level of representations, guided by two variational autoencoders.

Shen, Zhang, Zhao, Bialkowski, Chen, Xu, "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models", ICLR
2024; settings as published for each network. As in the released code the network is in evaluation mode throughout:
BatchNorm keeps the statistics of the initial model, so that batches of D_f are not normalised by their own class alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.by_network import NetworkConfig
from pymixunlearn.methods.config import CODE, OURS, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, Stage, descend, frozen_copy
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import together
from pymixunlearn.models.layers import EmbeddingExtractor, find_embedding_layer
from pymixunlearn.training.device import seeded_layers


@dataclass(frozen=True)
class LafConfig(NetworkConfig, EndingConfig, LoopConfig):
    """Settings of :class:`Laf`; those left at none are the published ones of the network, resnet18's or the cnn's.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.LafConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = CODE
    by_network = {
        "cnn": {"epochs": 20, "extract_lr": 5e-5, "align_lr": 1e-4, "latent": 8},
        "resnet18": {"epochs": 40, "extract_lr": 1e-5, "align_lr": 5e-5, "latent": 16},
    }

    epochs: int | None = setting(None, "passes over the smaller set; cnn 20, resnet18 40", low=1)
    extract_lr: float | None = setting(
        None, "learning rate of the extractor's unlearning (Adam); cnn 5e-5, resnet18 1e-5", above=0
    )
    align_lr: float | None = setting(
        None,
        "learning rate of the alignment (Adam); cnn 1e-4, resnet18 5e-5, for which 4e-5 is published where samples are "
        "forgotten",
        above=0,
    )
    tau: float = setting(
        20.0, "temperature of the alignment; 5 is published for the cnn where samples are forgotten", above=0
    )
    latent: int | None = setting(None, "dimensions of the autoencoders' code; cnn 8, resnet18 16", low=1)
    vae_epochs: int = setting(10, "epochs of each autoencoder", low=1)
    vae_lr: float = setting(1e-3, "learning rate of the autoencoders (Adam)", above=0)
    kl_weight: float = setting(0.025, "weight of the divergence from the prior in their loss", low=0)
    embedding_layer: str | None = setting(None, "layer whose output is the representation; none finds one", source=OURS)


L = TypeVar("L", bound=LafConfig)


class Autoencoder(nn.Module):
    """Variational autoencoder of embeddings: D-128-32-z and back, with a sigmoid at the end."""

    def __init__(self, embedding: int, latent: int) -> None:
        """Create the layers with PyTorch's default initialisation."""
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(embedding, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(32, latent), nn.Linear(32, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, embedding), nn.Sigmoid()
        )

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map embeddings [N, D] to reconstructions [N, D] of a random code, and the code's mean and log variance."""
        hidden = self.encoder(embedding)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


class RepresentationUnlearning(Loop[L]):
    """Autoencoders learn the old representations of all data and of D_f; then the network unlearns."""

    def setup(self) -> None:
        """Find the embedding, keep the initial model, and set up autoencoders and optimisers."""
        config = self.config
        self.model.eval()
        assert config.latent and config.extract_lr and config.align_lr
        self.layer = config.embedding_layer or find_embedding_layer(self.model, self.example)
        initial = frozen_copy(self.model)
        self.embed = self.closing.enter_context(EmbeddingExtractor(self.model, self.layer))
        self.embed_initial = self.closing.enter_context(EmbeddingExtractor(initial, self.layer))
        self.all = together(self.forget_set, self.retain_set)

        size = self.embed.channels(self.example)
        with seeded_layers(self.device, self.seed, "laf", "autoencoders"):
            self.vae = self.parts["vae"] = Autoencoder(size, config.latent).to(self.device)
            self.vae_forget = self.parts["vae_forget"] = Autoencoder(size, config.latent).to(self.device)
        self.vae_optimizer = self.add_optimizer("adam", config.vae_lr, of=self.vae, part="vae_optimizer")
        self.vae_forget_optimizer = self.add_optimizer(
            "adam", config.vae_lr, of=self.vae_forget, part="vae_forget_optimizer"
        )
        # Both over all weights: each keeps moments of its own loss only.
        self.extract_optimizer = self.add_optimizer("adam", config.extract_lr, part="extract_optimizer")
        self.align_optimizer = self.add_optimizer("adam", config.align_lr, part="align_optimizer")

    def stages(self) -> list[Stage]:
        """Return the training of h on all data, of h_f on D_f, and the unlearning."""
        assert self.config.epochs is not None
        return [
            Stage(self.config.vae_epochs, self.steps(self.all), self._vae_epoch, "autoencoders"),
            Stage(self.config.vae_epochs, self.steps(self.forget_set), self._vae_forget_epoch, "autoencoders"),
            Stage(self.config.epochs, self.pair_steps(), self.epoch),
        ]

    def _vae_epoch(self, epoch: int) -> Iterator[Measured]:
        for batch in self.batches(self.all, "vae", epoch):
            yield {"vae": self.vae_step(self.vae, self.vae_optimizer, batch.images)}

    def _vae_forget_epoch(self, epoch: int) -> Iterator[Measured]:
        for batch in self.batches(self.forget_set, "vae", epoch):
            yield {"vae_forget": self.vae_step(self.vae_forget, self.vae_forget_optimizer, batch.images)}

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Take an extraction and an alignment step on each pair of batches."""
        for forget, retain in self.pairs(epoch):
            extraction = self.extract_step(forget, retain)
            yield {**extraction, **self.align_step(forget, retain)}

    def vae_step(self, vae: Autoencoder, optimizer: torch.optim.Optimizer, images: Tensor) -> Tensor:
        """|h(e) - e|^2 + kl_weight KL(code || N(0, 1)), the mean over e = embeddings by the initial model."""
        with torch.no_grad():
            _, embedding = self.embed_initial(images)
        output, mean, log_variance = vae(embedding)
        divergence = -(1 + log_variance - mean.square() - log_variance.exp()).sum(1) / 2
        loss: Tensor = ((output - embedding).square().sum(1) + self.config.kl_weight * divergence).mean()
        descend(optimizer, loss)
        return loss

    def extract_step(self, forget: Batch, retain: Batch) -> Measured:
        """Sum_r exp(m / (m + 1)) - Sum_f exp(m_f / (m_f + 1)), m = |h(e) - e|^2 and m_f likewise with h_f."""
        _, e_r = self.embed(retain.images)
        _, e_f = self.embed(forget.images)
        loss = _misfit(self.vae, e_r) - _misfit(self.vae_forget, e_f)
        descend(self.extract_optimizer, loss)
        return {"extract": loss}

    def align_step(self, forget: Batch, retain: Batch) -> Measured:
        """The contrastive loss of new and old representations, after a fresh forward."""
        loss = self.align_loss(forget, retain)
        descend(self.align_optimizer, loss)
        return {"align": loss}

    def align_loss(self, forget: Batch, retain: Batch) -> Tensor:
        """Sum_r log[exp(1 - cos(e_r, e_r0)) / Sum_f exp((1 - cos(e_f, e_f0)) / tau)]."""
        d_r, d_f = self._turned(retain.images), self._turned(forget.images)
        return d_r.sum() - len(d_r) * torch.logsumexp(d_f / self.config.tau, 0)

    def _turned(self, images: Tensor) -> Tensor:
        """How far each representation has turned away from the initial model's: 1 - cos, [N]."""
        _, now = self.embed(images)
        with torch.no_grad():
            _, before = self.embed_initial(images)
        return 1 - F.cosine_similarity(now, before, dim=1)


def _misfit(vae: Autoencoder, embedding: Tensor) -> Tensor:
    """Sum of exp(m / (m + 1)) over the squared errors m of the reconstructions."""
    m = (vae(embedding)[0] - embedding).square().sum(1)
    return torch.exp(m / (m + 1)).sum()


@method(
    "laf", summary="label-agnostic forgetting: moves representations away from an autoencoder of the forgotten data"
)
class Laf(RepresentationUnlearning[LafConfig]):
    """Unlearning of representations, without a single label.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Laf(tau=5.0).needs_labels
        False
    """

    config_class = LafConfig

    @property
    def needs_labels(self) -> bool:
        """False."""
        return False
