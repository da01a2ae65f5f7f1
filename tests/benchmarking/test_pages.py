"""Numbers in README and docs that a kept file of results has: the pages say what the files say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks import growth_tables
from benchmarks.forgetting_tables import aims
from benchmarks.rows import Rows
from tests.cli.write_names import FIRST_HELD_OUT

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SOURCES = ("cifar10", "fashion-mnist")
ABOUT = {
    *("data", "seed", "role", "images", "samples", "check", "aim", "threshold"),
    *("false_pairs", "samples_with_a_false_pair"),
}

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    found = Rows(RESULTS / name, ()).rows
    assert found
    return found


def page(name: str) -> str:
    """A page with its lines joined, so that a sentence is found however it is wrapped."""
    text = (ROOT / name).read_text("utf-8")
    return text + " ".join(text.split())


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def extremes(values: Iterable[float], digits: int = 2) -> str:
    found = sorted(values)
    return f"{found[0]:.{digits}f} to {found[-1]:.{digits}f}"


def test_what_was_reached_is_that_of_the_file() -> None:
    made = aims([row for row in rows("forgetting-cpu.csv") if int(row["seed"]) >= FIRST_HELD_OUT])
    assert made in page("docs/choosing.md")
    counts = {cells[0]: cells[1:4] for cells in (entry.strip("| ").split(" | ") for entry in made.splitlines()[2:])}
    shown = {
        "`eu-k`": "eu-k",
        "`prune-reset`": "prune-reset",
        "`mixunlearn-reset`, quick": "mixunlearn-reset, quick",
        "`mixunlearn`, the paper's method": "mixunlearn, aware",
    }
    for label, subject in shown.items():
        assert line(label, *counts[subject]) in page("README.md")


def test_how_good_the_acceptance_test_is() -> None:
    earlier = rows("acceptance-cpu.csv")
    present = [row for row in earlier if row["task"] == "data"] + rows("acceptance-class-cpu.csv")
    text = page("docs/forgetting.md")

    def decisions(subject: str, among: list[Row]) -> tuple[int, int, int]:
        found = Counter(row["decision"] for row in among if row["subject"] == subject)
        return found["accepted"], found["refused"], found["cannot tell"]

    for label, subject in {
        "retrained models, 40": "retrain",
        "untouched models, 40": "initial",
        "last layer fitted again, 8": "refitted head",
        "margins matched to V's, 8, at the training's rate": "matched margins",
        "masked logit, 4": "masked logit",
    }.items():
        assert line(label, *decisions(subject, present)) in text
    harder = decisions("matched margins at three times the rate", earlier)
    assert line("the same at three times that rate, 8, earlier form", *harder) in text

    told = [row for row in present if row["subject"] == "initial" and row["decision"] == "refused"]
    for network, words in (("resnet14", "The untouched `resnet14` is refused at distances"), ("cnn", "the `cnn` at")):
        own = [row for row in told if row["model"] == network]
        distances = extremes(max(float(row["ks"]), float(row["ks_resurfaced"])) for row in own)
        bounds = extremes(float(row["bound"]) for row in own)
        (sentence,) = [part for part in text.splitlines()[-1].split(";") if words in part and "bounds" in part]
        assert distances in sentence and f"bounds of {bounds}" in sentence, (network, distances, bounds)


def test_the_refitted_heads() -> None:
    def refused(row: Row, *distances: str) -> bool:
        return any(row[name] and float(row[name]) > float(row["bound"]) for name in distances)

    forms = (("ks",), ("ks", "ks_resurfaced"), ("ks", "ks_shown"))
    for label, subject in {
        "untouched": "initial",
        "last layer fitted again": "refitted head",
        "retrained, seed 41": "retrain",
    }.items():
        own = [row for row in rows("refitted-cpu.csv") if row["subject"] == subject]
        counts = (sum(refused(row, *form) for row in own) for form in forms)
        assert line(label, len(own), *counts) in page("docs/forgetting.md")


def test_the_rollback_of_single_samples() -> None:
    found = {
        (row["labels"], row["settings"], row["rollback"], row["seed"]): row
        for row in rows("rollback-cpu.csv")
        if row["task"] == "data"
    }
    for labels, said in (("agnostic", "no"), ("aware", "yes")):
        for settings, name in (("sound", "shipped"), ("ruinous", "ruinous")):
            both = [
                " / ".join(f"{float(found[labels, settings, on, seed]['test_own']):.1f}" for seed in ("3", "4"))
                for on in ("False", "True")
            ]
            back = " / ".join(
                "yes" if found[labels, settings, "True", seed]["rolled_back"] == "True" else "no" for seed in ("3", "4")
            )
            assert line(said, "samples", name, *both, back) in page("docs/forgetting.md")


def test_near_copies() -> None:
    found = {(row["change"], row["threshold"], row["data"]): row for row in rows("copies.csv")}
    sources = ("cifar10", "tiny-imagenet", "mnist", "fashion-mnist")
    text = page("docs/requests.md")
    for change in sorted({change for change, _, _ in found}):
        column = "false_pairs" if change == "none: other images" else "recall"
        cells = (
            " / ".join(f"{float(found[change, bits, source][column]):.0f}" for bits in ("40", "72"))
            for source in sources
        )
        label = "**pairs of other images (false alarms), of about 600 000**" if column == "false_pairs" else change
        assert line(label, *cells) in text


def test_near_copies_by_embeddings() -> None:
    every = rows("copies-embeddings.csv")
    text = page("docs/requests.md")
    second = {name: [row for row in every if row["role"] == "second plan" and row["data"] == name] for name in SOURCES}
    for change in [name for name in every[0] if name not in ABOUT] + ["false_pairs"]:
        label = "**pairs of other images (false alarms) of 300 samples**" if change == "false_pairs" else change
        cells = (" / ".join(f"{float(row[change]):.0f}" for row in second[name]) for name in SOURCES)
        assert line(label, *cells) in text
    fixed = [row for row in every if row["check"] == "map whitened, cosine" and row["aim"] == "20"]
    chosen, other, garments = (round(1000 * int(row["false_pairs"]) / int(row["samples"])) for row in fixed)
    assert chosen <= 20 and f"had {other} on another draw of it and {garments} on Fashion-MNIST" in text


def test_automatic_stopping() -> None:
    found = {
        (run["dataset"], run["task"], run["labels"], run["seed"], run["budget"]): run
        for run in json.loads((RESULTS / "stopping.json").read_text("utf-8"))
    }
    names = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "class": "class 0", "data": "samples"}
    text = page("docs/stopping.md")
    pairs = [(key[:4], run, found[(*key[:4], "full")]) for key, run in found.items() if key[4] == "auto"]
    assert len(pairs) == 24
    for (dataset, task, labels, seed), auto, full in pairs:
        difference = auto["total_gap"] - full["total_gap"]
        gaps = (f"{auto['total_gap']:.2f}", f"{full['total_gap']:.2f}", f"{difference:+.2f}")
        share = f"{100 * auto['seconds']['unlearn'] / full['seconds']['unlearn']:.0f} %"
        assert line(names[dataset], names[task], labels, seed, *gaps, auto["steps"], full["steps"], share) in text


def test_what_growth_costs() -> None:
    found, text = rows("growth-cpu.csv"), page("docs/scale.md")
    assert growth_tables.measured_axes(found)
    for axis in growth_tables.measured_axes(found):
        assert growth_tables.axis_table(found, axis) in text, axis
    assert growth_tables.file_table(found) in text


def test_the_training_step() -> None:
    cnn, half, large = (rows(f"step-{name}-cpu.csv") for name in ("cnn-float32", "cnn-bfloat16", "224"))
    text = page("docs/step.md")
    for label, provider in {
        "fast": "fast",
        "fast, first epoch": "first epoch",
        "the package's plain loop": "loop",
        "plain PyTorch, same network": "pytorch",
        "plain PyTorch, network as described": "pytorch, own network",
    }.items():
        cells: list[str] = []
        for measured, case in ((cnn, "cnn-28"), (half, "cnn-28"), (large, "resnet18-224"), (large, "vit-224")):
            own = [row for row in measured if (row["case"], row["provider"], row["part"]) == (case, provider, "step")]
            milliseconds = [float(row["p50_ms"]) for row in own]
            cells += [f"{ms:.{1 if ms < 100 else 0}f} ms" for ms in milliseconds] or [""]
            cells += [f"{float(row['ratio']):.2f}".replace("1.00", "1") for row in own] or [""]
        shown = [
            cell.strip() for entry in text.splitlines() if entry.startswith(f"| {label} |") for cell in entry.split("|")
        ]
        start = shown.index(label) + 1
        assert [cell.replace("1.00", "1") for cell in shown[start : start + 8]] == cells


def test_the_fused_operators_beside_pytorch() -> None:
    ratios = {
        (row["op"], row["pairing"], row["size"]): f"{float(row['ratio']):.1f}"
        for row in rows("ops-cpu.csv")
        if (row["dtype"], row["mode"], row["provider"], row["status"]) == ("float32", "both", "pytorch", "measured")
    }
    mix, real = ("mix_contrastive_loss", "zip"), ("real_contrastive_loss", "")
    again = {
        row["op"]: f"{float(row['ratio']):.1f}"
        for row in rows("losses-small-cpu.csv")
        if (row["pairing"] != "grid", row["mode"], row["provider"]) == (True, "both", "pytorch")
    }
    small, medium = ([ratios[(*loss, size)] for loss in (mix, real)] for size in ("small", "medium"))
    attention = [ratios["mixblock_attention", pairing, "medium"] for pairing in ("zip", "grid")]
    readme = page("README.md")
    others = f"{again['mix_contrastive_loss']} and {again['real_contrastive_loss']} in another run"
    assert f"the losses at 32 rows × 10 classes {small[0]} (Eq. 5) and {small[1]} (Eq. 6; {others})" in readme
    assert f"at 32 × 1000 {medium[0]} and {medium[1]}" in readme
    assert f"`mask_mix` at 32×3×224×224 {ratios['mask_mix', 'zip', 'medium']}" in readme
    assert f"the attention at 196 positions {attention[0]}, in grid pairing {attention[1]}" in readme
    aims_table = page("docs/performance.md")
    assert f"| losses, 32 rows of 10 classes | 6 | {small[0]} (Eq. 5), {small[1]} (Eq. 6) |" in aims_table
    assert f"(grid, medium) | 5 | {ratios['mix_contrastive_loss', 'grid', 'medium']} |" in aims_table
