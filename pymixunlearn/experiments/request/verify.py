"""`request verify`: the whole chain of a ledger or of an export, from itself alone; the runs where they are here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymixunlearn.display import counted
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.forget_chain import Chain
from pymixunlearn.experiments.common.forget_history import CHAIN
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.signing import ENTRY, EXPORT, UNSIGNED, PublicKey
from pymixunlearn.experiments.request.entries import Entry, State, check_format, faults, state_of
from pymixunlearn.experiments.request.export import Export, header_sha256, read_export
from pymixunlearn.experiments.request.inputs import VerifyLedgerInputs
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.experiments.request.serve import files_sha256
from pymixunlearn.experiments.request.store import Store
from pymixunlearn.experiments.verify import Verification, run_verification
from pymixunlearn.experiments.verify_metrics import Check
from pymixunlearn.files import sha256
from pymixunlearn.training import read_metadata


def verify_ledger(inputs: VerifyLedgerInputs, *, observer: Observer | None = None) -> Verification:
    """Check a ledger, or an export of one.

    Raises:
        UserError: There is none, or the public key cannot be read.
    """
    key = None if inputs.public_key is None else PublicKey(inputs.public_key)
    missing: list[str] = []
    if inputs.export is not None:
        export = read_export(inputs.export)
        check_format(export.entries)
        checks = [*_check_entries(export.entries), *_check_header(export, key)]
        entries: Sequence[Entry] = export.entries
        missing.append("runs, models and metrics: an export holds none")
    else:
        ledger = Ledger(inputs.ledger, inputs.ledger_dir)
        entries = ledger.store.entries()
        check_format(entries)
        checks = [*_check_entries(entries), *_check_tables(ledger.store, entries)]
        if all(check.holds for check in checks):
            checks += _check_runs(ledger, state_of(entries), inputs, missing, observer)
        missing.append("entries that were dropped from the end: --head compares with the head of an earlier export")
    if inputs.head is not None:
        known = inputs.head in {entry.sha256 for entry in entries}
        detail = "is an entry of it" if known else "is no entry of it: entries were dropped or rewritten since"
        checks.append(Check(f"head {inputs.head[:12]}…", known, detail))
    checks += _check_signatures(entries, key, missing)
    return Verification(tuple(checks), tuple(missing))


def _check_entries(entries: Sequence[Entry]) -> Iterator[Check]:
    wrong = list(faults(entries))
    for fault in wrong[:20]:
        yield Check("chain", False, fault)
    if not wrong:
        yield Check("chain", True, f"{len(entries)} entries, each after the one before; head {entries[-1].sha256}")
        yield _check_models(entries)


def _check_models(entries: Sequence[Entry]) -> Check:
    """Compare what each run began with with what the one before it gave."""
    current, runs = None, 0
    for entry in entries:
        content = entry.content
        current = content["model_sha256"] if content["kind"] == "init" else current
        if content["kind"] == "begin" and content["initial_sha256"] != current:
            return Check("models", False, f"entry {content['seq']} began with another model than the newest one")
        if content["kind"] == "serve" and content["run"] is not None:
            if content.get("initial_sha256") != current:
                return Check("models", False, f"entry {content['seq']} has another initial model than the newest one")
            current, runs = content.get("unlearned_sha256"), runs + 1
    return Check("models", True, f"{counted(runs, 'run')}, each from the model of the one before")


def _check_tables(store: Store, entries: Sequence[Entry]) -> Iterator[Check]:
    lacking = store.lacking_triggers()
    detail = f"lacks {', '.join(lacking)}" if lacking else f"{len(store.triggers())} triggers"
    yield Check("append-only", not lacking, detail)
    samples, persons, wrong = store.samples(), store.persons(), []
    added = {}
    for entry in entries:
        try:
            content = entry.content
            if content["kind"] == "add":
                added[int(content["seq"])] = (content["samples"]["sha256"], content["persons"]["sha256"])
        except (UserError, KeyError, TypeError, ValueError):
            continue  # told above
    for seq in {*added, *samples, *persons}:
        named = (
            sha256(b"".join(sorted(samples.get(seq, {})))),
            sha256("".join(sorted(persons.get(seq, ()))).encode()),
        )
        if added.get(seq) != named:
            wrong.append(str(seq))
    detail = (
        f"are not those of the entries {', '.join(sorted(wrong)[:20])}"
        if wrong
        else f"of {counted(len(added), 'request')}"
    )
    yield Check("samples and people", not wrong, detail)


def _check_runs(
    ledger: Ledger, state: State, inputs: VerifyLedgerInputs, missing: list[str], observer: Observer | None
) -> Iterator[Check]:
    """Check the folders of the runs that served requests."""
    served = {str(one.served["run"]): one.served for one in state.requests.values() if one.served and one.served["run"]}
    gone = [name for name in served if not ledger.run_folder(name).is_dir()]
    if gone:
        missing.append(f"runs {', '.join(gone)}: their folders are not here")
    forgotten: set[bytes] = set()
    every = ledger.store.samples()
    for name, entry in served.items():
        for request in entry["batch"]:
            forgotten |= set(every.get(int(state.requests[request].added["seq"]), {}))
        folder = ledger.run_folder(name)
        if name not in gone:
            yield _check_run(folder, entry)
            yield _check_forgotten(folder, entry, ledger, forgotten, missing)
            wanted = VerifyInputs(folder, hashes_only=not inputs.metrics, public_key=inputs.public_key)
            found = run_verification(wanted, observer=observer)
            failed = [f"{check.subject}: {check.detail}" for check in found if not check.holds]
            yield Check(f"run {name}", not failed, "; ".join(failed) or f"{len(found)} checks of its report hold")
    if not inputs.metrics and len(gone) < len(served):
        missing.append("metrics of the runs: --metrics loads data and models and measures them again")


def _check_run(folder: Path, entry: Mapping[str, Any]) -> Check:
    try:
        same = files_sha256(folder) == entry["files_sha256"]
    except (KeyError, OSError) as error:
        return Check(f"run {folder.name}, files", False, f"cannot be read ({error})")
    return Check(f"run {folder.name}, files", same, "are those of the entry" if same else "are not those of the entry")


def _check_forgotten(
    folder: Path, entry: Mapping[str, Any], ledger: Ledger, forgotten: set[bytes], missing: list[str]
) -> Check:
    """Check that a model's chain has the samples of all requests that were served until then."""
    subject = f"run {folder.name}, samples"
    try:
        chain = Chain.read(read_metadata(folder / CHECKPOINT).get(CHAIN), "the model's file")
    except UserError as error:
        return Check(subject, False, str(error))
    if chain.head != entry["chain_head"]:
        return Check(subject, False, "the model's chain of requests is not that of the entry")
    lacking = len(forgotten - chain.samples)
    known = sum(one is None for named in ledger.store.samples().values() for one in named.values())
    allowed = known + int(entry["not_found"])
    if lacking > allowed:
        return Check(subject, False, f"{lacking} samples of served requests are not in the model's chain")
    return Check(
        subject, True, f"{counted(len(forgotten), 'sample')} of served requests, of which {lacking} not in the data"
    )


def _check_header(export: Export, key: PublicKey | None) -> Iterator[Check]:
    length, head = export.header.get("entries"), export.header.get("head")
    found = export.entries[-1].sha256 if export.entries else None
    same = (length, head) == (len(export.entries), found)
    detail = f"{length} entries" if same else "states another number of entries, or another head"
    yield Check("length and head", same, detail)
    if key is not None:
        fault = key.fault(export.header.get("signature"), EXPORT, header_sha256(export.header))
        yield Check("signature of the export", fault is None, fault or "holds")


def _check_signatures(entries: Sequence[Entry], key: PublicKey | None, missing: list[str]) -> Iterator[Check]:
    signed = sum(entry.signature is not None for entry in entries)
    if key is None:
        missing.append(
            f"signatures of {counted(signed, 'entry', 'entries')}: --public-key checks them" if signed else UNSIGNED
        )
        return
    wrong = {
        number: fault
        for number, entry in enumerate(entries, start=1)
        if (fault := key.fault(entry.signature, ENTRY, entry.sha256))
    }
    for number, fault in list(wrong.items())[:20]:
        yield Check(f"signature of entry {number}", False, fault)
    if not wrong:
        yield Check("signatures", True, f"all {len(entries)} entries are signed by this key")
