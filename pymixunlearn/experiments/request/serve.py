"""`request run`: everything that is pending is served together, from the newest model.

An entry says that serving begins, with the name of the run; another that it ended. A process that dies between them
leaves a run that goes on, and a ledger that holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pymixunlearn.display import counted
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.forget_history import CHAIN, SampleHashes
from pymixunlearn.experiments.common.forget_set import load_split
from pymixunlearn.experiments.common.hashed_split import HashedSplit, NothingToForget
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.signing import Signer
from pymixunlearn.experiments.request.entries import State, state_of
from pymixunlearn.experiments.request.inputs import RunInputs
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.experiments.request.newest import check_model, newest_folder
from pymixunlearn.experiments.request.settings import settings_inputs
from pymixunlearn.experiments.request.store import Writer
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.experiments.unlearn.report import SOURCES
from pymixunlearn.experiments.unlearn.run import run_unlearning
from pymixunlearn.files import canonical_json, file_sha256, json_sha256, sha256


@dataclass(frozen=True)
class Served:
    """Result of serving some requests together.

    Attributes:
        requests: Their ids.
        run: The run; None where all of their samples had been forgotten before, or there were none.
        earlier: How many samples earlier requests had named.
        released: Whether the new model is the newest one now.
        reason: What the release check found; None without a run.
    """

    requests: tuple[str, ...]
    run: Run | None
    earlier: int
    released: bool
    reason: str | None = None


def run_requests(inputs: RunInputs, *, observer: Observer | None = None, command_line: str = "") -> list[Served]:
    """Serve what is pending; an interrupted run goes on first, with the requests that it was begun with.

    Returns:
        What was done, in order; the last one may be a model that was not released, after which nothing is begun.

    Raises:
        BadRequest: A setting does not fit.
        UserError: The ledger is damaged, another process serves it, files are missing, or the run failed.
    """
    watcher = Observer() if observer is None else observer
    signer = None if inputs.sign_key is None else Signer(inputs.sign_key)
    ledger = Ledger(inputs.ledger, inputs.ledger_dir)
    ledger.state()
    done: list[Served] = []
    with ledger.held():
        while (state := ledger.state()).open is not None or state.pending:
            done.append(_serve(ledger, state, inputs, signer, watcher, command_line))
            if not done[-1].released:
                break
    return done


def _serve(
    ledger: Ledger, state: State, inputs: RunInputs, signer: Signer | None, watcher: Observer, command_line: str
) -> Served:
    begun = state.open
    batch = [request.request_id for request in state.pending] if begun is None else list(begun["batch"])
    every = ledger.store.samples()
    before = _named(state, every, [name for name, request in state.requests.items() if request.served is not None])
    wanted = _named(state, every, batch)
    new = wanted - before
    if begun is None and not new:
        _append(ledger, "serve", {"batch": batch, "run": None, "samples": 0, "not_found": 0}, signer, begun)
        return Served(tuple(batch), None, len(wanted & before), True)
    overrides = _overrides(inputs) if begun is None else _read_overrides(ledger, begun)
    if begun is not None and _overrides(inputs) not in ({"settings": {}}, overrides):
        watcher.note("An unfinished run goes on as it was begun; --method, --seed, --set and --max-drop wait.")
    model = newest_folder(ledger, state)
    request = settings_inputs(
        ledger.store.settings(str(state.init["settings_sha256"])),
        split=HashedSplit(key=ledger.key, hashes=frozenset(new), requests=tuple(batch)),
        model=model,
        key=ledger.key_file,
        overrides=overrides,
    )
    request = replace(request, sign_key=inputs.sign_key)
    load_plugins(request.plugin)
    data = fed(request.data, request.model)
    given = (request.model.model, request.model.weights)
    try:
        split = load_split(data, request.split, *given, seed=request.seed, history=request.history, observer=watcher)
    except NothingToForget:
        _check_present(every, new, inputs.allow_missing)
        _append(ledger, "serve", {"batch": batch, "run": None, "samples": 0, "not_found": len(new)}, signer, begun)
        return Served(tuple(batch), None, len(wanted & before), True)
    hashed = SampleHashes(split.dataset if split.origin is None else split.origin).of(ledger.key)
    gone = new - {digest for digests in hashed.values() for digest in digests}
    _check_present(every, gone, inputs.allow_missing)
    plan = resolve_unlearning(request, observer=watcher, split=split)
    check_model(plan.initial.sha256, state, model)
    if begun is not None and not _fits(ledger.run_folder(str(begun["run"])), plan):
        watcher.note("The data are not those that the unfinished run began with: another one is begun.")
        _append(ledger, "refuse", {"batch": batch, "run": begun["run"], "reason": "changed"}, signer, begun)
        begun = None
    if begun is None:
        begun = _begin(ledger, state, batch, overrides, signer)
    named = f"{', '.join(batch[:8])}{', …' if len(batch) > 8 else ''}"
    watcher.note(f"Serving {counted(len(batch), 'request')} ({named}): {counted(len(new), 'sample')}.")
    folder = ledger.run_folder(str(begun["run"]))
    try:
        run = run_unlearning(plan, folder, observer=watcher, command_line=command_line)
    except UserError:
        # A full disk leaves a run that can go on; anything else would fail again in the same way.
        if not RunFolder(folder, plan.identity).started:
            _append(ledger, "refuse", {"batch": batch, "run": begun["run"], "reason": "failed"}, signer, begun)
        raise
    counts = {"samples": len(split.forget_indices), "not_found": len(gone)}
    released, reason = _finish(ledger, begun, run, counts, signer)
    return Served(tuple(batch), run, len(wanted & before), released, reason)


def files_sha256(folder: Path) -> str:
    """Return a hash of all files of a run that no later audit and no purge of the cache writes anew.

    Raises:
        OSError: One cannot be read.
    """
    return json_sha256({name: file_sha256(folder / name) for name in SOURCES})


def _fits(folder: Path, plan: Plan) -> bool:
    """Tell whether a folder is empty or holds this run, finished or not."""
    try:
        RunFolder(folder, plan.identity, look_only=True)
    except UserError:
        return False
    return True


def _finish(
    ledger: Ledger, begun: Mapping[str, Any], run: Run, counts: Mapping[str, int], signer: Signer | None
) -> tuple[bool, str]:
    """Add the entry that ends a run, and return whether the model is released, and why."""
    release = run.record["release"]
    common = {
        "batch": list(begun["batch"]),
        "run": begun["run"],
        "initial_sha256": run.record["hashes"]["initial"],
        "unlearned_sha256": run.record["hashes"]["unlearned"],
        "files_sha256": files_sha256(run.folder),
        "release": {key: release[key] for key in ("holds", "max_drop", "drop", "low", "high", "acceptance")},
    }
    if release["holds"]:
        _append(ledger, "serve", {**common, **counts, "chain_head": run.record[CHAIN]["head"]}, signer, begun)
    else:
        _append(ledger, "refuse", {**common, "reason": _breach(run.record)}, signer, begun)
    return release["holds"], release["reason"]


def _breach(record: Mapping[str, Any]) -> str:
    """Name what the release check found."""
    release = record["release"]
    if release["drop"] > release["max_drop"] and release["low"] > 0:
        return "max_drop"
    if "collapse" in record:
        return "collapse"
    return "unchanged" if record["unchanged"] else "acceptance"


def _begin(
    ledger: Ledger, state: State, batch: list[str], overrides: Mapping[str, Any], signer: Signer | None
) -> Mapping[str, Any]:
    text = canonical_json(overrides)
    digest = sha256(text.encode())
    with ledger.store.writing() as writer:
        _check_still_so(ledger, writer, batch, None)
        seq = len(writer.entries()) + 1
        body = {"batch": batch, "run": f"{seq:05d}", "initial_sha256": state.model_sha256, "settings_sha256": digest}
        writer.add_settings(digest, text)
        return writer.append("begin", body, signer)


def _append(
    ledger: Ledger, kind: str, body: Mapping[str, Any], signer: Signer | None, begun: Mapping[str, Any] | None
) -> None:
    with ledger.store.writing() as writer:
        _check_still_so(ledger, writer, body["batch"], begun)
        writer.append(kind, body, signer)


def _check_still_so(ledger: Ledger, writer: Writer, batch: list[str], begun: Mapping[str, Any] | None) -> None:
    """Refuse to write of requests that another process has served, or is serving, since the ledger was read.

    A lock keeps others away, but that of a server goes with its connection.
    """
    now = state_of(writer.entries())
    if now.open != begun or not {*batch} <= {request.request_id for request in now.pending}:
        raise UserError(
            f"another process has served requests of the ledger '{ledger.name}' meanwhile; 'request status' shows "
            "where it stands"
        )


def _named(state: State, samples: Mapping[int, Mapping[bytes, object]], names: list[str]) -> set[bytes]:
    """Return the hashes of the samples that requests name."""
    return {key for name in names for key in samples.get(int(state.requests[name].added["seq"]), {})}


def _check_present(samples: Mapping[int, Mapping[bytes, object]], gone: set[bytes], allowed: bool) -> None:
    """Refuse to go on where samples that were in the data when they were requested are gone.

    Raises:
        UserError: There are such samples, and that is not allowed.
    """
    seen = {key for named in samples.values() for key, pixels in named.items() if pixels is not None}
    lost = gone & seen
    if lost and not allowed:
        raise UserError(
            f"{len(lost)} samples to forget are no longer in the data, and unlearning needs them: expected the data "
            "with them, or --allow-missing to go on without, which the ledger records"
        )


def _overrides(inputs: RunInputs) -> dict[str, Any]:
    given = {"method": inputs.method, "seed": inputs.seed, "max_drop": inputs.max_drop}
    return {**{name: value for name, value in given.items() if value is not None}, "settings": dict(inputs.settings)}


def _read_overrides(ledger: Ledger, begun: Mapping[str, Any]) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(ledger.store.settings(str(begun["settings_sha256"])))
    return found
