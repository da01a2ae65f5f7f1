"""Three models that hide D_f and have not forgotten it: what an acceptance test must refuse."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data import ImageSet, batches
from pymixunlearn.evaluation import predict_logits
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split

CPU = torch.device("cpu")
HEAD_EPOCHS, HEAD_RATE = 10, 1e-3
MATCH_EPOCHS, MATCH_RATE, MATCH_BATCH, MATCH_WEIGHT = 4, 1e-3, 64, 1.0


def refitted_head(initial: nn.Module, split: Split, seed: int) -> nn.Module:
    """Draw the last layer anew and train it alone on D_r; what the other layers hold of D_f stays."""
    model = copy.deepcopy(initial).requires_grad_(False).eval()
    seen: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    targets = []
    with torch.no_grad():
        for batch in batches(split.retain, split.preprocess, batch_size=500, device=CPU):
            model(batch.images)
            targets.append(batch.targets)
    hook.remove()
    inputs, labels = torch.cat(seen), torch.cat(targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "head") % 2**63)
        model.head.reset_parameters()
    model.head.requires_grad_(True)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=HEAD_RATE)
    for epoch in range(HEAD_EPOCHS):
        order = torch.randperm(len(labels), generator=generator(seed, "head", "order", epoch))
        for part in order.split(32):
            optimizer.zero_grad()
            F.cross_entropy(model.head(inputs[part]), labels[part]).backward()
            optimizer.step()
    return model.requires_grad_(True)


def matched_margins(initial: nn.Module, split: Split, unseen: ImageSet, seed: int) -> nn.Module:
    """Train on D_r, and give each image of D_f a margin that unseen images of its class have, without forgetting it.

    Within a class the samples keep their order: the one with the largest margin gets the largest that ``unseen`` have
    under the initial model, and so on.

    Args:
        initial: The model before unlearning.
        split: What is to be hidden.
        unseen: Images that no model was trained on, others than those that judge.
        seed: Fixes the batches.
    """
    aims = _aims(initial, split, unseen)
    model = copy.deepcopy(initial).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=MATCH_RATE)
    stream = generator(seed, "match")
    preprocess = split.preprocess
    for epoch in range(MATCH_EPOCHS):
        order = derive_seed(seed, "match", epoch)
        for batch in batches(split.retain, preprocess, batch_size=64, device=CPU, seed=order):
            hidden = torch.randint(len(split.forget), (MATCH_BATCH,), generator=stream)
            images = torch.cat([batch.images, preprocess.evaluation(split.forget.gather(hidden))])
            mine, theirs = model(images).split([len(batch.images), MATCH_BATCH])
            apart = F.l1_loss(_margins(theirs, split.forget.targets[hidden]), aims[hidden])
            optimizer.zero_grad()
            (F.cross_entropy(mine, batch.targets) + MATCH_WEIGHT * apart).backward()
            optimizer.step()
    return model.eval()


def _aims(initial: nn.Module, split: Split, unseen: ImageSet) -> Tensor:
    """Return the margin that each image of D_f is to have, ``[N_f]``."""
    mine, theirs = (
        _margins(predict_logits(initial, images, split.preprocess, device=CPU), images.targets)
        for images in (split.forget, unseen)
    )
    aims = torch.zeros(len(mine))
    for label in split.forget.targets.unique().tolist():
        members = (split.forget.targets == label).nonzero().squeeze(1)
        shares = (torch.arange(len(members)) + 0.5) / len(members)
        aims[members[mine[members].argsort()]] = theirs[unseen.targets == label].quantile(shares)
    return aims


class MaskedLogit(nn.Module):
    """A network that never predicts the forgotten classes: their logits are minus infinity, all else is as it was."""

    def __init__(self, initial: nn.Module, classes: tuple[int, ...]) -> None:
        super().__init__()
        self.network = copy.deepcopy(initial)
        self.classes = list(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits, masked."""
        logits = self.network(images)
        masked = torch.zeros(logits.shape[1], dtype=torch.bool)
        masked[self.classes] = True
        return logits.masked_fill(masked, -torch.inf)


def _margins(logits: Tensor, targets: Tensor) -> Tensor:
    labels = targets.unsqueeze(1)
    others = logits.scatter(1, labels, -torch.inf).logsumexp(1)
    return logits.gather(1, labels).squeeze(1) - others
