"""Group of commands, in which every error becomes one line and an exit code.

Modules of this package import the library inside their functions: it takes seconds to load PyTorch, and ``--help``
should not wait for it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO, cast

import click

from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.interrupts import never_lost

from . import bench_end_to_end, bench_step  # noqa: F401 (importing adds them to the group)
from .audit import audit
from .bench import bench
from .cache import cache
from .checks import add_checks, refuse_empty
from .compare import compare
from .endings import (
    FAILED,
    INTERRUPTED,
    PROGRAM,
    REFUSED,
    WRONG_USAGE,
    Interrupted,
    any_encoding,
    complain,
    rare_collections,
)
from .evaluate import evaluate
from .experiment import experiment
from .help import Group
from .info import info
from .list import list_names
from .processes import check_command, leading, takes_part
from .request import request
from .retrain import retrain
from .train import train
from .tune import tune
from .unlearn import unlearn
from .verify import verify

DEBUG = "MIXUNLEARN_DEBUG"


class Program(Group):
    """Group of commands that suggests the nearest name and reports every error in one line."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command; an unknown one is an error that names the nearest."""
        command = super().get_command(ctx, cmd_name)
        if command is None and not ctx.resilient_parsing:
            raise click.UsageError(str(unknown_name("command", cmd_name, self.commands)), ctx)
        return command

    def path_of(self, words: Sequence[str]) -> str:
        """Return the names of the command that the words begin with: errors that are found while parsing lack them."""
        path, command = [PROGRAM], cast(click.Command, self)
        for word in words:
            if not isinstance(command, click.Group) or word not in command.commands:
                break
            path, command = [*path, word], command.commands[word]
        return " ".join(path)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that ``args`` name and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            if takes_part():
                return None
            with any_encoding(), rare_collections(), warnings.catch_warnings(), never_lost(), leading():
                warnings.showwarning = _show_warning
                refuse_empty(arguments)
                code = super().main(
                    arguments,
                    prog_name or PROGRAM,
                    complete_var,
                    standalone_mode=False,
                    windows_expand_args=windows_expand_args,
                    obj=arguments,
                    **extra,
                )
        except Interrupted as stop:
            code = INTERRUPTED
            complain(stop.message, stop.command)
        except click.exceptions.NoArgsIsHelpError as error:
            code = WRONG_USAGE
            click.echo(error.message, err=True)
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            code, message = describe(error, self.path_of(arguments))
            complain(f"Error: {message}")
        if not standalone_mode:
            return code
        # Commands return nothing; a number is what an early exit (--help, Ctrl-C) asked for.
        sys.exit(code or 0)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning in one line, without the place in the source that users can do nothing about."""
    complain(f"Warning: {printable(' '.join(str(message).split()))}")


def describe(error: Exception, command: str = PROGRAM) -> tuple[int, str]:
    """Return the exit code of an error of a command and its message in one line."""
    code = FAILED
    message = str(error)
    if isinstance(error, click.exceptions.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else command
        message = error.format_message()
        end = "" if message.endswith((".", "?", "?)")) else "."
        code, message = WRONG_USAGE, f"{message}{end} See '{where} --help'."
    elif isinstance(error, click.ClickException):
        code, message = error.exit_code, error.format_message()
    elif isinstance(error, UserError):
        # Whatever raised it has imported the library already; click's own errors need not wait for that.
        from pymixunlearn.experiments.common.bad_request import AnswerIsNo, BadRequest

        code = WRONG_USAGE if isinstance(error, BadRequest) else REFUSED if isinstance(error, AnswerIsNo) else FAILED
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        message = f"{type(error).__name__}: {error} (set {DEBUG}=1 to see where)"
    return code, printable(" ".join(message.split()))


@click.group(cls=Program, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pymixunlearn", prog_name=PROGRAM)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Make trained image classifiers forget, and measure how well they did.

    Without options, `unlearn` shows everything on a small data set that needs no download: it trains a model, makes it
    forget one class, and compares it with a model that was trained without that class.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return
    check_command(ctx.invoked_subcommand)
    try:
        os.getcwd()
    except OSError as error:  # libraries of PyTorch would end the program with a message about themselves
        raise click.ClickException("the current folder is gone; change to one that exists") from error


for _command in (
    unlearn,
    compare,
    experiment,
    tune,
    train,
    retrain,
    evaluate,
    audit,
    verify,
    request,
    bench,
    info,
    list_names,
    cache,
):
    add_checks(_command)
    main.add_command(_command)
