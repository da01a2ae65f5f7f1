"""Run folder of a model that another tool unlearned: measured, reported and recorded as one of ``unlearn``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pymixunlearn.evaluation import Acceptance, Metrics
from pymixunlearn.experiments.common.history import to_csv
from pymixunlearn.experiments.common.identity import attack_form, rest_of
from pymixunlearn.experiments.common.initial_model import CHECKPOINT, InitialModel
from pymixunlearn.experiments.common.inputs import EvaluateInputs
from pymixunlearn.experiments.common.model_config import MODEL_CONFIG, model_config_text
from pymixunlearn.experiments.common.origin import run_origin
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import utc_now, versions
from pymixunlearn.experiments.common.run_folder import RunFolder
from pymixunlearn.experiments.unlearn.figures import Figures
from pymixunlearn.experiments.unlearn.report import FILES, write_report
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import MODELS, OTHER_TOOL, SECOND, VERSION, measured
from pymixunlearn.tasks import Split
from pymixunlearn.training import save_model


@dataclass(frozen=True)
class JudgedRun:
    """Everything that is known of a model that was unlearned elsewhere.

    Attributes:
        inputs: What was requested.
        split: What was to be forgotten.
        models: "initial", "unlearned" and, if there is one, "retrain".
        metrics: What was measured of each.
        acceptance: What the acceptance test found of each; None where it was not made.
        identity: What determines the outcome.
        device: Where it was measured.
        command_line: The command.
    """

    inputs: EvaluateInputs
    split: Split
    models: Mapping[str, InitialModel]
    metrics: Mapping[str, Metrics]
    acceptance: Mapping[str, Acceptance] | None
    identity: Mapping[str, Any]
    device: torch.device
    command_line: str

    def record(self, started: str | None = None) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        found = measured(self.metrics)
        found["metrics"] = {**dict.fromkeys((*MODELS, SECOND)), **found["metrics"]}
        tested = None if self.acceptance is None else {name: test.to_dict() for name, test in self.acceptance.items()}
        now = utc_now()
        return {
            "version": VERSION,
            "method": OTHER_TOOL,
            "dataset": self.split.dataset.name,
            "task": self.split.task,
            "seed": self.inputs.seed,
            **attack_form(self.inputs.asr),
            **found,
            "acceptance": tested,
            "unchanged": self.models["initial"].sha256 == self.models["unlearned"].sha256,
            "rest": rest_of(self.split),
            "seconds": dict.fromkeys(MODELS),
            "stopping": None,
            "hashes": {name: model.sha256 for name, model in self.models.items()},
            "times": {"started": started or now, "finished": now},
            "versions": versions(),
        }

    def config(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        inputs, dataset = self.inputs, self.split.dataset
        return {
            **self.identity,
            "method": OTHER_TOOL,
            "resolved_settings": {},
            "preset": None,
            "label_aware": None,
            "initial": None,
            "retrain": None,
            **run_origin(inputs.model, self.models["unlearned"], inputs.data, inputs.split),
            "left_out": list(dataset.notes),
            "class_names": list(dataset.train.classes),
            **({"plugin": list(map(os.path.abspath, inputs.plugin))} if inputs.plugin else {}),
            "threads": torch.get_num_threads(),
            "command_line": self.command_line,
        }


def publish_judged(run: JudgedRun, folder: RunFolder, watcher: Observer) -> dict[str, Any]:
    """Write the folder's files, the model, the pictures and the report among them; return metrics.json's content.

    Raises:
        UserError: The folder cannot be written.
    """
    split, unlearned = run.split, run.models["unlearned"]
    networks = {name: model.loaded for name, model in run.models.items() if model.loaded is not None}
    record = run.record(folder.start_time)
    about = {key: run.identity[key] for key in ("dataset", "fingerprint", "preprocess", "task", "seed")}
    save_model(folder.partial / CHECKPOINT, networks["unlearned"], metadata={"purpose": "unlearned", **about})
    record["hashes"][CHECKPOINT] = file_sha256(folder.partial / CHECKPOINT)
    folder.write_json("config.json", run.config())
    folder.write_text(MODEL_CONFIG, model_config_text(unlearned.architecture, split.train.classes, split.preprocess))
    folder.write_json("split.json", split.manifest())
    folder.write_text("history.csv", to_csv([]))
    folder.write_json("metrics.json", record)
    Figures(
        split=split,
        networks=networks,
        metrics=run.metrics,
        acceptance=run.acceptance or {},
        history=[],
        generator=None,
        feature_layer=None,
        device=run.device,
        seed=run.inputs.seed,
    ).draw(folder.partial, watcher, tsne=False, thumbnails=False)
    write_report(folder.partial)
    folder.publish(FILES)
    return record
