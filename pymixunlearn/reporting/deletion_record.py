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

from pymixunlearn.reporting.metrics_record import MODELS, SECOND, upgraded_seconds
from pymixunlearn.reporting.verdict import verdict

FORMAT, FORMAT_1 = "pymixunlearn-report/2", "pymixunlearn-report/1"
"""Of this version, and of 0.1.0's, which can still be verified."""
RECORD = "report.json"


def schema(version: int = 2) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``report.json``; version 1 is that of 0.1.0."""
    text = files("pymixunlearn.reporting").joinpath(f"schema/report-{version}.schema.json").read_text("utf-8")
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
    purge: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of ``report.json``, sealed.

    Args:
        config: The content of ``config.json``.
        record: The content of ``metrics.json``.
        split: The content of ``split.json``.
        times: "started", "finished" and "written", in UTC by ISO 8601.
        hashes: The sha256 of every other file of the folder, by its name there.
        audit: The content of ``audit.json``, if there is one.
        purge: The content of ``purge.json``, likewise.
    """
    models = record["hashes"]
    named = [*MODELS, *([SECOND] if record["metrics"].get(SECOND) is not None else [])]
    ids = split["params"].get("ids")
    content: dict[str, Any] = {
        "format": FORMAT,
        "request": {
            "task": split["task"],
            "classes": [config["class_names"][label] for label in split["params"].get("classes", [])],
            "fraction": split["params"].get("fraction"),
            "forgotten": {
                "count": split["forget"]["count"],
                "indices_sha256": split["forget"]["sha256"],
                "ids": ids,
                **_sample_ids(split),
            },
            "remaining": {"count": split["retain"]["count"], "indices_sha256": split["retain"]["sha256"]},
            **_further_samples(split),
        },
        "dataset": {
            **split["dataset"],
            **({"validation": dict(split["validation"])} if "validation" in split else {}),
        },
        **({"in_memory": list(config["objects"])} if config.get("objects") else {}),
        "method": {
            "name": record["method"],
            "label_aware": config["label_aware"],
            "preset": config["preset"],
            "settings": config["resolved_settings"],
        },
        "models": {
            "architecture": config["architecture"],
            "initial_sha256": models["initial"],
            "unlearned_sha256": models["unlearned"],
            "retrain_sha256": models.get("retrain"),
            **({"frozen_parameters": config["frozen_parameters"]} if config.get("frozen_parameters") else {}),
            **({f"{SECOND}_sha256": models[SECOND]} if SECOND in models else {}),
        },
        **({"chain": _chain(record["chain"])} if "chain" in record else {}),
        "seed": record["seed"],
        "device": config["device"],
        "metrics": {model: record["metrics"][model] for model in named},
        "intervals": {model: record["intervals"].get(model) for model in named},
        "gap": record["gap"],
        "acceptance": record["acceptance"],
        **{name: record[name] for name in ("collapse", "release") if name in record},
        "verdict": list(verdict(record)),
        "audit": audit,
        **({} if purge is None else {"purge": purge}),
        "seconds": record["seconds"],
        **{name: record[name] for name in ("phases", "peak_memory") if name in record},
        "times": dict(times),
        "versions": record["versions"],
        "command_line": config["command_line"],
        "files": dict(sorted(hashes.items())),
    }
    return {**content, "sha256": record_sha256(content)}


def _chain(chain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fixes a model's chain of requests."""
    return {**{key: chain[key] for key in ("key_id", "head", "samples")}, "requests": len(chain["requests"])}


def _sample_ids(split: Mapping[str, Any]) -> dict[str, Any]:
    """Return by what kind of id the forgotten samples are known, and a hash of them; nothing of an older manifest."""
    names = split["forget"].get("ids")
    if names is None:
        return {}
    text = "".join(f"{name}\n" for name in names)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return {"sample_ids": {"kind": split["samples"]["kind"], "sha256": digest}}


def _further_samples(split: Mapping[str, Any]) -> dict[str, Any]:
    """Return the samples that were forgotten before, were taken out of the test set, or are copies that remain."""
    found: dict[str, Any] = {}
    if "history" in split:
        found["history"] = dict(split["history"])
    if "excluded" in split:
        found["forgotten_before"] = _counted(split["excluded"])
    for kind in ("removed", "copies"):
        if kind in split:
            found[kind] = {part: _counted(indices) for part, indices in split[kind].items()}
    return found


def _counted(indices: Mapping[str, Any]) -> dict[str, Any]:
    return {"count": indices["count"], "indices_sha256": indices["sha256"]}


def upgraded_record(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deletion record in the keys of version 2; version 1 of 0.1.0 is translated, the rest left as it is."""
    if content.get("format") != FORMAT_1:
        return dict(content)
    models, metrics = content["models"], content["metrics"]
    gap = metrics["gap"]
    return {
        **content,
        "models": {
            "architecture": models["architecture"],
            "initial_sha256": models["before_sha256"],
            "unlearned_sha256": models["after_sha256"],
            "retrain_sha256": models["retrain_sha256"],
        },
        "metrics": {"initial": metrics["before"], "unlearned": metrics["after"], "retrain": metrics["retrain"]},
        "intervals": {"unlearned": metrics["intervals"]},
        "gap": None if gap is None else {"unlearned": gap},
        "seconds": upgraded_seconds(content["seconds"]),
    }


def record_sha256(content: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a record without its own "sha256": as JSON, sorted keys, no spaces, in ASCII."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
