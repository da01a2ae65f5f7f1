"""Data behind a page: what its script shows on demand, made safe to stand in HTML."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pymixunlearn.reporting import comparison_table
from pymixunlearn.reporting.comparison import DIFFER
from pymixunlearn.reporting.comparison_html import render_comparison
from pymixunlearn.reporting.explore import MAX_CLASSES, Explored, heat_map, page_data
from pymixunlearn.reporting.narrowing import compare_command, experiment_command

RETRAIN = {0: (98.0, 0.0, 30.0), 1: (96.0, 0.0, 34.0)}
KEYS = ("test_r", "test_f", "asr")
CLASSES = ["zero", "</script><b>&\u2028\x1b[31m", "two"]


def cell(name: str, seed: int, values: tuple[float, float, float], **changes: Any) -> dict[str, Any]:
    gaps = {key: abs(a - b) for key, a, b in zip(KEYS, values, RETRAIN[seed], strict=True)}
    return {
        "name": name,
        "method": name,
        "label_aware": name != "laf",
        "seed": seed,
        "status": "finished",
        "reason": None,
        "metrics": {
            "initial": dict(zip(KEYS, (99.0, 98.0, 50.0), strict=True)),
            "unlearned": dict(zip(KEYS, values, strict=True)),
            "retrain": dict(zip(KEYS, RETRAIN[seed], strict=True)),
        },
        "intervals": {"unlearned": {"test_r": [90.0, 99.04]}},
        "gap": {"initial": {"mean": 40.0}, "unlearned": {**gaps, "mean": sum(gaps.values()) / 3}},
        "acceptance": {"unlearned": {"decision": ("accepted", "refused")[seed]}},
        "seconds": {"initial": 5.0, "retrain": 10.0, "unlearned": 1.0 + seed},
        "hashes": {"retrain": f"hash {seed}"},
        "most_changed": {
            part: [
                {"index": 7 + seed, "label": 1, "change": 50.0 + seed, "initial": [1, 90.0], "unlearned": [2, 60.0]},
                {
                    "index": 20,
                    "label": 0,
                    "change": 1.0,
                    "initial": [0, 51.0],
                    "unlearned": [0, 50.0],
                    "retrain": [2, 99.0],
                },
            ]
            for part in ("forget", "test")
        },
        "per_class": {
            "initial": [98.0, 99.0, 99.0],
            "unlearned": [0.0, 80.0 + seed, 99.0],
            "retrain": [0.0, 98.0, 98.0],
        },
        **changes,
    }


def record(*cells: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "task": "class",
        "params": {"classes": [0]},
        "architecture": {"name": "cnn"},
        "device": "cpu",
        "threads": 2,
        "versions": {},
        "class_names": CLASSES,
        "command_line": "mixunlearn-cli compare --methods ssd,laf --seeds=0,1 --out 'a b' --retry-failed --task class",
        "cells": {f"{own['name']}-seed{own['seed']}": own for own in cells},
    }


EXAMPLE = record(
    cell("ssd", 0, (97.0, 0.0, 31.0)),
    cell("ssd", 1, (95.5, 2.0, 41.0)),
    cell("laf", 0, (90.0, 0.0, 30.0), acceptance={"unlearned": {"decision": "cannot tell"}}),
)


def page(content: dict[str, Any]) -> str:
    return render_comparison(content, comparison_table(content), {})


def data(html: str) -> dict[str, Any]:
    """Return the data as a browser finds them: up to the first end of a script."""
    found = re.search(r'<script type="application/json" id="explore-data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found.group(1))
    return content


def test_a_cell_has_mean_deviation_seeds_gap_and_command() -> None:
    row = data(page(EXAMPLE))["cases"][0]["rows"]["aware/ssd"]
    test_r = row["cells"]["test_r"]
    assert (test_r["text"], test_r["mean"], test_r["std"]) == ("96.25", "96.2500", "1.0607")
    assert row["seeds"] == [0, 1] and test_r["seeds"] == ["97.0000", "95.5000"]
    assert test_r["intervals"] == ["90.0–99.0", "90.0–99.0"]
    assert test_r["gap"]["seeds"] == ["1.0000", "0.5000"] and test_r["gap"]["text"] == "0.75"
    assert row["cells"]["mean"]["seeds"] == [f"{2 / 3:.4f}", f"{9.5 / 3:.4f}"] and "gap" not in row["cells"]["mean"]
    assert row["cells"]["seconds"]["text"] == "1.5"
    assert row["command"] == "mixunlearn-cli compare --task class --methods ssd --seeds 0,1 --threads 2"


def test_retrain_has_its_own_numbers_and_no_gap() -> None:
    retrain = data(page(EXAMPLE))["cases"][0]["rows"]["/Retrain"]
    assert retrain["cells"]["test_r"]["seeds"] == ["98.0000", "96.0000"]
    assert not any("gap" in found for found in retrain["cells"].values())


def test_classes_are_beside_retrain_s() -> None:
    rows = data(page(EXAMPLE))["cases"][0]["rows"]
    one = rows["aware/ssd"]["cells"]["class1"]
    assert (one["text"], one["gap"]["text"], one["gap"]["seeds"]) == ("80.5", "-17.5", ["-18.0000", "-17.0000"])
    assert rows["aware/ssd"]["cells"]["class0"]["gap"]["text"] == "0.0"
    html = page(EXAMPLE)
    assert 'data-key="class0">zero *</th>' in html
    assert '<td data-key="class1" style="--strength:0.483">80.5</td>' in html


def test_the_samples_that_changed_most_are_those_of_all_seeds() -> None:
    html = page(EXAMPLE)
    lines = re.findall(r"<tr><td>(forgotten|test)</td>(.*?)</tr>", html.partition("<summary>ssd</summary>")[2])[:4]
    cells = [(part, *re.findall(r"<td>(.*?)</td>", rest)) for part, rest in lines]
    second = "&lt;/script&gt;&lt;b&gt;&amp;\\u2028\\x1b[31m"
    assert cells[0] == ("forgotten", "8", "1", second, f"{second} (90.0 %)", "two (60.0 %)", "-", "51.0")
    assert [line[:3] for line in cells] == [
        ("forgotten", "8", "1"),
        ("forgotten", "7", "0"),
        ("test", "8", "1"),
        ("test", "7", "0"),
    ]
    bare = [{key: value for key, value in own.items() if key != "most_changed"} for own in EXAMPLE["cells"].values()]
    assert "Samples that changed most" in html and "Samples that changed most" not in page(record(*bare))


def test_a_comparison_that_says_nothing_of_classes_has_no_part_for_them() -> None:
    bare = [{key: value for key, value in own.items() if key != "per_class"} for own in EXAMPLE["cells"].values()]
    html = page(record(*bare))
    assert "<h2>Classes</h2>" not in html and "class0" not in html
    assert "<h2>Classes</h2>" not in page({**EXAMPLE, "class_names": []})


def test_of_many_classes_those_farthest_from_retrain_are_shown() -> None:
    count = MAX_CLASSES + 5
    theirs, mine = [90.0] * count, [90.0] * count
    mine[3], mine[count - 1] = 10.0, 95.0
    lists = {"initial": theirs, "retrain": theirs, "unlearned": mine}
    only = cell("ssd", 0, (97.0, 0.0, 31.0), per_class=lists)
    made = heat_map(Explored("", comparison_table(record(only)), [only], [f"c{index}" for index in range(count)]))
    assert made is not None
    shown = [name for _, name, _ in made.headings]
    assert len(shown) == MAX_CLASSES and "c3" in shown and f"c{count - 1}" in shown
    assert made.remark == f"The {MAX_CLASSES} of {count} classes in which some row is farthest from Retrain."


def test_names_from_outside_end_no_script_and_steer_no_terminal() -> None:
    cells = [{**own, "name": own["name"].replace("ssd", CLASSES[1])} for own in EXAMPLE["cells"].values()]
    html = page({**record(*cells), "command_line": "mixunlearn-cli compare --set '</script><!--'"})
    assert html.count("</script>") == 2 and "<b>&" not in html and "\x1b" not in html and "\u2028" not in html
    rows = data(html)["cases"][0]["rows"]
    assert rows["aware/</script><b>&\\u2028\\x1b[31m"]["command"].startswith("mixunlearn-cli compare --set '</script>")


def test_equal_records_give_equal_bytes() -> None:
    again = json.loads(json.dumps(EXAMPLE))
    assert page(EXAMPLE).encode() == page(again).encode()


def test_a_page_asks_for_nothing_and_is_not_allowed_to() -> None:
    html = page(EXAMPLE)
    assert "default-src 'none'" in html
    assert not re.search(r"""\b(src|href)=|@import|https?://(?!www\.w3\.org/)|fetch\(|innerHTML|eval\(""", html)


def test_the_answer_of_the_acceptance_test_is_one_only_where_seeds_agree() -> None:
    rows = {row.name: row for row in comparison_table(EXAMPLE).rows}
    assert [rows[name].answer for name in ("ssd", "laf", "initial")] == [DIFFER, "cannot tell", ""]


def test_rows_of_one_name_in_two_groups_are_told_apart() -> None:
    cells = [cell("ours", 0, (97.0, 0.0, 31.0)), cell("ours", 0, (90.0, 0.0, 31.0), label_aware=False)]
    content = {**EXAMPLE, "cells": dict(enumerate(cells))}
    found = data(page(content))["cases"][0]["rows"]
    assert found["aware/ours"]["name"] == "ours, with labels" and found["aware/ours"]["twin"]
    assert found["agnostic/ours"]["cells"]["test_r"]["seeds"] == ["90.0000"]
    assert '<th scope="row">ours, without labels</th>' in page(content)


def test_a_table_without_cells_is_explored_without_seeds() -> None:
    case = Explored("", comparison_table(EXAMPLE))
    row = page_data([case])["cases"][0]["rows"]["aware/ssd"]
    assert row["seeds"] == [] and row["cells"]["test_r"]["text"] == "96.25"
    assert heat_map(case) is None


@pytest.mark.parametrize("line", ["", "the command", "python -c 'x", "mixunlearn-cli unlearn --method ssd"])
def test_a_text_that_is_no_such_command_is_not_narrowed(line: str) -> None:
    assert compare_command(line, "ssd", [0], 1) == "" and experiment_command(line, "mnist", "ssd", 1) == ""


def test_the_command_of_an_exhibit_s_row_names_its_case() -> None:
    line = "mixunlearn-cli experiment run table1 --data cifar10=x --only laf --only=ssd --jobs 2 --cells y"
    assert experiment_command(line, "a[1]", "ssd", 1) == (
        "mixunlearn-cli experiment run table1 --data cifar10=x --only 'a[[]1]/ssd/*' --threads 1"
    )
