"""Writer of ``cli/names.py``, the table of names that the command line knows without importing PyTorch.

Run it after a method, a setting, a data set, a model or a metric came, went or was described anew::

    python tests/cli/write_names.py
"""

from __future__ import annotations

import csv
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from pprint import pformat

TABLE = Path(__file__).parents[2] / "cli" / "names.py"
MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "forgetting-cpu.csv"
FIRST_HELD_OUT = 20
"""Seeds from here on took no part in the development of the methods."""

_HEAD = '''"""Names for help, lists and errors, known without importing PyTorch.

Written by ``tests/cli/write_names.py``; a test holds it equal to the registries.
"""

# ruff: noqa: E501
# fmt: off
'''


def names() -> dict[str, object]:
    """Return every table by its name, from the registries."""
    from pymixunlearn import data, methods, models
    from pymixunlearn.data.registry import loader_of
    from pymixunlearn.evaluation import METRICS
    from pymixunlearn.evaluation.audit import ATTACKS
    from pymixunlearn.experiments.compare.plan import row_names
    from pymixunlearn.experiments.tune.grids import grid_text, shipped_grids
    from pymixunlearn.methods.traits import TRAITS
    from pymixunlearn.tasks import TASKS

    def settings(config_class: type) -> tuple[str, ...]:
        return tuple(field.name for field in fields(config_class))

    def summary(made: object) -> str:
        """First sentence of the docstring, without its verb and full stop."""
        text = " ".join((made.__doc__ or "").partition("\n\n")[0].split()).removesuffix(".")
        return text.removeprefix("Load ").removeprefix("Build ").removeprefix("A ")

    return {
        "METHODS": {name: methods.get(name).summary for name in methods.available()},
        "ADVICE": {name: (*advice(*TRAITS[name]), *evidence(name)) for name in methods.available()},
        "SETTINGS": {name: settings(methods.get(name).config_class) for name in methods.available()},
        "ROWS": {row: name for row, (name, _) in row_names().items()},
        "GRIDS": {name: grid_text(grid) for name, grid in sorted(shipped_grids().items())},
        "TASKS": tuple(TASKS),
        "DATASETS": {name: summary(loader_of(name)) for name in data.available()},
        "MODELS": {name: summary(models.registry._ENTRIES[name].make) for name in models.available()},
        "METRICS": {info.key: info.meaning for info in METRICS.values()},
        "ATTACKS": tuple(ATTACKS),
    }


def advice(labels: str, retain: bool, forget: str) -> tuple[str, str, str]:
    """Return a method's cells in the table of ``list methods``: labels, D_r, D_f."""
    return labels, "yes" if retain else "no", forget


def evidence(method: str) -> tuple[str, str]:
    """Return in how many of the committed runs a method was accepted, and its time beside Retrain's there.

    Counted are the seeds that nothing was chosen on, where the acceptance test refuses the initial model: elsewhere it
    can tell nothing. All forms of a method that were run count.
    """
    with MEASURED.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["seed"]) >= FIRST_HELD_OUT]
    cell = itemgetter("model", "task", "seed")
    told = {cell(row) for row in rows if (row["subject"], row["decision"]) == ("initial", "refused")}
    mine = [row for row in rows if row["subject"].partition(",")[0] == method and cell(row) in told]
    if not mine:
        return "-", "-"
    accepted = sum(row["decision"] == "accepted" for row in mine)
    shares = sorted(round(100 * float(row["share_of_retrain"])) for row in mine)
    time = f"{shares[0]} %" if shares[0] == shares[-1] else f"{shares[0]}-{shares[-1]} %"
    return f"{accepted} of {len(mine)}", time


def render() -> str:
    """Return the text of the table."""
    kinds = {
        "METHODS": "dict[str, str]",
        "ADVICE": "dict[str, tuple[str, ...]]",
        "SETTINGS": "dict[str, tuple[str, ...]]",
    }
    lines = [_HEAD]
    for name, value in names().items():
        kind = kinds.get(name, "dict[str, str]" if isinstance(value, dict) else "tuple[str, ...]")
        lines.append(f"{name}: {kind} = {pformat(value, width=118, sort_dicts=False, compact=True)}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    TABLE.write_text(render(), "utf-8")
