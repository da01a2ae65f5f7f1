"""Equality check of the restructuring: the same numbers, bit for bit, from the commit before and the commit after.

    python benchmarks/equality.py --out before.json      # in an environment with the commit before
    python benchmarks/equality.py --out after.json       # in one with the commit after, on the same machine
    python benchmarks/equality.py --compare before.json after.json

Every method unlearns digits (class and data task, two seeds, on one thread, few epochs); hashes of the unlearned
weights, the metrics and the outputs and gradients of all operators on fixed inputs are written down.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

SETTINGS = {
    "retrain": {"epochs": 2},
    "sisa": {"shards": 2, "epochs": 2},
    "dsmixup": {"shards": 2, "epochs": 2},
    "ssd": {},
}


def digest(*tensors: Any) -> str:
    """Return a hash of tensors, dtype and shape included."""
    state = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().contiguous().cpu()
        state.update(f"{array.dtype}{tuple(array.shape)}".encode() + array.numpy().tobytes())
    return state.hexdigest()[:16]


def operators() -> dict[str, str]:
    """Return a hash of every operator's outputs and gradients on fixed inputs."""
    import torch

    from pymixunlearn import ops

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=stream).requires_grad_()

    found = {}
    stream = torch.Generator().manual_seed(7)
    probs = torch.softmax(draw(33, 10).detach(), 1)
    labels = torch.arange(33) % 10
    calls = {
        "sharpen": (ops.sharpen, (draw(33, 10),), {}),
        "sim_loss": (ops.sim_loss, (draw(33, 10), probs), {"sharpen_T": 0.3}),
        "real": (ops.real_contrastive_loss, (draw(33, 10), draw(33, 10), probs, probs.flip(0), 5.0), {}),
    }
    for pairing, rows in (("zip", (33, 10)), ("grid", (33, 33, 10))):
        calls[f"mix_{pairing}"] = (
            ops.mix_contrastive_loss,
            (draw(*rows), labels, labels.flip(0), 0.3, 10.0),
            {"pairing": pairing},
        )
        pairs = 4 if pairing == "zip" else 16
        calls[f"mask_mix_{pairing}"] = (
            ops.mask_mix,
            (draw(4, 3, 17, 17), draw(4, 3, 17, 17), draw(pairs, 5, 5)),
            {"pairing": pairing},
        )
        attention = [draw(4, 8, 5, 5) for _ in range(4)]
        values = [draw(4, 5, 5) for _ in range(2)]
        calls[f"attention_{pairing}"] = (
            ops.mixblock_attention,
            (attention[0], attention[1], values[0], attention[2], attention[3], values[1]),
            {"pairing": pairing},
        )
    for name, (call, arguments, options) in calls.items():
        out = call(*arguments, **options)
        out.square().sum().backward()
        grads = [value.grad for value in arguments if torch.is_tensor(value) and value.grad is not None]
        found[name] = digest(out, *grads)
    return found


def unlearnings() -> dict[str, Any]:
    """Return weights' hash and metrics of every method, task and seed."""
    import torch

    from pymixunlearn import data, evaluation, methods, models, tasks
    from pymixunlearn.training import TrainConfig, train

    dataset = data.load("digits")
    found: dict[str, Any] = {}
    for seed in (0, 1):
        model = models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=seed)
        train(model, dataset.train, dataset.preprocess, TrainConfig(epochs=3), device=torch.device("cpu"), seed=seed)
        for task, split in (("class", tasks.class_split(dataset)), ("data", tasks.data_split(dataset, seed=seed))):
            for name in methods.available():
                settings = SETTINGS.get(name, {})
                if not settings and "epochs" in methods.get(name).config_class.kinds():
                    settings = {"epochs": 2}
                result = methods.get(name)(**settings).unlearn(model, split, seed=seed)
                metrics = evaluation.evaluate(result.model, split, seed=seed)
                key = f"{name} {task} {seed}"
                history = [{k: v for k, v in record.items() if k != "seconds"} for record in result.history]
                found[key] = {
                    "weights": digest(*result.model.state_dict().values()),
                    "metrics": dict(metrics),
                    "history": history,
                }
                print(key, found[key]["weights"], file=sys.stderr, flush=True)
    return found


def compare(before: Path, after: Path) -> int:
    """Print what differs; return how much."""
    one, two = (json.loads(path.read_text()) for path in (before, after))
    different = 0
    for part in one:
        for name in one[part]:  # a method that came later has nothing to be compared with
            if one[part].get(name) != two[part].get(name):
                different += 1
                print(f"{part} {name} differs")
    print(f"{sum(map(len, one.values()))} compared, {different} differ")
    return different


def main() -> None:
    """Write the numbers of this environment, or compare two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.compare:
        sys.exit(bool(compare(*arguments.compare)))
    import torch

    torch.set_num_threads(1)
    arguments.out.write_text(json.dumps({"operators": operators(), "unlearnings": unlearnings()}, indent=1))


if __name__ == "__main__":
    main()
