"""Commands as functions: unlearn (and its dry run), retrain, evaluate, audit, verify, compare, tune, experiment.

Each does what the command of the same name does, run folder included. An option of the command is a keyword argument
here: ``--forget-class 3`` is ``forget_class=(3,)``, ``--no-retrain`` is ``retrain=False``, and ``--set epochs=5`` is
``settings={"epochs": 5}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pymixunlearn.display import a_type
from pymixunlearn.experiments.audit.inputs import AuditInputs
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.history_request import HistoryRequest
from pymixunlearn.experiments.common.inputs import EvaluateInputs, ModelRequest, RetrainInputs, VerifyInputs
from pymixunlearn.experiments.common.options import option_of
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.compare.inputs import CompareInputs
from pymixunlearn.experiments.paper.inputs import ExperimentInputs
from pymixunlearn.experiments.tune.inputs import TuneInputs
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs

if TYPE_CHECKING:
    from torch import nn

    from pymixunlearn.data import Dataset
    from pymixunlearn.experiments import (
        AuditOutcome,
        ComparisonOutcome,
        DryRun,
        ExperimentOutcome,
        Observer,
        Run,
        TuningOutcome,
        Verification,
    )
    from pymixunlearn.tasks import DeletionList, Split

Model: TypeAlias = "str | Path | nn.Module | None"
Data: TypeAlias = "str | Dataset"
Forget: TypeAlias = "str | Path | Sequence[int] | Sequence[str] | DeletionList | Split | None"
T = TypeVar("T")
_PARTS = (DataRequest, SplitRequest, ModelRequest, HistoryRequest)


def unlearn(
    model: Model = None,
    data: Data = "digits",
    forget: Forget = None,
    method: str = "mixunlearn",
    out: str | Path | None = None,
    *,
    purge: bool = False,
    observer: Observer | None = None,
    **options: Any,
) -> Run:
    """Make a model forget, compare it with one retrained without the forgotten data, and write the run folder.

    Args:
        model: A network's name, which is then trained first; a model file or run folder; or any model in memory, which
            is left as it is. None is the paper's network for the images.
        data: A data set's specification, or a :class:`pymixunlearn.data.Dataset`. The record of a run from objects says
            that it cannot be rebuilt from names; :func:`verify` takes them.
        forget: A file that lists samples, indices, ids of the data (texts; all samples of each), a
            :class:`pymixunlearn.tasks.DeletionList` or :class:`pymixunlearn.tasks.Split`; None leaves it to the options
            ``task``, ``forget_class``, ``forget_fraction`` and ``split``.
        method: The method's name.
        out: The run folder; None makes one in ``runs/``.
        purge: Delete from the cache, once the run is complete, what is made of its data, as
            ``mixunlearn-cli cache purge --run``.
        observer: Receives the progress.
        options: Options of ``mixunlearn-cli unlearn``, and ``settings``.

    Returns:
        The run: its folder, the content of its ``metrics.json``, and whether it had been finished before.

    Raises:
        UserError: Names are unknown, files are missing, or the run failed.

    Example:
        >>> import pymixunlearn
        >>> few = {"epochs": 1, "initial.epochs": 1}
        >>> run = pymixunlearn.unlearn(forget=[3, 4], settings=few, retrain=False, out="runs/a")  # doctest: +SKIP
        >>> run.record["metrics"]["unlearned"]["test"]  # doctest: +SKIP
        78.3...
    """
    from pymixunlearn.experiments import resolve_unlearning, run_unlearning
    from pymixunlearn.experiments.cache import purge_run
    from pymixunlearn.experiments.unlearn.report import sign_again

    inputs = _inputs(UnlearnInputs, options, model, data, forget, method=method)
    run = run_unlearning(resolve_unlearning(inputs, observer=observer), _path(out), observer=observer)
    if purge:
        purge_run(run.folder)
        sign_again(run.folder, inputs.sign_key)
    return run


def dry_run(
    model: Model = None,
    data: Data = "digits",
    forget: Forget = None,
    method: str = "mixunlearn",
    out: str | Path | None = None,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> DryRun:
    """Say what :func:`unlearn` would do with the same arguments, and estimate its time and memory by a few steps.

    Neither the run folder nor the cache of trained models is written to.

    Returns:
        What would be forgotten, the phases of the run with the time of each, and the memory of the steps that were
        taken.

    Raises:
        UserError: Names are unknown, files are missing, the folder holds another run, or the method cannot do it.

    Example:
        >>> import pymixunlearn
        >>> preview = pymixunlearn.dry_run(forget=[3, 4], retrain=False, device="cpu")
        >>> preview.forgotten.count, preview.forgotten.remaining, [phase.name for phase in preview.phases]
        (2, 1436, ['initial', 'unlearn', 'evaluation'])
    """
    from pymixunlearn.experiments import preview_unlearning, resolve_unlearning

    inputs = _inputs(UnlearnInputs, options, model, data, forget, method=method)
    return preview_unlearning(resolve_unlearning(inputs, observer=observer), _path(out), observer=observer)


def retrain(
    model: Model = None,
    data: Data = "digits",
    forget: Forget = None,
    out: str | Path | None = None,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> Run:
    """Train a network on the retain set only, from scratch or pretrained weights; arguments as of :func:`unlearn`."""
    from pymixunlearn.experiments import resolve_retraining, run_retraining

    inputs = _inputs(RetrainInputs, options, model, data, forget)
    return run_retraining(resolve_retraining(inputs, observer=observer), _path(out), observer=observer)


def evaluate(
    model: str | Path | nn.Module,
    data: Data = "digits",
    forget: Forget = None,
    reference: str | Path | nn.Module | None = None,
    out: str | Path | None = None,
    *,
    before: str | Path | nn.Module | None = None,
    observer: Observer | None = None,
    **options: Any,
) -> Run:
    """Measure a model; arguments as of :func:`unlearn`.

    Args:
        model: A model file, a run folder, or a model in memory; or a network's specification beside ``weights``.
        data: As of :func:`unlearn`.
        forget: As of :func:`unlearn`.
        reference: Another model, usually Retrain's, to measure the gap to: a file, a run folder, or in memory.
        out: Where to write the metrics; None writes nothing.
        before: The model before unlearning, likewise. With it ``out`` becomes a run folder like that of
            :func:`unlearn`, whatever tool unlearned: with a report and a record, which :func:`verify` and
            :func:`audit` take.
        observer: Receives the progress.
        options: Options of ``mixunlearn-cli evaluate``.
    """
    from pymixunlearn.experiments import run_evaluation

    given: dict[str, Any] = {"reference": _model(reference), "before": _model(before)}
    if isinstance(model, (str, Path)) and options.get("weights") is None:
        given["checkpoint"] = Path(model)
    judged = None if "checkpoint" in given else model
    inputs = _inputs(EvaluateInputs, options, judged, data, forget, **given)
    return run_evaluation(inputs, _path(out), observer=observer)


def audit(
    run: str | Path | None = None,
    model: Model = None,
    data: Data = "digits",
    forget: Forget = None,
    out: str | Path | None = None,
    *,
    method: Callable[..., Any] | None = None,
    before: str | Path | nn.Module | None = None,
    observer: Observer | None = None,
    **options: Any,
) -> AuditOutcome:
    """Attack a model with shadow models; options as of the command.

    With ``jobs`` above 1, a script needs ``if __name__ == "__main__":`` around its own work, and ``method`` has to be a
    function of a module.

    Args:
        run: A run folder of :func:`unlearn`, or of :func:`evaluate` with ``before``.
        model: Instead of a run, a model that never unlearned, or that another tool unlearned.
        data: As of :func:`unlearn`, for ``model``.
        forget: Likewise.
        out: The folder for ``audit.json``; None takes the run folder, or makes one in ``runs/``.
        method: How another tool unlearns: a function ``(model, forget, retain)`` in plain PyTorch, which changes the
            model in place or returns another one. ``forget`` and ``retain`` are data sets of torch of (input, label),
            without augmentation. With it the shadow models unlearn too, and all attacks are made.
        before: The model before unlearning, which is then attacked as well.
        observer: Receives the progress.
        options: Options of ``mixunlearn-cli audit``, and ``settings``: how the models were trained.

    Example:
        >>> def forget_all(model, forget, retain):
        ...     for images, labels in torch.utils.data.DataLoader(forget, batch_size=32):
        ...         ...
        >>> audited = {"data": "digits", "forget": [3, 4], "method": forget_all}
        >>> pymixunlearn.audit(model="after.pt", before="before.pt", **audited)  # doctest: +SKIP
    """
    from pymixunlearn.experiments import resolve_audit, run_audit

    given = {"run": _path(run), "method": method, "before": _model(before)}
    inputs = _inputs(AuditInputs, options, model, data, forget, **given)
    return run_audit(resolve_audit(inputs, observer=observer), _path(out), observer=observer)


def verify(
    run: str | Path,
    model: nn.Module | None = None,
    data: Dataset | None = None,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> Verification:
    """Check a run folder against its ``report.json``; options as of the command.

    Args:
        run: The run folder.
        model: For a run of a model in memory, that model, or another of the same structure: with the weights before
            unlearning, they are checked too.
        data: For a run of data in memory, the data set.
        observer: Receives the progress.
        options: Options of ``mixunlearn-cli verify``.

    Returns:
        Everything that was looked at and whether it holds, and what could not be checked.
    """
    from pymixunlearn.experiments import run_verification

    return run_verification(
        _filled(VerifyInputs, dict(options), folder=Path(run), network=model, dataset=data), observer=observer
    )


def compare(
    methods: Sequence[str] = ("all",),
    model: Model = None,
    data: Data = "digits",
    forget: Forget = None,
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path | None = None,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    retry_failed: bool = False,
    observer: Observer | None = None,
    **options: Any,
) -> ComparisonOutcome:
    """Run methods on one split per seed and write the table of them; arguments as of :func:`unlearn` and the command.

    With ``jobs`` above 1, a script needs ``if __name__ == "__main__":`` around its own work. With ``on="ray"`` the runs
    are tasks of Ray, see docs/scale.md.
    """
    from pymixunlearn.experiments import resolve_comparison, run_comparison

    given = {"methods": tuple(methods), "seeds": tuple(seeds)}
    plan = resolve_comparison(_inputs(CompareInputs, options, model, data, forget, **given), observer=observer)
    return run_comparison(plan, _path(out), jobs=jobs, threads=threads, retry_failed=retry_failed, observer=observer)


def tune(
    method: str = "mixunlearn",
    model: str | None = None,
    data: Data = "digits",
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    *,
    observer: Observer | None = None,
    **options: Any,
) -> TuningOutcome:
    """Search a method's settings for those that come closest to Retrain.

    Args:
        method: The method's name.
        model: A network's name.
        data: As of :func:`unlearn`.
        grid: Setting to the values to choose from, in place of the shipped grid's or besides.
        seeds: Every combination is run with each.
        out: The folder; None makes one in ``runs/``. A search that is there already goes on.
        observer: Receives the progress.
        options: Options of ``mixunlearn-cli tune``, and ``settings``.
    """
    from pymixunlearn.experiments import resolve_tuning, run_tuning

    given = {"method": method, "grid": dict(grid or {}), "seeds": tuple(seeds)}
    plan = resolve_tuning(_inputs(TuneInputs, options, model, data, None, **given), observer=observer)
    return run_tuning(plan, _path(out), observer=observer)


def experiment(
    exhibit: str,
    scale: str = "small",
    data: Mapping[str, str | Path] | None = None,
    out: str | Path | None = None,
    *,
    cells: str | Path | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    retry_failed: bool = False,
    observer: Observer | None = None,
    **options: Any,
) -> ExperimentOutcome:
    """Run one of the paper's tables or figures, or a file of the same form, and make it of the runs.

    With ``jobs`` above 1, a script needs ``if __name__ == "__main__":`` around its own work.

    Args:
        exhibit: "table1" to "table7", "figure3" to "figure11", or a YAML file.
        scale: "paper", "small" or "tiny".
        data: Folders that serve data sets, by the name that the exhibit has for them.
        out: The output folder; None is ``runs/NAME-SCALE``.
        cells: Folder of the runs, the same for all exhibits; None is ``runs/cells``.
        jobs: How many runs at once; None is 1, and on Ray as many as there is room for.
        threads: CPU threads of each run.
        retry_failed: Run again what failed before.
        observer: Receives the progress.
        options: Further options of ``mixunlearn-cli experiment run``: ``only``, ``seeds``, ``data_dir``, ``download``,
            ``device``, ``plugin``, ``on``, ``gpus``.

    Example:
        >>> import pymixunlearn
        >>> found = pymixunlearn.experiment("figure8", "tiny", out="runs/f8", cells="runs/c")  # doctest: +SKIP
        >>> found.folder / "report.html"  # doctest: +SKIP
        PosixPath('runs/f8/report.html')
    """
    from pymixunlearn.experiments import resolve_experiment, run_experiment

    folders = tuple(f"{name}={folder}" for name, folder in (data or {}).items())
    inputs = _filled(ExperimentInputs, dict(options), exhibit=exhibit, scale=scale, folders=folders)
    return run_experiment(
        resolve_experiment(inputs, observer=observer),
        _path(out),
        cells=_path(cells),
        jobs=jobs,
        threads=threads,
        retry_failed=retry_failed,
        observer=observer,
    )


def _inputs(inputs: type[T], options: Mapping[str, Any], model: Model, data: Data, forget: Forget, **given: Any) -> T:
    """Return inputs of a command from the arguments of its function."""
    from torch import nn

    from pymixunlearn.data import Dataset
    from pymixunlearn.experiments.common.given import GivenData, GivenModel, GivenSplit
    from pymixunlearn.tasks import DeletionList, Split
    from pymixunlearn.tasks.deletion_list import ID_COLUMN
    from pymixunlearn.tasks.indices import items_of, to_indices
    from pymixunlearn.training.process_pool import end_if_imported

    end_if_imported()
    # An option of the command itself is none of its data's, split's or model's, such as the validation share of tune.
    own = {option.argument for of in dataclasses.fields(inputs) if (option := option_of(of)) is not None}  # type: ignore[arg-type]
    rest = {name: value for name, value in options.items() if name not in own}
    if isinstance(data, Dataset):
        given["data"] = GivenData(dataset=data.name, loaded=data)
    elif isinstance(data, (str, Path)):
        given["data"] = _filled(DataRequest, rest, dataset=str(data))
    else:
        raise BadRequest(f"data is {a_type(data)}; expected a name or path, or a pymixunlearn.data.Dataset")
    if isinstance(forget, Split):
        given["split"] = GivenSplit(made=forget)
        if not isinstance(data, Dataset):
            loaded = forget.origin or forget.dataset
            given["data"] = GivenData(dataset=loaded.name, loaded=loaded)
    elif isinstance(forget, DeletionList):
        given["split"] = GivenSplit(listed=forget, id_column=rest.pop("id_column", forget.id_column))
    elif forget is None or isinstance(forget, (str, Path)):
        given["split"] = _filled(SplitRequest, rest, indices=_path(forget))
    elif (values := items_of(forget)) and all(isinstance(name, str) for name in values):
        column = rest.pop("id_column", None)
        listed = DeletionList((), column or ID_COLUMN, tuple(values))
        given["split"] = GivenSplit(listed=listed, id_column=column)
    else:
        given["split"] = GivenSplit(chosen=tuple(to_indices(values, "forget").tolist()))
    if isinstance(model, nn.Module):
        given["model"] = GivenModel(network=model)
    elif model is not None and not isinstance(model, (str, Path)):
        raise BadRequest(f"model is {a_type(model)}; expected a name or path, or a torch.nn.Module")
    else:
        given["model"] = _filled(ModelRequest, rest, model=None if model is None else str(model))
    given["history"] = _filled(HistoryRequest, rest)
    rest.update({name: value for name, value in options.items() if name in own})
    return _filled(inputs, rest, settings=rest.pop("settings", {}), **given)


def _filled(inputs: type[T], options: dict[str, Any], **given: Any) -> T:
    """Return inputs with the fields that ``options`` names, taken out of it; an unknown one is an error at the end.

    Raises:
        BadRequest: An option is left that no field has.
    """
    fields = dict(given)
    for of in dataclasses.fields(inputs):  # type: ignore[arg-type]
        option = option_of(of)
        if option is not None and option.argument in options:
            value = options.pop(option.argument)
            fields[of.name] = (
                _path(value) if option.kind is Path else tuple(map(str, value)) if option.several else value
            )
    if options and inputs not in _PARTS:
        known = [option.argument for of in _fields(inputs) if (option := option_of(of)) is not None]
        for name in options:
            check_name("option", name, [*known, "settings"])
    return inputs(**fields)


def _fields(inputs: type) -> Iterator[dataclasses.Field[Any]]:
    for part in (inputs, *_PARTS):
        yield from dataclasses.fields(part)


def _model(value: str | Path | nn.Module | None) -> Path | nn.Module | None:
    return Path(value) if isinstance(value, str) else value


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
