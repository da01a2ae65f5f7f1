"""Why a reset forgets: the weights that are chosen, or the larger steps that smaller weights get.

    OMP_NUM_THREADS=1 python -m benchmarks.resetting --data-dir DATA --seed 0 \\
        --out benchmarks/results/resetting-cpu.csv

``prune-reset`` sets the smallest 95 % of the weights to zero. This does two things at once. It takes away what these
weights held; and it makes every weight tensor shorter. Behind a layer with BatchNorm the length of its weights does not
matter to the output, but it does to the training: Adam's steps have one length, so that a short tensor turns further
with each of them, as at a larger learning rate. The two are taken apart on ``resnet14`` (5000 images of CIFAR-10 at 16
pixels, task "data"), where every convolution stands before a BatchNorm; the linear head does not.

The plan, written before the first run. Six starts, three resets times two lengths, each trained as ``prune-reset`` does
it (half of the initial model's epochs, its rate, up over a fifth and down to zero, on D_r alone):

- reset: the smallest 95 % of the weights, 95 % drawn at random, or none;
- length of each weight tensor: as in the initial model, or as the reset of the smallest 95 % leaves it (where it takes
  a tensor whole: shorter by the ratio of all weights together, and what is zero stays zero).

"smallest, short" is ``prune-reset``, "none, long" is a fine-tuning. Beside them "none, long, rate raised": no reset,
the original lengths, and the learning rate times the ratio of the lengths of all weights before and after that reset.

What the outcomes would mean. If "smallest, long" is accepted and "none, short" refused, the choice of weights forgets;
if it is the other way round, the larger steps do. If both are accepted, each suffices; if neither, only both together.
If "random" differs from "smallest" at equal length in distance or in accuracy, it matters which weights are kept. The
decisions, distances, accuracies and the gap to Retrain are in the file; the columns are those of
:mod:`benchmarks.forgetting`. One seed, on which the methods were developed: an explanation to be tested, no proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks.forgetting import BEDS, COLUMNS, Cell
from benchmarks.forgetting_tables import table
from benchmarks.rows import Rows
from pymixunlearn.methods import PruneReset
from pymixunlearn.seeding import derive_seed

SHARE = 0.95
RESETS = ("smallest", "none", "random")
LENGTHS = ("short", "long")
RAISED = "none, long, rate raised"


class Start(PruneReset):
    """Prune-reset from another start.

    Args:
        chosen: Which weights are set to zero, one of ``RESETS``.
        length: That of every weight tensor then, one of ``LENGTHS``: of the initial model ("long"), or of one whose
            smallest weights are reset ("short").
        raised: Whether the learning rate is raised by the ratio of the two.
    """

    def __init__(self, chosen: str, length: str, *, raised: bool = False) -> None:
        super().__init__(share=SHARE)
        self.chosen, self.length, self.raised = chosen, length, raised

    def setup(self) -> None:
        """Set up the training, and look at the lengths."""
        super().setup()
        before = [weight.detach().clone() for weight in self.weights.values()]
        long = lengths(before)
        chosen, self.chosen = self.chosen, "smallest"
        super().reset(SHARE)
        self.chosen, short = chosen, lengths(self.weights.values())
        with torch.no_grad():
            for weight, value in zip(self.weights.values(), before, strict=True):
                weight.copy_(value)
        ratio = float(torch.linalg.vector_norm(torch.stack(long)) / torch.linalg.vector_norm(torch.stack(short)))
        short = [some if some > 0 else every / ratio for some, every in zip(short, long, strict=True)]
        self.wanted = short if self.length == "short" else long
        if self.raised:
            self.lr *= ratio
            self.config = self.config.replace(lr=self.lr)

    @torch.no_grad()
    def reset(self, share: float) -> None:
        """Set the chosen weights to zero, and give every tensor its length."""
        if self.chosen != "none":
            super().reset(share)
        for weight, length in zip(self.weights.values(), self.wanted, strict=True):
            now = torch.linalg.vector_norm(weight)
            if now > 0:
                weight.mul_(length / now)

    def scores(self) -> dict[str, Tensor]:
        """Return which weights come first."""
        if self.chosen != "random":
            return super().scores()
        stream = torch.Generator().manual_seed(derive_seed(self.seed, "random reset"))
        return {name: torch.rand(weight.shape, generator=stream) for name, weight in self.weights.items()}


def lengths(weights: Iterable[Tensor]) -> list[Tensor]:
    """Return the Euclidean norm of each tensor."""
    return [torch.linalg.vector_norm(weight.detach()) for weight in weights]


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--seed", "seeds", multiple=True, type=int, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file; rows are appended.")
def main(data_dir: Path, seeds: tuple[int, ...], out: Path) -> None:
    """Train from every start, and print the table."""
    torch.set_num_threads(1)
    results, bed = Rows(out, COLUMNS), BEDS["resnet14"]
    dataset = bed.load(data_dir)
    starts = {f"{chosen}, {length}": Start(chosen, length) for chosen in RESETS for length in LENGTHS}
    starts[RAISED] = Start("none", "long", raised=True)
    for seed in seeds:
        cell = Cell(bed, dataset, "data", seed, results)
        cell.begin()
        for name, start in starts.items():
            if not cell.find(name):
                cell.unlearn(name, start, {"share": SHARE})
    click.echo(table(results.rows))


if __name__ == "__main__":
    main()
