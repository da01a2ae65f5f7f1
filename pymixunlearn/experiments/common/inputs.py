"""Inputs of every command: data, forget set, model, device, seed and settings, before any data is loaded.

A field says its own option on the command line (:func:`option`). Nothing here imports PyTorch before it is needed: the
command line reads the fields to print its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.experiments.common.bad_request import check_name
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.history_request import HistoryRequest
from pymixunlearn.experiments.common.options import device_option, option, plugin_option
from pymixunlearn.experiments.common.split_request import SplitRequest

if TYPE_CHECKING:
    from torch import nn

    from pymixunlearn.data import Dataset

LABELS = "--label-aware/--label-agnostic"
"""Name of the option for whether labels may be used."""

ASR_FORMS = ("default", "paper")
"""The forms of the membership attack, those of :data:`pymixunlearn.evaluation.FORMS`."""

PRESETS = ("tuned", "paper", "none")
"""The kinds of shipped settings."""


def accuracy_option(when: str, which: str = "test accuracy that you know of the model") -> Any:
    """Return the field and option of an accuracy that is known beforehand.

    Args:
        when: The clause that "another, off by more than 0.5" follows.
        which: What it is the accuracy of.
    """
    return option(
        "--expect-accuracy",
        kind=float,
        least=0,
        most=100,
        metavar="P",
        help=f"The {which}, in percent: the command ends with 3 {when} another, off by more than 0.5.",
    )


@dataclass(frozen=True)
class ModelRequest:
    """Which initial model.

    Attributes:
        model: A specification (it is then trained first, unless weights are given) or a checkpoint; None means ``cnn``
            for one-channel images and ``resnet18`` otherwise.
        architecture: The built-in network of a checkpoint that does not say its own.
        weights: A file of weights for ``model``.
        model_config: A file that says the rest, see :mod:`pymixunlearn.experiments.common.model_config`.
        allow_code: Whether a user's function may be run that only a file names.
    """

    model: str | None = option(
        "--model",
        metavar="SPEC|RUN|FILE",
        help="A network: cnn, resnet14, resnet18, vit, torchvision:NAME, timm:NAME, hf:NAME, hf:FOLDER, "
        "package.module:factory or file.py:factory; with --weights as they are in a file, otherwise trained first. Or "
        "a run folder, or a model file that says what it holds.  [default: cnn for grey images, resnet18 for colour]",
    )
    architecture: str | None = option(
        "--architecture",
        metavar="NAME",
        help="The network (cnn, resnet14, resnet18, vit) of a checkpoint that does not say its own: a plain PyTorch "
        "state dict.",
    )
    weights: Path | None = option(
        "--weights",
        kind=Path,
        metavar="FILE",
        help="The weights of --model: a state dict as PyTorch saves it, safetensors, or the index of several of these.",
    )
    model_config: Path | None = option(
        "--model-config",
        kind=Path,
        metavar="FILE.yaml",
        help="What the weights do not say: arguments, classes, class_map, feature_layer, preprocessing. Written by "
        "`train` and into every run folder as model.yaml.",
    )
    allow_code: bool = option(
        "--allow-code",
        default=False,
        help="Run a function (file.py:factory) that a model file or a model config names, not only one of --model.",
    )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of every command; each adds its own fields.

    Attributes:
        data: Which data set.
        split: Which samples to forget.
        model: Which initial model.
        history: What of the requests that it has served before counts.
        device: "auto", "cpu", "cuda", "cuda:1", …
        seed: Fixes the whole run.
        plugin: Python files with plug-ins, see docs/plugins.md.
        settings: Dotted setting names to values, on top of defaults and preset.
    """

    data: DataRequest = field(default_factory=DataRequest)
    split: SplitRequest = field(default_factory=SplitRequest)
    model: ModelRequest = field(default_factory=ModelRequest)
    history: HistoryRequest = field(default_factory=HistoryRequest)
    device: str | None = device_option()
    seed: int = option("--seed", kind=int, default=0, show_default=True, help="Fixes every random choice of the run.")
    plugin: tuple[str, ...] = plugin_option()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasuredInputs(Inputs):
    """Inputs of every command that measures unlearned models.

    Attributes:
        asr: The form of the membership attack, "default" or "paper".
    """

    asr: str = option(
        "--asr",
        default="default",
        metavar="default|paper",
        help="The membership attack: the mean of five on images as stored; or the paper's one, on augmented members "
        "and with test images in the order of the file, for numbers that stand beside the paper's.",
    )

    def __post_init__(self) -> None:
        """Check the form of the attack.

        Raises:
            BadRequest: There is no such form.
        """
        check_name("form of the attack", self.asr, ASR_FORMS)


@dataclass(frozen=True, kw_only=True)
class RunInputs(MeasuredInputs):
    """Inputs of every command that runs methods and measures them.

    Attributes:
        preset: Which shipped settings the runs begin with: "tuned", "paper" or "none".
    """

    preset: str = option(
        "--preset",
        default="tuned",
        show_default=True,
        metavar="tuned|paper|none",
        help="Settings to begin with: those that were searched for the case, where some ship; the paper's, with the "
        "middle of each of its grids and images of 224 pixels for cifar10 and svhn; or the method's defaults.",
    )

    def __post_init__(self) -> None:
        """Check the preset, too.

        Raises:
            BadRequest: There is no such kind of preset.
        """
        super().__post_init__()
        check_name("preset", self.preset, PRESETS)


@dataclass(frozen=True, kw_only=True)
class SeededInputs(RunInputs):
    """Inputs of commands that divide the data, train models and unlearn: each can have a seed of its own.

    Attributes:
        split_seed: Fixes the split; None takes ``seed``.
        training_seed: Fixes the trainings of the initial model and of Retrain; None takes ``seed``.
    """

    split_seed: int | None = option(
        "--split-seed", kind=int, metavar="N", help="Fixes which samples are to be forgotten.  [default: the seed]"
    )
    training_seed: int | None = option(
        "--training-seed",
        kind=int,
        metavar="N",
        help="Fixes the trainings of the initial model and of Retrain.  [default: the seed]",
    )

    @property
    def own_seeds(self) -> dict[str, int]:
        """The seeds that were given beside ``seed``, by name."""
        given = {"split_seed": self.split_seed, "training_seed": self.training_seed}
        return {name: seed for name, seed in given.items() if seed is not None}

    @property
    def seed_of_split(self) -> int:
        """What fixes the split."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def seed_of_training(self) -> int:
        """What fixes the trainings."""
        return self.seed if self.training_seed is None else self.training_seed


@dataclass(frozen=True)
class TrainInputs(Inputs):
    """Inputs of ``train``; ``settings`` are plain names of the training's fields, and ``split`` is not used.

    Attributes:
        curve: Whether to measure the test accuracy after every epoch.
    """

    curve: bool = option(
        "--curve",
        default=False,
        help="Measure the accuracy on the test images after every epoch too: column 'test' of history.csv.",
    )


@dataclass(frozen=True)
class RetrainInputs(Inputs):
    """Inputs of ``retrain``; ``settings`` are plain names of the training's fields."""


@dataclass(frozen=True)
class EvaluateInputs(MeasuredInputs):
    """Inputs of ``evaluate``; ``model`` is the network of checkpoints that do not say their own.

    Attributes:
        checkpoint: A model file, or the run folder it is in; None where ``model`` says the weights, or is in memory.
        reference: Another, usually Retrain's, to show the gap to.
        before: The model before unlearning, which the acceptance test must refuse before it can accept another. With it
            an output folder is one like that of ``unlearn``, report and record included, with ``reference`` as Retrain.
        expect_accuracy: The model's test accuracy in percent, as its owner knows it.
        attacker: The membership attack's classifier.
    """

    checkpoint: Path | None = None
    reference: Path | nn.Module | None = option(
        "--reference",
        kind=Path,
        metavar="CHECKPOINT",
        help="Another model, usually Retrain's, to show the gap to.",
    )
    before: Path | nn.Module | None = option(
        "--before",
        kind=Path,
        metavar="CHECKPOINT",
        help="The model before unlearning: without it the acceptance test can refuse a model and not accept one. With "
        "it --out writes a report and a record that `verify` and `audit` take; --reference is Retrain then.",
    )
    expect_accuracy: float | None = accuracy_option("where it finds")
    attacker: str = option(
        "--attacker",
        default="hist-gradient-boosting",
        show_default=True,
        metavar="NAME",
        help="Classifier of the membership attack: hist-gradient-boosting, or xgboost if it is installed.",
    )


@dataclass(frozen=True)
class VerifyInputs:
    """Inputs of ``verify``; the run says everything else.

    Attributes:
        folder: The run folder.
        data_dir: Where the data set's files are; None takes the folder that the run read.
        download: Whether missing data may be downloaded.
        before: The model before unlearning, whose hash and metrics are then checked too.
        model: The run's network, for a run of a model in memory, and as consent to run a user's function.
        weights: The unlearned model as it is used elsewhere: is it the one of the record?
        manifest: A ``split.json``: is it the run's?
        retrain: Retrain's model, likewise; what compares with Retrain's predictions can be measured with it alone.
        deletion_list: The list of samples to forget, to check that these were requested.
        allow_code: Whether to run a user's file that the record names.
        public_key: Whose signature ``report.json`` must have.
        hashes_only: Neither load the data nor measure.
        dataset: The data of a run that was made from data in memory.
        network: A network of the structure of the run's, where that was in memory; the initial model, or one like it.
        device: Where to measure.
    """

    folder: Path
    data_dir: Path | None = option(
        "--data-dir", kind=Path, metavar="DIR", help="Where the data set is.  [default: where the run read it]"
    )
    download: bool = option("--no-download", default=True, help="Fail rather than download files that are missing.")
    model: str | None = option(
        "--model",
        metavar="SPEC",
        help="The run's network, where the record cannot or may not make it: that of a model in memory, or your own "
        "file.py:factory, which is then run.",
    )
    weights: Path | None = option(
        "--weights", kind=Path, metavar="FILE", help="The unlearned model as you use it: is it the one of the record?"
    )
    before: Path | None = option(
        "--before",
        old="--initial",
        kind=Path,
        metavar="CHECKPOINT",
        help="The model before unlearning, to check it too.",
    )
    retrain: Path | None = option(
        "--retrain", kind=Path, metavar="CHECKPOINT", help="Retrain's model, to check it too."
    )
    manifest: Path | None = option(
        "--split", kind=Path, metavar="FILE", help="The split.json that you know: does the run forget the same?"
    )
    deletion_list: Path | None = option(
        "--forget",
        old="--forget-indices",
        kind=Path,
        metavar="FILE",
        help="The list of samples that was to be forgotten: are these the ones, and their ids?",
    )
    allow_code: bool = option(
        "--allow-code",
        default=False,
        help="Run the Python file that makes the model, where the record names one; without it, what needs the model "
        "is not checked.",
    )
    dataset: Dataset | None = None
    network: nn.Module | None = None
    public_key: Path | None = option(
        "--public-key", kind=Path, metavar="FILE", help="The public key that report.json must be signed for."
    )
    hashes_only: bool = option("--hashes-only", default=False, help="Neither load the data nor measure anything.")
    device: str | None = device_option()
