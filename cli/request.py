"""``mixunlearn-cli request``: deletion requests over time, in a ledger for one line of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import counted, printable
from pymixunlearn.experiments.common.split_request import FORGET
from pymixunlearn.experiments.request.inputs import (
    AddInputs,
    CheckInputs,
    ExportInputs,
    InitInputs,
    LedgerInputs,
    PurgeInputs,
    RequestUnlearnInputs,
    RunInputs,
    VerifyLedgerInputs,
)

from . import options
from .checks import add_checks
from .config_file import settings_of
from .endings import REFUSED, complain, resumable
from .help import Group, SettingsCommand
from .verify import show_checks

if TYPE_CHECKING:
    from pymixunlearn.experiments.request.add import Added
    from pymixunlearn.experiments.request.serve import Served

_PATH = click.Path(path_type=Path)
_SHOWN = 20


@click.group(cls=Group)
def request() -> None:
    """Serve deletion requests one after the other, and keep a ledger that can be checked.

    \b
    Example:
      mixunlearn-cli request init --dataset photos/ --model runs/train-...
      mixunlearn-cli request add people.csv --id-column user_id --request-id R-17
      mixunlearn-cli request run
      mixunlearn-cli request verify
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are


@request.command(cls=SettingsCommand, settings=("method", "initial", "retrain"))
@options.inputs_options(InitInputs, without=(*FORGET, "expect_accuracy"))
@options.settings_options("epochs=5 or retrain.epochs=10")
@click.pass_context
def init(ctx: click.Context, /, **values: Any) -> None:
    """Make a ledger: its data, its first model, and the method and settings of every run.

    The model is one with weights: a run folder, or a file. A model that has forgotten samples before is taken on with
    what it has forgotten. The release check is on, with --max-drop 2 where nothing else is said.
    """
    from pymixunlearn.experiments.request.init import run_init
    from pymixunlearn.experiments.request.ledger import Ledger

    from .progress import make_console, say, watching

    unlearn = options.make_inputs(RequestUnlearnInputs, values, settings=settings_of(ctx, values["assignments"]))
    console = make_console()
    with watching(console) as observer:
        run_init(options.make_inputs(InitInputs, values, unlearn=unlearn), observer=observer)
    ledger = Ledger(values["ledger"], values["ledger_dir"])
    say(console, f"Ledger: {ledger.name}")
    say(console, f"Its key: {ledger.key_file} (keep it, and keep it to yourself)")


@request.command()
@click.argument("file", type=_PATH)
@options.inputs_options(AddInputs)
@click.pass_context
def add(ctx: click.Context, /, file: Path, **values: Any) -> None:
    """Add a request: FILE lists its samples, as for `unlearn --forget`.

    Samples that are not in the data are refused, all being listed, unless --allow-missing accepts them. The same
    request can be given again: it is added once.
    """
    from pymixunlearn.experiments.request.add import run_add

    from .progress import make_console, say, tell, watching

    console = make_console()
    with watching(console) as observer:
        added = run_add(options.make_inputs(AddInputs, values, file=file), observer=observer)
    for line in _added_lines(added, also_forgotten=values["also_forget_copies"]):
        (say if line.startswith(" ") else tell)(console, line)


def _added_lines(added: Added, *, also_forgotten: bool) -> list[str]:
    about = added.request.added
    people = f" of {counted(about['persons']['count'], 'person', 'people')}" if about["persons"]["count"] else ""
    lines = [
        f"Request {about['request_id']}: {counted(about['samples']['count'], 'sample')}{people}, received "
        f"{about['received']}, due {about['due']}."
    ]
    if added.known:
        lines[0] = f"{lines[0][:-1]}; it was in the ledger already."
    if added.missing:
        shown = ", ".join(printable(name) for name in added.missing[:_SHOWN])
        lines.append(f"Not in the data, and counted: {len(added.missing)}, {shown}")
    for pair in (added.copies or ())[:_SHOWN]:
        found = [] if pair.distance is None else [f"{pair.distance} bits apart"]
        found += [] if pair.similarity is None else [f"embeddings alike to {pair.similarity:.2f}"]
        about_it = ", ".join([pair.part, *found, *(["mirrored"] if pair.flipped else [])])
        lines.append(f"  like {printable(pair.sample)}: {printable(pair.name)} ({about_it})")
    if added.copies is not None:
        inside = "those of the training images are in the request"
        offer = inside if also_forgotten else "--also-forget-copies adds those of the training images"
        lines.append(f"{counted(len(added.copies), 'near copy', 'near copies')}; {offer}.")
    return lines


@request.command("list")
@options.inputs_options(LedgerInputs)
def list_requests(**values: Any) -> None:
    """List all requests: when received, when due, how many samples, and what became of them."""
    from pymixunlearn.experiments.request.ledger import Ledger

    from .columns import table
    from .progress import make_console, say

    state = Ledger(values["ledger"], values["ledger_dir"]).state()
    rows = []
    for one in state.requests.values():
        about = one.added
        ended = "pending"
        if one.served is not None:
            ended = f"served {one.served['time'][:10]}"
        elif state.open is not None and one.request_id in state.open["batch"]:
            ended = "in an unfinished run"
        samples = f"{about['samples']['count']}" + (f" (+{about['missing']} missing)" if about["missing"] else "")
        rows.append((printable(one.request_id), about["received"], about["due"], samples, ended))
    console = make_console()
    for line in table(("request", "received", "due", "samples", "state"), rows):
        say(console, line)
    if not rows:
        say(console, "No requests yet.")


@request.command()
@options.inputs_options(LedgerInputs)
def status(**values: Any) -> None:
    """Say what is pending, what is due when, and which model is the newest."""
    from datetime import date

    from pymixunlearn.experiments.request.ledger import Ledger, today

    from .columns import table
    from .progress import make_console, say, tell

    ledger = Ledger(values["ledger"], values["ledger_dir"])
    state, console = ledger.state(), make_console()
    served = len(state.requests) - len(state.pending)
    say(console, f"{counted(len(state.requests), 'request')}: {len(state.pending)} pending, {served} served.")
    rows = []
    for one in sorted(state.pending, key=lambda one: str(one.added["due"])):
        days = (date.fromisoformat(one.added["due"]) - today()).days
        left = f"{days} days left" if days >= 0 else f"{-days} days overdue"
        rows.append((printable(one.request_id), one.added["due"], left))
    for line in table(("pending", "due", ""), rows) if rows else ():
        say(console, line)
    if state.open is not None:
        tell(console, f"A run is unfinished ({ledger.run_folder(state.open['run'])}): 'request run' goes on with it.")
    model = "the first one" if state.current is None else str(ledger.run_folder(str(state.current["run"])))
    tell(console, f"Newest model: {model} (sha256 {state.model_sha256[:12]}…)")
    clear = len(ledger.store.clear_ids())
    if clear:
        are = "is" if clear == 1 else "are"
        text = f"{counted(clear, 'clear id')} {are} in the ledger; 'request purge' deletes those of served requests."
        tell(console, text)
    say(console, f"{counted(state.length, 'entry', 'entries')}, head {state.head}")


@request.command("run")
@options.inputs_options(RunInputs)
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A setting for this run; repeat for several."
)
@click.pass_context
def run_command(ctx: click.Context, /, **values: Any) -> None:
    """Serve everything that is pending together, from the newest model, and check the result before it is released.

    Where it lost more accuracy than the ledger allows, or the acceptance test refuses it, the model before stays the
    newest, the requests stay pending, the run is kept to be looked at, and the command ends with 3. An interrupted run
    goes on when the same command is given again.
    """
    from pymixunlearn.experiments.common.settings import parse_assignments
    from pymixunlearn.experiments.request.serve import run_requests

    from .progress import make_console, say, watching

    inputs = options.make_inputs(RunInputs, values, settings=parse_assignments(values["assignments"]))
    console = make_console()
    with watching(console) as observer, resumable(ctx, "the ledger holds, and the state is saved") as command_line:
        done = run_requests(inputs, observer=observer, command_line=command_line)
    if not done:
        say(console, "Nothing is pending.")
    for one in done:
        _show_served(console, one)
    if done and not done[-1].released:
        complain(str(done[-1].reason))
        ctx.exit(REFUSED)


def _show_served(console: Any, one: Served) -> None:
    from pymixunlearn.reporting import result_rows

    from .progress import print_table, say, tell

    if one.run is not None:
        print_table(console, result_rows(one.run.record))
        say(console, f"Run folder: {one.run.folder}")
    named = ", ".join(map(printable, one.requests[:_SHOWN]))
    before = f" {one.earlier} of the samples had been forgotten before." if one.earlier else ""
    nothing = "" if one.run is not None else " No sample was left to unlearn: the model stays as it is."
    tell(console, f"{'Served' if one.released else 'Not served'}: {named}.{before}{nothing}")


@request.command()
@click.argument("export", required=False, type=_PATH)
@options.inputs_options(VerifyLedgerInputs)
@click.pass_context
def verify(ctx: click.Context, /, export: Path | None, **values: Any) -> None:
    """Check the whole chain of a ledger, from itself alone, and the runs that lie in it; or of EXPORT, a file.

    Ends with 3 if anything does not hold, and says what it could not check.
    """
    from pymixunlearn.experiments.request.ledger import Ledger
    from pymixunlearn.experiments.request.verify import verify_ledger

    from .progress import make_console, watching

    console = make_console()
    with watching(console) as observer:
        found = verify_ledger(options.make_inputs(VerifyLedgerInputs, values, export=export), observer=observer)
    what = Ledger(values["ledger"], values["ledger_dir"]).name if export is None else str(export)
    show_checks(ctx, console, found, what, "its own chain")


@request.command()
@options.inputs_options(ExportInputs)
def export(**values: Any) -> None:
    """Write the entries as JSON lines for an auditor: they verify alone, and hold no images, no names and no paths."""
    from pymixunlearn.experiments.request.export import run_export

    text = run_export(options.make_inputs(ExportInputs, values))
    if values["out"] is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"Export: {values['out']} ({text.count(chr(10)) - 1} entries)")


@request.command()
@options.inputs_options(PurgeInputs)
def purge(**values: Any) -> None:
    """Delete the clear ids of served requests from the ledger; keyed hashes of them stay."""
    from pymixunlearn.experiments.request.purge import run_purge

    rows, stay = run_purge(options.make_inputs(PurgeInputs, values))
    click.echo(f"{counted(rows, 'clear id')} deleted; {stay} of pending requests stay.")


@request.command()
@options.inputs_options(CheckInputs)
@click.pass_context
def check(ctx: click.Context, /, **values: Any) -> None:
    """Say whether data hold forgotten samples, or a model lacks served requests: then it ends with 3.

    \b
    Examples:
      mixunlearn-cli request check --dataset backup/
      mixunlearn-cli request check --model deployed.safetensors
    """  # noqa: D301 - the backspace is click's mark for lines to keep as they are
    from pymixunlearn.experiments.request.check import run_check

    from .progress import make_console, say, tell, watching

    console = make_console()
    with watching(console) as observer:
        found = run_check(options.make_inputs(CheckInputs, values), observer=observer)
    if found.clean:
        many = counted(found.forgotten, "forgotten sample")
        tell(console, f"'{printable(found.subject)}': nothing that was forgotten is back ({many}).")
        return
    for name in (*found.back[:_SHOWN], *found.lacking[:_SHOWN]):
        say(console, f"  {printable(name)}")
    message = f"holds {len(found.back)} of {counted(found.forgotten, 'forgotten sample')}"
    if found.lacking:
        message = f"lacks {counted(len(found.lacking), 'request')} that the ledger has served"
    complain(f"'{printable(found.subject)}' {message}.")
    ctx.exit(REFUSED)


@request.command()
@click.option("--out", type=_PATH, default="signing", show_default=True, metavar="NAME", help="NAME.key and NAME.pub.")
def keygen(out: Path) -> None:
    """Make a pair of keys (Ed25519): NAME.key signs (--sign-key), NAME.pub checks (verify --public-key)."""
    from pymixunlearn.experiments.common.signing import generate_keys

    private, public = out.with_name(f"{out.name}.key"), out.with_name(f"{out.name}.pub")
    identity = generate_keys(private, public)
    click.echo(f"Private key: {private} (keep it to yourself)")
    click.echo(f"Public key: {public} (id {identity[:16]}…)")


for _command in (init, run_command):
    add_checks(_command)
