"""Verification of a run folder: its hashes are computed again, and its metrics measured again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from pymixunlearn.data import Dataset, Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation import ATTACKERS, Metrics
from pymixunlearn.evaluation.catalogue import plugged_keys
from pymixunlearn.evaluation.plugged import plugged_metrics
from pymixunlearn.experiments.common.data_origin import IN_MEMORY, data_of_run, runs_code, specified
from pymixunlearn.experiments.common.forget_chain import KEY_FILE
from pymixunlearn.experiments.common.identity import pixels_sha256
from pymixunlearn.experiments.common.in_memory import is_object
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.inputs import VerifyInputs
from pymixunlearn.experiments.common.model_config import MODEL_CONFIG, model_config_text
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import read_json
from pymixunlearn.experiments.unlearn.report import AUDIT, HTML, PURGE, SIGNATURE, SOURCES, read_further, read_pictures
from pymixunlearn.experiments.verify_acceptance import check_acceptance
from pymixunlearn.experiments.verify_metrics import Check, changed_from, check_metrics, check_test_accuracy
from pymixunlearn.experiments.verify_models import (
    check_model,
    check_unbuilt,
    check_weights_in_use,
    loaded,
    other_models,
    same_machine,
    with_given_model,
)
from pymixunlearn.experiments.verify_proof import check_chain, check_signature
from pymixunlearn.experiments.verify_request import check_config, check_request
from pymixunlearn.files import file_sha256
from pymixunlearn.models.registry import model_runs_code
from pymixunlearn.reporting import (
    FORMAT,
    FORMAT_1,
    RECORD,
    deletion_record,
    record_sha256,
    render_report,
    row_name,
    schema,
    upgraded,
    upgraded_record,
)
from pymixunlearn.tasks import Split, indices_sha256, read_deletion_list
from pymixunlearn.tasks.known_samples import same_data
from pymixunlearn.tasks.manifest import read_manifest
from pymixunlearn.tasks.samples import find_samples
from pymixunlearn.training import resolve_device


@dataclass(frozen=True)
class Verification:
    """Result of a verification; iterating goes through the checks.

    Attributes:
        checks: Everything that was looked at.
        not_checked: Sentences about what could not be checked, and what it would take.
    """

    checks: tuple[Check, ...]
    not_checked: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything that was looked at holds."""
        return all(check.holds for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        """Go through the checks."""
        return iter(self.checks)

    def __len__(self) -> int:
        """Return how many checks there are."""
        return len(self.checks)


def run_verification(inputs: VerifyInputs, *, observer: Observer | None = None) -> Verification:
    """Check a run folder against its ``report.json``.

    Raises:
        UserError: The folder holds no deletion record, or something is not there that the checks need: the data, a
            given file, the device.
    """
    folder, missing = inputs.folder, list[str]()
    record = _read_record(folder)
    for option, path, _ in _given(inputs):
        if not path.exists():
            raise UserError(f"'{path}' of {option} does not exist; expected what is to be compared with the run")
    checks = [*_check_form(record), *_check_files(folder, record), *check_signature(inputs, missing)]
    files_hold = all(check.holds for check in checks)
    try:
        if files_hold:
            checks += _check_copies(folder, record, missing)
        if files_hold and inputs.manifest is not None:
            checks.append(_check_manifest(inputs.manifest, read_json(folder / "split.json")))
        # A damaged file can fail in any way once it is read; it has been named above.
        if inputs.hashes_only:
            missing.append("metrics: neither data nor models were loaded (--hashes-only)")
        elif files_hold:
            checks += _check_content(inputs, record, missing, Observer() if observer is None else observer)
        else:
            checks.append(Check("metrics", False, "not measured, since files do not hold"))
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        checks.append(Check("files", False, f"have not the form of a run's ({type(error).__name__}: {error})"))
    compared = {check.subject for check in checks}
    for option, path, subject in _given(inputs):
        if subject not in compared:
            missing.append(f"'{path}' of {option}: not compared, since what that takes is not at hand")
    return Verification(tuple(checks), tuple(missing))


def _given(inputs: VerifyInputs) -> Iterator[tuple[str, Path, str]]:
    """Yield option, file and subject of the check for everything that the caller wants to be compared with the run."""
    files = {
        "--split": (inputs.manifest, None),
        "--forget": (inputs.deletion_list, None),
        "--weights": (inputs.weights, None),
        "--before": (inputs.before, f"model {row_name('initial')}"),
        "--retrain": (inputs.retrain, f"model {row_name('retrain')}"),
    }
    for option, (path, subject) in files.items():
        if path is not None:
            yield option, path, subject or str(path)


def _read_record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).is_file():
        raise UserError(f"'{folder}' holds no {RECORD}; expected the folder of a finished run of 'unlearn'")
    try:
        record = read_json(folder / RECORD)
    except UserError as error:
        raise UserError(
            f"'{folder / RECORD}' is not a deletion record: it is no JSON object that can be read"
        ) from error
    if record.get("format") not in (FORMAT, FORMAT_1) or not isinstance(record.get("files"), dict):
        raise UserError(f"'{folder / RECORD}' is not a deletion record: expected the format '{FORMAT}'")
    return record


def _check_form(record: Mapping[str, Any]) -> Iterator[Check]:
    same = record_sha256(record) == record.get("sha256")
    yield Check(RECORD, same, "its own sha256" if same else "is not what its own sha256 says: it was changed")
    if not same:
        return
    validator = Draft202012Validator(schema(1 if record["format"] == FORMAT_1 else 2))
    error = best_match(validator.iter_errors(record))
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the record"
        yield Check(f"{RECORD}, form", False, f"{where} is not what the schema demands: {error.message[:200]}")


def _check_files(folder: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    for name in (*SOURCES, HTML):
        if name not in record["files"]:
            yield Check(name, False, "has no hash in the record")
    for name, stated in record["files"].items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            yield Check(name, False, "is missing")
            continue
        found = file_sha256(path)
        yield Check(name, found == stated, f"sha256 {found[:12]}…" + ("" if found == stated else changed_from(stated)))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        real_folder = path.is_dir() and not path.is_symlink()
        if not real_folder and name not in (RECORD, KEY_FILE, SIGNATURE) and name not in record["files"]:
            yield Check(name, False, "is no file of this run: the record does not know it")


def _check_copies(folder: Path, record: Mapping[str, Any], missing: list[str]) -> Iterator[Check]:
    """Compare what the record and the report repeat with the files that they are from."""
    config, split = read_json(folder / "config.json"), read_json(folder / "split.json")
    metrics = upgraded(read_json(folder / "metrics.json"))
    audit, purge = (read_further(folder, name) for name in (AUDIT, PURGE))
    if (folder / MODEL_CONFIG).is_file():
        preprocess = Preprocess.from_dict(config["preprocess"])
        written = model_config_text(config["architecture"], config["class_names"], preprocess)
        right = (folder / MODEL_CONFIG).read_text("utf-8") == written
        yield Check(f"{MODEL_CONFIG}, content", right, "says what config.json says" if right else "says something else")
    times = {**metrics["times"], "written": record["times"]["written"]}
    again = deletion_record(config, metrics, split, times=times, hashes=record["files"], audit=audit, purge=purge)
    current = _is_current(record)
    ours = upgraded_record(record)
    unlike = {"format", "sha256", *(() if current else ("verdict", "intervals", "gap"))}
    wrong = [key for key in sorted({*again, *ours} - unlike) if again.get(key) != ours.get(key)]
    detail = f"differs from the files beside it: {', '.join(wrong)}" if wrong else "repeats the files beside it"
    yield Check(f"{RECORD}, content", not wrong, detail)
    yield check_config(config, metrics, split)
    if current:
        pictures = read_pictures(folder)
        right = (folder / HTML).read_text("utf-8") == render_report(config, metrics, split, pictures, audit, purge)
        yield Check(f"{HTML}, content", right, "is made of the files beside it" if right else "says something else")
    else:
        missing.append("verdict and report.html: another version of pymixunlearn wrote them")
    yield from check_chain(folder, metrics, split, missing)
    retrain = metrics["metrics"]["retrain"]
    if retrain is not None:
        gaps = metrics["gap"] or {}
        right = all(
            gaps.get(name) == Metrics(theirs).gap_to(retrain)
            for name, theirs in metrics["metrics"].items()
            if name != "retrain" and theirs is not None
        )
        yield Check("gap", right, "the distances to Retrain" if right else "is not the distance to Retrain")
    models = ours["models"]
    if models["initial_sha256"] == models["unlearned_sha256"]:
        said = metrics.get("unchanged") is True
        yield Check(
            "models",
            said,
            "the unlearned model is the initial one, and the run says so"
            if said
            else "the unlearned model is the initial one: nothing was unlearned",
        )


def _is_current(record: Mapping[str, Any]) -> bool:
    """Tell whether this version of the package wrote a record."""
    return record["format"] == FORMAT and bool(record["versions"]["pymixunlearn"] == versions()["pymixunlearn"])


def _check_content(
    inputs: VerifyInputs, record: Mapping[str, Any], missing: list[str], watcher: Observer
) -> Iterator[Check]:
    """Load the data and the models, and measure again."""
    folder = inputs.folder
    config, metrics = read_json(folder / "config.json"), upgraded(read_json(folder / "metrics.json"))
    current, record = _is_current(record), upgraded_record(record)
    device = resolve_device(inputs.device)
    in_memory = config.get(IN_MEMORY, ())
    if "data" in in_memory and inputs.dataset is None:
        missing.append(
            f"data set, models and metrics: the run was made from data in memory ('{config['dataset']}'), which cannot "
            "be rebuilt from names; pymixunlearn.verify(run, model=…, data=…) checks it"
        )
        return
    if inputs.dataset is None and runs_code(config) and not inputs.allow_code:
        missing.append(
            f"data set, models and metrics: loading the data runs '{specified(config)}', which the record names; "
            "--allow-code runs it once you have read it"
        )
        return
    dataset = _load(inputs, config, watcher) if inputs.dataset is None else inputs.dataset
    found, stated = dataset.fingerprint(), record["dataset"]["fingerprint"]
    known = same_data(dataset, read_json(folder / "split.json"))
    inputs = with_given_model(inputs, config["architecture"])
    if known is not None and inputs.deletion_list is not None:  # it takes no model
        yield _check_list(inputs.deletion_list, record, known)
    unknown = is_object(config["architecture"])
    if unknown and inputs.network is None:
        yield from check_unbuilt(folder, record, known is not None, f"{dataset.name}, fingerprint {found[:12]}…")
        missing.append(
            f"metrics: the model was in memory ('{config['architecture']['name']}') and cannot be rebuilt from names; "
            "pymixunlearn.verify(run, model=…), or --model with a function that makes its network, checks them"
        )
        return
    named = inputs.allow_code or inputs.model is not None
    if not unknown and model_runs_code(config["architecture"]) and not named:
        yield from check_unbuilt(folder, record, known is not None, f"{dataset.name}, fingerprint {found[:12]}…")
        missing.append(
            f"metrics: the model is made by '{config['architecture']['name']}', and code that a record names is not "
            "run; --allow-code, or the same as --model, runs it once you have read it"
        )
        return
    # It says its own architecture, which need not be the initial model's: an ensemble, for example.
    model = loaded(folder / CHECKPOINT, inputs, config, says_its_own=True)
    if inputs.weights is not None:
        yield check_weights_in_use(inputs.weights, inputs, config, record)
    if known is None:
        gone = metrics.get("rest") == {"retain": pixels_sha256(dataset.train), "test": pixels_sha256(dataset.test)}
        detail = "D_f is gone, as it should be, and the rest is what the run saw"
        yield Check(
            "data set", gone, detail if gone else f"{dataset.name}, fingerprint {found[:12]}…{changed_from(stated)}"
        )
        if gone:
            yield check_model("unlearned", model, record)
            yield from check_test_accuracy(model, dataset, config, metrics, read_json(folder / "split.json"), device)
            missing.append("metrics that need the forgotten samples: they are deleted")
        return
    where = "" if known is dataset else f", by their ids among {len(dataset.train)} training images of today"
    dataset = known
    yield Check("data set", True, f"{dataset.name}, fingerprint {stated[:12]}…{where}")
    validation = [*_check_validation(dataset, read_json(folder / "split.json"))]
    yield from validation
    if dataset.validation is not None and not all(check.holds for check in validation):
        missing.append("models and metrics: the validation set is not the run's")
        return
    split = Split.load(folder / "split.json", dataset)
    yield from check_request(split, config, read_json(folder / "split.json"), current=current)
    _load_plugged(inputs, config, metrics, missing)
    networks = {"unlearned": model, **other_models(inputs, config, split, missing, metrics)}
    for name, network in networks.items():
        yield check_model(name, network, record)
    attacker = config.get("attacker", ATTACKERS[0])
    yield from check_metrics(networks, split, metrics, device, watcher, missing, attacker=attacker)
    yield from check_acceptance(
        networks, split, config, metrics, device, watcher, missing, same_machine=same_machine(metrics)
    )


def _load_plugged(
    inputs: VerifyInputs, config: Mapping[str, Any], metrics: Mapping[str, Any], missing: list[str]
) -> None:
    """Run the files with metrics of plug-ins that the record names, where that is allowed and they are the same."""
    keys = plugged_keys(metrics["metrics"]["unlearned"])
    if not keys:
        return
    files = config.get("plugins") or {}
    if inputs.allow_code:
        same = [file for file, stated in files.items() if Path(file).is_file() and file_sha256(Path(file)) == stated]
        load_plugins(same)
    lacking = [key for key in keys if key not in plugged_metrics()]
    if lacking:
        what = f"of plug-ins ({', '.join(files) or 'an installed package'})"
        said = "not the file of the run" if inputs.allow_code else "--allow-code runs it once you have read it"
        missing.append(f"metrics {', '.join(lacking)}: {what}; {said}")


def _check_validation(dataset: Dataset, manifest: Mapping[str, Any]) -> Iterator[Check]:
    stated = (manifest.get("validation") or {}).get("sha256")
    if stated is None:
        return
    found = None if dataset.validation is None else dataset.validation.fingerprint()
    detail = "missing" if found is None else f"{len(dataset.validation or ())} images, fingerprint {found[:12]}…"
    yield Check("validation set", found == stated, detail + ("" if found == stated else changed_from(stated)))


def _load(inputs: VerifyInputs, config: Mapping[str, Any], watcher: Observer) -> Dataset:
    return data_of_run(config, data_dir=inputs.data_dir, download=inputs.download).load(watcher)


def _check_list(path: Path, record: Mapping[str, Any], dataset: Dataset) -> Check:
    stated = record["request"]["forgotten"]
    column = None if stated["ids"] is None else stated["ids"]["column"]
    listed = read_deletion_list(path, column)
    indices = find_samples(dataset, listed)["train"]
    same_ids = column is None or listed.summary() == stated["ids"]
    same = indices_sha256(indices) == stated["indices_sha256"] and same_ids
    what = "indices" if column is None else f"indices and ids ('{column}')"
    said = "the forgotten ones" if same else "other ones than were forgotten"
    return Check(str(path), same, f"{len(indices)} {what}: {said}")


def _check_manifest(path: Path, split: Mapping[str, Any]) -> Check:
    """Compare a manifest that the caller has with the run's."""
    given = read_manifest(path)
    parts = {"data set": ("dataset", "fingerprint"), "D_f": ("forget", "sha256"), "D_r": ("retain", "sha256")}
    unlike = [name for name, (part, key) in parts.items() if given[part][key] != split[part][key]]
    said = f"another {' and another '.join(unlike)} than the run's" if unlike else "the run's data, D_f and D_r"
    return Check(str(path), not unlike, said)
