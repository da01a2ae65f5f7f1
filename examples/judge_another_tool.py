"""Judge what another tool unlearned, here 20 lines of plain PyTorch: table, report, shadow models, checks."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pymixunlearn
from pymixunlearn import data, tasks


def fit(model, images, epochs, lr):
    """Train."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(epochs):
        for inputs, labels in DataLoader(images, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()


def relabel(model, forget, retain):
    """Unlearn: random labels for what is forgotten, with as many of the other images beside them."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(15):
        others = iter(DataLoader(retain, batch_size=64, shuffle=True))
        for (inputs, labels), (kept, theirs) in zip(
            DataLoader(forget, batch_size=64, shuffle=True), others, strict=False
        ):
            optimizer.zero_grad()
            wrong = (labels + torch.randint(1, 10, labels.shape)) % 10
            loss = F.cross_entropy(model(inputs), wrong) + 2 * F.cross_entropy(model(kept), theirs)
            loss.backward()
            optimizer.step()


def as_torch(images, preprocess):
    """Return a data set of torch."""
    return TensorDataset(preprocess.evaluation(images.images), images.targets)


if __name__ == "__main__":
    torch.manual_seed(0)
    digits = data.load("digits", validation=0.1)
    split = tasks.class_split(digits, [0])
    before = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    fit(before, as_torch(digits.train, digits.preprocess), epochs=10, lr=1e-3)
    after = copy.deepcopy(before)
    relabel(after, *(as_torch(part, digits.preprocess) for part in (split.forget, split.retain)))

    run = pymixunlearn.evaluate(after, digits, split, before=before, out="judged", device="cpu")
    for name in ("initial", "unlearned"):
        metrics = run.record["metrics"][name]
        print(f"{name:9} test_r {metrics['test_r']:6.2f} %  test_f {metrics['test_f']:6.2f} %")
    # How the model was trained, so that the shadow models are trained likewise; then they unlearn by the same function.
    trained = {"epochs": 10, "lr": 1e-3, "batch_size": 64, "weight_decay": 0}
    audit = pymixunlearn.audit(
        "judged", after, digits, before=before, method=relabel, shadow_models=4, settings=trained, device="cpu"
    )
    print(audit.record["findings"])
    checks = pymixunlearn.verify("judged", before, digits, device="cpu")
    print(f"{len(checks)} checks, all hold: {checks.holds}")
