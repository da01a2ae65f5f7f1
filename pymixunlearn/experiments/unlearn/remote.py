"""Runs that are carried out on another machine: all that they read goes there, and the run folder comes back."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.forget_chain import KEY_FILE, read_key, write_key
from pymixunlearn.experiments.common.forget_history import is_above
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.training_run import TrainingPlan
from pymixunlearn.experiments.train import run_training
from pymixunlearn.experiments.unlearn.plan import Plan
from pymixunlearn.experiments.unlearn.run import run_unlearning
from pymixunlearn.files import write_atomically

_PROCESSOR = "preprocessor_config.json"
_CHECKPOINT, _KEY = Path("checkpoint"), Path("key")


@dataclass(frozen=True)
class RemoteRun:
    """A run with all that it reads.

    Attributes:
        plan: The run, with data and model.
        files: Further files that it reads, by a name.
    """

    plan: Plan | TrainingPlan
    files: Mapping[str, bytes] = field(default_factory=dict)


def prepare_remote(plan: Plan | TrainingPlan) -> RemoteRun:
    """Read what a run reads beside data and model.

    Raises:
        UserError: A file cannot be read, or is one that other machines have to read themselves.
    """
    start = plan.initial.architecture.get("pretrained")
    if isinstance(start, str):
        raise UserError(
            f"a training that starts from a file of weights ('{start}') reads it in every run, so it cannot run on "
            "another machine; expected on=local, or the trained model by --model or --weights"
        )
    # Computed here: they read files that other machines do not have.
    _ = plan.identity, plan.origin, plan.earlier
    files = {}
    if isinstance(plan, Plan) and plan.initial.trained_elsewhere and plan.initial.checkpoint is not None:
        files = {str(_CHECKPOINT / path.name): _read(path) for path in _read_again(plan.initial.checkpoint)}
    if plan.inputs.history.forget_key is not None:
        files[str(_KEY / KEY_FILE)] = _read(plan.inputs.history.forget_key.expanduser())
    return RemoteRun(plan, files)


def run_remotely(run: RemoteRun, command_line: str, observer: Observer) -> dict[str, bytes]:
    """Carry out a run in a folder of its own, and return the content of the run folder by the paths in it.

    Raises:
        UserError: As of :func:`run_unlearning` and :func:`pymixunlearn.experiments.train.run_training`.
    """
    with tempfile.TemporaryDirectory(prefix="pymixunlearn-") as folder:
        beside, out = Path(folder, "files"), Path(folder, "run")
        for name, content in run.files.items():
            write_atomically(beside / name, content)
        plan = _reading(run.plan, beside)
        if isinstance(plan, TrainingPlan):
            run_training(plan, out, observer=observer, command_line=command_line)
        else:
            run_unlearning(plan, out, observer=observer, command_line=command_line, guard=False)
        return {
            path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
        }


def receive_run(plan: Plan | TrainingPlan, out: Path, files: Mapping[str, bytes]) -> Run:
    """Write the run folder of a run that was carried out elsewhere.

    Args:
        plan: The run.
        out: The folder.
        files: What :func:`run_remotely` returned.

    Raises:
        UserError: The folder holds another run or cannot be written, or another process is at work in it.
    """
    folder = RunFolder(out, plan.identity)
    if not folder.finished:
        with folder.writing():
            names = {name.partition("/")[0] for name in files}
            for name, content in files.items():
                path = folder.partial / name
                if name == KEY_FILE:
                    key = bytes.fromhex(content.decode("ascii").strip())
                    write_key(path, key)
                    if is_above(folder.path, read_key(path)):
                        names.remove(name)
                else:
                    write_atomically(path, content)
            folder.publish(tuple(sorted(names)))
    return Run(folder.path, folder.read_json("metrics.json"), known=False)


def _reading(plan: Plan | TrainingPlan, beside: Path) -> Plan | TrainingPlan:
    """Return the plan with the files in ``beside`` in place of those that it names."""
    changed = copy.copy(plan)  # what was computed of the plan stays
    inputs = plan.inputs
    if (beside / _KEY).is_dir():
        history = replace(inputs.history, forget_key=beside / _KEY / KEY_FILE)
        object.__setattr__(changed, "inputs", replace(inputs, history=history))
    if (beside / _CHECKPOINT).is_dir() and plan.initial.checkpoint is not None:
        given = plan.initial.checkpoint.name
        file = beside / _CHECKPOINT / given
        initial = replace(plan.initial, checkpoint=file if file.is_file() else beside / _CHECKPOINT)
        object.__setattr__(changed, "initial", initial)
    return changed


def _read_again(checkpoint: Path) -> list[Path]:
    """Return the files that are read once more when the unlearned model is written in their form."""
    if checkpoint.is_dir():
        return [path] if (path := checkpoint / _PROCESSOR).is_file() else []
    try:
        parts: Mapping[str, Any] = json.loads(checkpoint.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError):  # a file of tensors, not the index of several
        return [checkpoint]
    return [checkpoint, *(checkpoint.parent / name for name in dict.fromkeys(parts.values()))]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
