"""`--stop auto` beside fixed budgets: how near each comes to Retrain, and how long it takes.

    OMP_NUM_THREADS=1 python benchmarks/stopping.py --data-dir DATA --out stopping.json

Three runs for every data set, task, choice of labels and seed: `auto`, `preset` (the shipped epochs, which were chosen
by the test metrics) and `full` (the paper's 20 epochs, with the preset's other settings). All take the same initial and
retrained models. A finished run is never run again and an interrupted one goes on, so the script can be killed and
repeated.
The time of each run is taken where it runs: give the machine nothing else to do, or read the steps instead.
"""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import click

from pymixunlearn.evaluation import PAPER_METRICS
from pymixunlearn.experiments import DataRequest, SplitRequest, UnlearnInputs, resolve_unlearning, run_unlearning

SETTINGS: dict[str, dict[str, Any]] = {
    "auto": {"stop": "auto"},
    "preset": {},
    "full": {"settings": {"epochs": 20}},
}


def measure(request: UnlearnInputs, budget: str, folder: Path) -> dict[str, Any]:
    """Do one run, or read it back, and return what the table needs."""
    record = run_unlearning(resolve_unlearning(request), folder).record
    history = (folder / "history.csv").read_text().splitlines()
    stopping = record["stopping"]
    epochs = sum(line.startswith("unlearn,") for line in history)
    samples = json.loads((folder / "split.json").read_text())
    batch = json.loads((folder / "config.json").read_text())["settings"]["batch_size"]
    steps_per_epoch = -(-min(samples["forget"]["count"], samples["retain"]["count"]) // batch)
    gaps = {name: value for name, value in record["gap"].items() if name in {info.key for info in PAPER_METRICS}}
    return {
        "dataset": record["dataset"],
        "task": record["task"],
        "labels": "aware" if request.label_aware else "agnostic",
        "seed": record["seed"],
        "budget": budget,
        "gap": gaps,
        "total_gap": sum(gaps.values()),
        "steps": stopping["step"] if stopping else epochs * steps_per_epoch,
        "met": stopping["met"] if stopping else None,
        "seconds": record["seconds"],
        "stopping": stopping,
        "versions": record["versions"],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, one line per cell and seed."""
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for result in results:
        cell = tuple(result[name] for name in ("dataset", "task", "labels", "seed"))
        cells.setdefault(cell, {})[result["budget"]] = result
    budgets = [budget for budget in SETTINGS if any(budget in runs for runs in cells.values())]
    titles = [f"{budget}: {what}" for budget in budgets for what in ("total gap", "steps", "s")]
    lines = ["| " + " | ".join(["data set", "task", "labels", "seed", *titles]) + " |"]
    lines.append("| " + " | ".join(["---"] * (4 + len(titles))) + " |")
    for cell, runs in cells.items():
        texts = [str(part) for part in cell]
        for budget in budgets:
            result = runs.get(budget)
            texts += ["", "", ""] if result is None else _texts(result)
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _texts(result: dict[str, Any]) -> list[str]:
    unfinished = " (not done)" if result["met"] is False else ""
    return [f"{result['total_gap']:.2f}", f"{result['steps']}{unfinished}", f"{result['seconds']['unlearn']:.0f}"]


def summary(results: list[dict[str, Any]]) -> str:
    """Say for each fixed budget by how much `auto` is worse, and which share of its steps it needs."""
    by_run = {
        (*(result[name] for name in ("dataset", "task", "labels", "seed")), result["budget"]): result
        for result in results
    }
    lines = []
    for budget in ("preset", "full"):
        pairs = [
            (result, by_run[(*key[:-1], budget)])
            for key, result in by_run.items()
            if key[-1] == "auto" and (*key[:-1], budget) in by_run
        ]
        if pairs:
            worse = [auto["total_gap"] - fixed["total_gap"] for auto, fixed in pairs]
            share = [100 * auto["steps"] / fixed["steps"] for auto, fixed in pairs]
            lines.append(
                f"auto against {budget}, {len(pairs)} pairs: total gap {statistics.mean(worse):+.2f} points on "
                f"average, {max(worse):+.2f} at worst; {statistics.median(share):.0f} % of the steps (median), "
                f"{max(share):.0f} % at most"
            )
    return "\n".join(lines)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the data sets are; else they are downloaded.")
@click.option("--dataset", "datasets", multiple=True, default=("mnist", "fashion-mnist"), show_default=True)
@click.option("--task", "tasks", multiple=True, default=("class", "data"), show_default=True)
@click.option("--labels", "labels", multiple=True, default=("agnostic", "aware"), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--budget", "budgets", multiple=True, default=tuple(SETTINGS), show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/stopping"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def main(
    data_dir: Path | None,
    datasets: tuple[str, ...],
    tasks: tuple[str, ...],
    labels: tuple[str, ...],
    seeds: tuple[int, ...],
    budgets: tuple[str, ...],
    runs: Path,
    out: Path,
) -> None:
    """Measure every cell with every budget; the file is written anew after each run."""
    results = []
    for seed, dataset, task, label in itertools.product(seeds, datasets, tasks, labels):
        for budget in budgets:
            request = UnlearnInputs(
                data=DataRequest(dataset, data_dir, download=data_dir is None),
                split=SplitRequest(task),
                label_aware=label == "aware",
                device="cpu",
                seed=seed,
                **SETTINGS[budget],
            )
            results.append(measure(request, budget, runs / f"{dataset}-{task}-{label}-seed{seed}-{budget}"))
            out.write_text(json.dumps(results, indent=1) + "\n")
            last = results[-1]
            click.echo(
                f"{dataset} {task} {label} seed {seed} {budget}: {last['total_gap']:.2f} in {last['steps']} steps"
            )
    click.echo(f"\n{table(results)}\n\n{summary(results)}")


if __name__ == "__main__":
    main()
