"""Options of the commands, made from the fields of their inputs; and the inputs, made from the options' values."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from pymixunlearn.experiments.common.options import Option, option_of

from .config_file import load_config

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_PATH = click.Path(path_type=Path)


class WholeNumber(click.IntRange):
    """Whole number within bounds, called so where a text is none."""

    name = "whole number"


class Number(click.FloatRange):
    """Number within bounds, likewise."""

    name = "number"


def group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine option decorators so that ``--help`` lists them in the order given."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def inputs_options(
    inputs: type, *, without: Collection[str] = (), about: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[F], F]:
    """Return the options of all fields of a class of inputs, those of the data, the split and the model among them.

    Args:
        inputs: A subclass of ``pymixunlearn.experiments.Inputs``, or a class like it.
        without: Fields that the command does not ask for.
        about: For a field, attributes of its option that are different for this command.
    """
    found = [
        (of, dataclasses.replace(option, **(about or {}).get(of.name, {})))
        for of, option in _options(inputs)
        if of.name not in without
    ]
    ordered = sorted(found, key=lambda item: not item[1].first)
    return group(*(_click_option(of, option) for of, option in ordered))


def make_inputs(inputs: type[T], values: Mapping[str, Any], **given: Any) -> T:
    """Return inputs made from the values of a command's options.

    Args:
        inputs: As given to :func:`inputs_options`.
        values: The command's values; what is no field is left out.
        given: Fields that are no options.
    """
    fields = dict(given)
    for of in dataclasses.fields(inputs):  # type: ignore[arg-type]
        option = option_of(of)
        if of.name in fields:
            continue
        if option is not None:
            name = _parameter(of.name, option)
            if name in values:
                fields[of.name] = values[name] if name == of.name else not values[name]
        elif (nested := _nested(of)) is not None:
            fields[of.name] = make_inputs(nested, values)
    return inputs(**fields)


def settings_options(example: str) -> Callable[[F], F]:
    """Return ``--set`` and ``--config``, with an example of a setting."""
    return group(
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


device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
)

runs_options = group(
    click.option(
        "--jobs",
        type=WholeNumber(min=1),
        metavar="N",
        help="How many runs at once.  [default: 1; with --on ray as many as there is room for]",
    ),
    click.option(
        "--threads",
        type=WholeNumber(min=1),
        metavar="N",
        help="CPU threads of each run.  [default: 1 with several jobs and with --on ray, otherwise PyTorch's]",
    ),
    click.option("--retry-failed", is_flag=True, help="Run again what failed before."),
)
"""How the many runs of a command are carried out."""

bench_options = group(
    device_option,
    click.option("--threads", type=WholeNumber(min=1), metavar="N", help="CPU threads.  [default: PyTorch's]"),
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
        type=Number(min=0, min_open=True),
        metavar="S",
        help="About how long to time each case.  [default: 1.5, quick 0.3]",
    ),
    click.option("--no-compile", is_flag=True, help="Leave torch.compile out: compiling takes most of the time."),
    click.option(
        "--out", type=_PATH, metavar="FILE.csv", help="Where the rows go.  [default: runs/, and a name that says which]"
    ),
)


def _options(inputs: type) -> Iterator[tuple[dataclasses.Field[Any], Option]]:
    """Yield the fields that have an option, those of nested classes in their place."""
    for of in dataclasses.fields(inputs):
        option = option_of(of)
        if option is not None:
            yield of, option
        elif (nested := _nested(of)) is not None:
            yield from _options(nested)


def _nested(of: dataclasses.Field[Any]) -> type | None:
    """Return the class of a field that holds inputs itself."""
    made_by = of.default_factory
    return made_by if isinstance(made_by, type) and dataclasses.is_dataclass(made_by) else None


def _parameter(name: str, option: Option) -> str:
    """Return what click calls the value of a field's option; "--no-x" asks for the opposite of the field."""
    return f"no_{name}" if option.name.startswith("--no-") else name


def _click_option(of: dataclasses.Field[Any], option: Option) -> Callable[[F], F]:
    parameter, default = _parameter(of.name, option), cast(Any, of.default)
    about: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if parameter != of.name:
        about |= {"is_flag": True}
    elif isinstance(default, bool) or "/" in option.name:
        about |= {"is_flag": True, "default": default}
    elif option.kind in ("words", "numbers"):
        texts = (",".join(map(str, default)),) if default else ()
        about |= {"multiple": True, "default": texts, "callback": _words if option.kind == "words" else _numbers}
    else:
        about |= {"type": _type(option), "multiple": option.several, "show_default": option.show_default}
        about |= {} if option.several else {"default": default}
    names = [option.name] if option.old is None else [option.name, option.old]
    if option.old is not None:
        about["callback"] = _renamed(option.name, option.old)
    # Eager: the help lists the settings of the method that is named beside it.
    return click.option(*names, parameter, is_eager=of.name in ("method", "plugin"), **about)


def _type(option: Option) -> Any:
    if option.kind is Path:
        return _PATH
    low = option.least if option.above is None else option.above
    high = option.most if option.below is None else option.below
    if low is None and high is None:
        return option.kind
    span: Any = WholeNumber if option.kind is int else Number
    return span(low, high, min_open=option.above is not None, max_open=option.below is not None)


def _words(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Option callback: the words between commas."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _numbers(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Option callback: the whole numbers between commas."""
    try:
        return tuple(int(word) for word in _words(ctx, parameter, values))
    except ValueError:
        raise click.BadParameter(f"'{','.join(values)}' are not whole numbers, as in 0,1,2.") from None


def _renamed(name: str, old: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return an option callback that warns where the option was given by its old name."""

    def warned(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if any(word == old or word.startswith(f"{old}=") for word in ctx.obj or ()):
            warnings.warn(f"{old} is now {name}; the old name goes with version 0.3", FutureWarning, stacklevel=2)
        return value

    return warned
