"""Unlearn training samples of a network of your own, evaluate the result and save it.

Run ``python examples/unlearn_your_model.py``: about ten seconds, nothing is downloaded. The network, the tensors and
the list of samples stand for yours.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from pymixunlearn import MixUnlearn, data, evaluation, methods, tasks, training


class YourNetwork(nn.Module):
    """Any module that maps images [N, C, H, W] to logits [N, classes]."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1))
        self.head = nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.head(F.relu(self.features(images)).amax(dim=(2, 3)))


def main() -> None:
    """Train, unlearn, evaluate, save and load."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)  # [N, 1, 8, 8], float32 in [0, 1]
    targets = torch.from_numpy(digits.target).long()  # [N]
    dataset = data.from_tensors(images[:1400], targets[:1400], images[1400:], targets[1400:])

    model = YourNetwork()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        for batch in torch.randperm(1400).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), targets[batch]).backward()
            optimizer.step()

    forget = torch.nonzero(targets[:1400] == 3).flatten()  # indices of training samples; here all of one class
    split = tasks.index_split(dataset, forget)
    # The method sees no labels. Without feature_layer, a layer is found by a trial run.
    method = MixUnlearn(epochs=10, lr=3e-4, tau_real=2.0, feature_layer="features")
    result = method.unlearn(model, split, seed=0)  # model itself is not changed

    # Retrain, the same network trained from scratch without the forget set, is what the metrics are compared with.
    retrain = methods.get("retrain")(epochs=20, lr=0.01).unlearn(model, split, seed=0)
    for name, network in (("initial", model), ("unlearned", result.model), ("retrain", retrain.model)):
        metrics = evaluation.evaluate(network, split, seed=0)
        print(f"{name:10}", *(f"{key} {metrics[key]:6.2f}" for key in ("train_r", "train_f", "test", "asr")))

    training.save_model("unlearned.safetensors", result.model)
    again = training.load_model("unlearned.safetensors", into=YourNetwork())
    assert training.model_hash(again) == training.model_hash(result.model)
    print(f"unlearned.safetensors, {result.seconds:.1f} s of unlearning")


if __name__ == "__main__":
    main()
