"""The deletion record ``report.json``: what was forgotten, how, with what result, in a form that programs can check.

Its form is the JSON Schema :func:`schema`. Hashes guard every file of the run folder and the record itself against
accidents and careless edits. They are no signature: who can write the folder can write a record that fits it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from pymixunlearn.reporting.verdict import verdict

FORMAT = "pymixunlearn-report/1"
RECORD = "report.json"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``report.json``."""
    text = files("pymixunlearn.reporting").joinpath("schema/report-1.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def deletion_record(
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    split: Mapping[str, Any],
    *,
    times: Mapping[str, str],
    hashes: Mapping[str, str],
    audit: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of ``report.json``, sealed.

    Args:
        config: The content of ``config.json``.
        record: The content of ``metrics.json``.
        split: The content of ``split.json``.
        times: "started", "finished" and "written", in UTC by ISO 8601.
        hashes: The sha256 of every other file of the folder, by its name there.
        audit: The content of ``audit.json``, if there is one.
    """
    models = record["hashes"]
    ids = split["params"].get("ids")
    content: dict[str, Any] = {
        "format": FORMAT,
        "request": {
            "task": split["task"],
            "classes": [config["class_names"][label] for label in split["params"].get("classes", [])],
            "fraction": split["params"].get("fraction"),
            "forgotten": {"count": split["forget"]["count"], "indices_sha256": split["forget"]["sha256"], "ids": ids},
            "remaining": {"count": split["retain"]["count"], "indices_sha256": split["retain"]["sha256"]},
        },
        "dataset": split["dataset"],
        "method": {
            "name": record["method"],
            "label_aware": config["label_aware"],
            "preset": config["preset"],
            "settings": config["resolved_settings"],
        },
        "models": {
            "architecture": config["architecture"],
            "before_sha256": models["initial"],
            "after_sha256": models["unlearned"],
            "retrain_sha256": models.get("Retrain"),
        },
        "seed": record["seed"],
        "device": config["device"],
        "metrics": {
            "before": record["initial"],
            "after": record["metrics"],
            "retrain": record["retrain"],
            "gap": record["gap"],
            "intervals": record["details"]["unlearned"]["intervals"],
        },
        "verdict": list(verdict(record)),
        "audit": audit,
        "seconds": record["seconds"],
        "times": dict(times),
        "versions": record["versions"],
        "command_line": config["command_line"],
        "files": dict(sorted(hashes.items())),
    }
    return {**content, "sha256": record_sha256(content)}


def record_sha256(content: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a record without its own "sha256": as JSON, sorted keys, no spaces, in ASCII."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
