"""Shadow-model audits of the methods that the acceptance test accepts: RMIA and U-LiRA, which steered nothing.

    OMP_NUM_THREADS=1 python -m benchmarks.auditing --data-dir DATA --seed 20 --shadow-models 16 \\
        --out benchmarks/results/auditing-cpu.csv

One cell for each bed of :mod:`benchmarks.forgetting`, its data task, at a seed that nothing was chosen on. The shadow
models are trained, and unlearn by the method, as the audited model did: with a search of their own, by the acceptance
test. They are kept in the user's cache of trained models, so the script can be killed and repeated, and with more
shadow models trains only the further ones; a row that is in the file is not measured again.

The numbers are AUCs with 95 % intervals, as ``mixunlearn-cli audit`` computes them: of RMIA over samples, of U-LiRA
over pairs of models.

- rmia: can forgotten samples be told from unseen test samples of their classes under the audited model? The row
  "initial" is the same for the model before unlearning, and "retrain" for one that never saw them, by the same shadow
  models. The latter was added after the first rows had been seen: it says what a model without a trace would get.
  So was the subject "eu-k".
- u_lira: can the models that saw samples and unlearned them be told from retrained ones, by these samples?
- u_lira_unseen: the same by samples that the unlearned models never saw. What is found there is how unlike a retrained
  model the method's models are on any image (other epochs, another learning rate), and no trace of what was forgotten.

What must be shown, written before the first run. The test's word holds in an audit that it did not steer if, for
``prune-reset`` and for ``mixunlearn-reset`` with masks:

1. RMIA's interval includes 0.5, on both beds, and lies below the initial model's interval where that excludes 0.5;
2. the intervals of u_lira and u_lira_unseen overlap: the models are no more unlike retrained ones on what they forgot
   than on what they never saw.

It is not demanded that U-LiRA find nothing: the mean gap to Retrain of these methods is not within that of a second
Retrain, so that it is expected to find a difference of both kinds. With N shadow models U-LiRA's Gaussians rest on N/4
and N/2 models; what so few do not show can be there.

16 were planned. A shadow of ``resnet14`` takes about 220 seconds of one processor (training 50, Retrain 50, the three
methods with their searches 120, by the times in forgetting-cpu.csv), so that 16 would take an hour. On a machine that
gave this script a quarter of a processor, ``resnet14`` was begun with four shadow models, the least that RMIA takes,
without U-LiRA, for ``mixunlearn-reset`` with masks alone. Written before its first shadow:

    OMP_NUM_THREADS=1 python -m benchmarks.auditing --data-dir DATA --seed 20 --bed resnet14 --shadow-models 4 \\
        --no-u-lira --subject "mixunlearn-reset, quick" --out benchmarks/results/auditing-cpu.csv

What must be shown is point 1. That and whether Retrain's interval includes 0.5 is read together: where it does not,
four models are too few to say anything. The 16, with U-LiRA, were made later on both, for both resets.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.forgetting import BEDS, CPU, MAIN, SUBJECTS, Cell
from benchmarks.rows import Rows
from pymixunlearn.benchmarking.machine import describe_machine
from pymixunlearn.evaluation.audit import ShadowMargins, measure, model_rates, plan_shadows, u_lira_scores
from pymixunlearn.evaluation.audit.lira import half_of
from pymixunlearn.experiments.audit.shadows import Shadows, make_shadows, margins_of
from pymixunlearn.experiments.common.progress import Observer

TASK = "data"
AUDITED = ("mixunlearn-reset, quick", "prune-reset", "eu-k")
ATTACKS = {
    "rmia": "RMIA, AUC with 95 % interval",
    "u_lira": "U-LiRA",
    "u_lira_unseen": "U-LiRA, unseen samples",
}
COLUMNS = (
    "model", "dataset", "task", "seed", "subject", "shadow_models", "candidates", "attack", "auc", "low", "high",
    "device", "threads", "versions",
)  # fmt: skip


class Watcher(Observer):
    """Says how many shadow models there are."""

    def __init__(self) -> None:
        self._last = ""

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        """Print what is new."""
        if detail != self._last:
            click.echo(f"  {detail}", err=True)
        self._last = detail


def audit(cell: Cell, name: str, count: int, *, u_lira: bool) -> list[dict[str, Any]]:
    """Return the rows of a subject, of the model before unlearning and of Retrain.

    Without U-LiRA no shadow model is retrained.
    """
    method = cell.method(SUBJECTS[name])
    plan = plan_shadows(cell.split, count, seed=cell.seed)
    shadows = Shadows(
        plan,
        cell.architecture,
        cell.recipe.initial,
        method,
        cell.recipe.retrain if u_lira else None,
        CPU,
        cell.seed,
        recipe=cell.recipe,
        with_initial=True,
    )
    margins = make_shadows(shadows, jobs=1, observer=Watcher())
    unlearned = method.unlearn(cell.initial, cell.split, device=CPU, seed=cell.seed, recipe=cell.recipe).model
    images, preprocess = plan.audited(), cell.split.preprocess
    assert margins.initial is not None  # asked for above
    found = []
    for subject, model, shadow in (
        ("initial", cell.initial, ShadowMargins(margins.initial)),
        ("retrain", cell.retrained("retrain")[0], ShadowMargins(margins.initial)),
        (name, unlearned, margins),
    ):
        rates = measure(plan, margins_of(model, images, preprocess, CPU), shadow, ("rmia",), seed=cell.seed)
        found.append((subject, "rmia", rates["attacks"]["rmia"]["auc"]))
    if margins.retrained is not None:
        some = slice(plan.candidates)
        for attack, seen in (("u_lira", plan.seen), ("u_lira_unseen", ~plan.seen)):
            scores = u_lira_scores(margins.shadows[:, some], margins.retrained[:, some], seen)
            found.append((name, attack, model_rates(*scores, threshold=0.0, first=half_of(count)).to_dict()["auc"]))
    return [
        {
            "subject": subject,
            "candidates": plan.candidates,
            "attack": attack,
            **{column: f"{auc[key]:.4f}" for column, key in (("auc", "value"), ("low", "low"), ("high", "high"))},
        }
        for subject, attack, auc in found
    ]


def table(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table with one line for each audited model, and a column for each attack that was made."""
    attacks = [attack for attack in ATTACKS if any(row["attack"] == attack for row in rows)]
    heading = ("network, task, seed", "model", "shadow models", *(ATTACKS[attack] for attack in attacks))
    lines = [f"| {' | '.join(cells)} |" for cells in (heading, ("---",) * len(heading))]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        where = f"{row['model']}, {row['task']}, {row['seed']}"
        cell = cells.setdefault((where, row["subject"], row["shadow_models"]), dict.fromkeys(attacks, ""))
        cell[row["attack"]] = f"{float(row['auc']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"
    lines += [f"| {' | '.join((*key, *cell.values()))} |" for key, cell in cells.items()]
    return "\n".join(lines)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--bed", "beds", multiple=True, type=click.Choice(list(BEDS)), default=MAIN, show_default=True)
@click.option("--seed", type=int, required=True)
@click.option("--subject", "subjects", multiple=True, type=click.Choice(AUDITED), default=AUDITED, show_default=True)
@click.option("--shadow-models", "count", type=int, default=16, show_default=True)
@click.option("--u-lira/--no-u-lira", default=True, show_default=True, help="Whether models are retrained for U-LiRA.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file; rows are appended.")
def main(
    data_dir: Path, beds: tuple[str, ...], seed: int, subjects: tuple[str, ...], count: int, u_lira: bool, out: Path
) -> None:
    """Audit every cell, and print all rows of the file as a table."""
    torch.set_num_threads(1)
    results = Rows(out, COLUMNS)
    for bed in (BEDS[name] for name in beds):
        key = {"model": bed.name, "task": TASK, "seed": seed, "shadow_models": count}
        wanted = tuple(ATTACKS) if u_lira else ("rmia",)
        left = [name for name in subjects if not all(results.find(subject=name, attack=a, **key) for a in wanted)]
        if not results.find(subject="retrain", attack="rmia", **key):
            left = left or [subjects[0]]
        if not left:
            continue
        cell = Cell(bed, bed.load(data_dir), TASK, seed, results)
        for row in (row for name in left for row in audit(cell, name, count, u_lira=u_lira)):
            if not results.find(subject=row["subject"], attack=row["attack"], **key):
                results.add({**key, "dataset": bed.dataset, **row, **asdict(describe_machine(CPU))})
    click.echo(table(results.rows))


if __name__ == "__main__":
    main()
