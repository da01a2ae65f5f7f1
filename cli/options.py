"""The options that several commands share, and the requests that their values make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .config_file import load_config

if TYPE_CHECKING:
    from pymixunlearn.experiments.common.inputs import DataRequest, ModelRequest, SplitRequest

F = TypeVar("F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)


def _group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine option decorators so that ``--help`` lists them in the order given."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


data_options = _group(
    click.option(
        "--dataset",
        default="digits",
        show_default=True,
        metavar="NAME",
        help="digits (scikit-learn's, nothing to download), mnist, fashion-mnist, cifar10, svhn, or imagefolder. "
        "mnist@10000 takes a random part of the training images, always the same 10000.",
    ),
    click.option(
        "--data-dir",
        type=_PATH,
        metavar="DIR",
        help="Where the data set's files are or go; for imagefolder, the folder or archive.  [default: a cache folder]",
    ),
    click.option("--no-download", is_flag=True, help="Fail rather than download files that are missing."),
    click.option(
        "--image-size",
        type=click.IntRange(min=8),
        metavar="PIXELS",
        help="Side of the network's input; 224 is the paper's for cifar10 and svhn.  [default: the data set's own]",
    ),
    click.option(
        "--stream/--in-memory",
        default=None,
        help="For imagefolder: read images from the decoded file batch by batch, or hold them all. The results are the "
        "same.  [default: --stream above 4 GiB of images]",
    ),
    click.option(
        "--follow-links", is_flag=True, help="For imagefolder: symbolic links may lead out of the folder of the images."
    ),
    click.option(
        "--skip-unreadable",
        is_flag=True,
        help="For imagefolder: leave out images that cannot be read, and count them, rather than fail and name them.",
    ),
)

split_options = _group(
    click.option(
        "--task",
        metavar="TASK",
        help="What to forget: class (whole classes), data (a random share of some classes' samples), noisy (such a "
        "share, given wrong labels first), semi (a share of the few labelled samples; the others have no labels), or "
        "indices (a list of samples).  [default: class]",
    ),
    click.option(
        "--forget-class",
        "forget_class",
        multiple=True,
        metavar="K",
        help="A class, by index or name; repeat for several.  [default: 0; for tasks data "
        "and semi 5 6 7 8 9; for noisy 0 1 2 3 4]",
    ),
    click.option(
        "--forget-fraction",
        type=click.FloatRange(0, 1, min_open=True),
        metavar="F",
        help="Tasks data, noisy and semi: which share of those classes' samples.  [default: 0.4; for task noisy 0.6]",
    ),
    click.option(
        "--labelled-fraction",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="F",
        help="Task semi: which share of all training samples has labels.  [default: 0.4]",
    ),
    click.option(
        "--forget-indices",
        type=_PATH,
        metavar="FILE",
        help="Indices of training samples: text (one per line, or commas), .json or .npy. Implies task indices.",
    ),
    click.option(
        "--id-column",
        metavar="NAME",
        help="The forget-indices file is a CSV with the columns 'index' and NAME, your own ids of the samples; the "
        "report keeps a hash of them.",
    ),
    click.option("--split", type=_PATH, metavar="FILE", help="A split.json of an earlier run, instead of a task."),
)

_architecture = click.option(
    "--architecture",
    metavar="NAME",
    help="The network (cnn, resnet18, vit) of a checkpoint that does not say its own: a plain PyTorch state dict.",
)

model_options = _group(
    click.option(
        "--model",
        metavar="CHECKPOINT|NAME",
        help="A model file or the run folder it is in; or a network to train: cnn, resnet18, vit.  "
        "[default: cnn for grey images, resnet18 for colour]",
    ),
    _architecture,
)

architecture_option = _architecture

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
)

machine_options = _group(
    device_option,
    click.option("--seed", type=int, default=0, show_default=True, help="Fixes every random choice of the run."),
)

bench_options = _group(
    device_option,
    click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: PyTorch's]"),
    click.option(
        "--case",
        "patterns",
        multiple=True,
        metavar="PATTERN",
        help="Only cases whose names match, for example 'mask_mix-*' or '*-small-float32'; repeat for several.",
    ),
    click.option(
        "--dtype",
        "dtypes",
        multiple=True,
        metavar="NAME",
        help="float32, bfloat16, float16 or float64; repeat for several.  "
        "[default: float32 and bfloat16; on GPUs float16 too; on CPUs the large size in float32 only]",
    ),
    click.option("--quick", is_flag=True, help="Only small and medium sizes, in float32, and fewer runs."),
    click.option(
        "--seconds",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="About how long to time each case.  [default: 1.5, quick 0.3]",
    ),
    click.option("--no-compile", is_flag=True, help="Leave torch.compile out: compiling takes most of the time."),
    click.option(
        "--out", type=_PATH, metavar="FILE.csv", help="Where the rows go.  [default: runs/, and a name that says which]"
    ),
)


def settings_options(example: str) -> Callable[[F], F]:
    """Return ``--set`` and ``--config``, with an example of a setting."""
    return _group(
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help=f"A setting, for example {example}; repeat for several. The settings are listed below.",
        ),
        click.option(
            "--config",
            type=_PATH,
            metavar="FILE.yaml",
            is_eager=True,
            expose_value=False,
            callback=load_config,
            help="Settings and long options as 'name: value' lines, or a run's config.json. The command line wins.",
        ),
    )


def out_option(default: str) -> Callable[[F], F]:
    """Return ``--out``, saying what happens without it."""
    return click.option("--out", type=_PATH, metavar="DIR", help=f"The output folder.  [default: {default}]")


def words(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Option callback: the words between commas."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def numbers(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Option callback: the whole numbers between commas."""
    try:
        return tuple(int(word) for word in words(ctx, parameter, values))
    except ValueError:
        raise click.BadParameter(f"'{','.join(values)}' are not whole numbers, as in 0,1,2.") from None


def data_request(values: dict[str, Any]) -> DataRequest:
    """Take the data options out of a command's values."""
    from pymixunlearn.experiments.common.inputs import DataRequest

    return DataRequest(
        dataset=values["dataset"],
        data_dir=values["data_dir"],
        download=not values["no_download"],
        image_size=values["image_size"],
        stream=values["stream"],
        follow_links=values["follow_links"],
        skip_unreadable=values["skip_unreadable"],
    )


def split_request(values: dict[str, Any]) -> SplitRequest:
    """Take the split options out of a command's values."""
    from pymixunlearn.experiments.common.inputs import SplitRequest

    return SplitRequest(
        task=values["task"],
        classes=values["forget_class"],
        fraction=values["forget_fraction"],
        labelled=values["labelled_fraction"],
        indices=values["forget_indices"],
        id_column=values["id_column"],
        manifest=values["split"],
    )


def model_request(values: dict[str, Any]) -> ModelRequest:
    """Take the model options out of a command's values."""
    from pymixunlearn.experiments.common.inputs import ModelRequest

    return ModelRequest(model=values["model"], architecture=values["architecture"])
