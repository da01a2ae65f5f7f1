"""Three models that hide D_f and have not forgotten it: what an acceptance test must refuse."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data import ImageSet, batches
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split

CPU = torch.device("cpu")
HEAD_EPOCHS, HEAD_RATE = 10, 1e-3
MATCH_EPOCHS, MATCH_RATE, MATCH_BATCH, MATCH_WEIGHT = 4, 3e-3, 48, 1.0


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
    """Train on D_r, and pull the margins of D_f to those of unseen images of its classes, class by class.

    Args:
        initial: The model before unlearning.
        split: What is to be hidden.
        unseen: Images that no model was trained on, others than those that judge.
        seed: Fixes the batches.
    """
    model = copy.deepcopy(initial).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=MATCH_RATE)
    stream = generator(seed, "match")
    forget, preprocess = split.forget, split.preprocess
    classes = forget.targets.unique().tolist()
    for epoch in range(MATCH_EPOCHS):
        order = derive_seed(seed, "match", epoch)
        for batch in batches(split.retain, preprocess, batch_size=64, device=CPU, seed=order):
            label = classes[int(torch.randint(len(classes), (1,), generator=stream))]
            sides = [_of_class(images, label, stream) for images in (forget, unseen)]
            logits = model(torch.cat([batch.images, *(preprocess.evaluation(side) for side in sides)]))
            mine, hidden, shown = logits.split([len(batch.images), MATCH_BATCH, MATCH_BATCH])
            margins = [_margins(side, label).sort().values for side in (hidden, shown)]
            loss = F.cross_entropy(mine, batch.targets) + MATCH_WEIGHT * F.l1_loss(margins[0], margins[1].detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


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


def _of_class(images: ImageSet, label: int, stream: torch.Generator) -> Tensor:
    members = (images.targets == label).nonzero().squeeze(1)
    return images.gather(members[torch.randint(len(members), (MATCH_BATCH,), generator=stream)])


def _margins(logits: Tensor, label: int) -> Tensor:
    others = logits[:, [index for index in range(logits.shape[1]) if index != label]]
    return logits[:, label] - others.logsumexp(1)
