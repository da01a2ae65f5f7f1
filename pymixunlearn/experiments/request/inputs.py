"""Inputs of the commands of ``request``; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pymixunlearn.experiments.common.options import option
from pymixunlearn.experiments.unlearn.inputs import RECOMMENDED, SIGN, UnlearnInputs

_LEDGER = "ledger"
MAX_DISTANCE = 40
"""Most bits of 256 in which near copies differ; ``docs/requests.md`` has what that finds."""


def _ledger() -> Path | str:
    place: Path | str = option(
        "--ledger",
        default=_LEDGER,
        show_default=True,
        metavar="DIR|URL",
        help="The ledger's folder, or a PostgreSQL database: postgresql+psycopg://USER@HOST/DATABASE.",
    )
    return place


def _ledger_dir() -> Path | None:
    path: Path | None = option(
        "--ledger-dir",
        kind=Path,
        metavar="DIR",
        help="Where the key and the runs lie if --ledger is a database.  [default: ledger]",
    )
    return path


def _sign_key() -> Path | None:
    path: Path | None = option("--sign-key", kind=Path, metavar="FILE", help=SIGN)
    return path


@dataclass(frozen=True)
class RequestUnlearnInputs(UnlearnInputs):
    """Inputs of a ledger's runs: those of ``unlearn``, with another method where none is named."""

    method: str = option(
        "--method",
        default=RECOMMENDED,
        show_default=True,
        metavar="NAME",
        first=True,
        help="How to unlearn; the methods are listed below. The settings of one: --method NAME --help. Why the default "
        "is another than unlearn's: docs/choosing.md.",
    )


@dataclass(frozen=True)
class InitInputs:
    """Inputs of ``request init``.

    Attributes:
        unlearn: The data, the model and the settings of every run; ``split`` is not used.
        ledger: The folder, or the URL of a database.
        ledger_dir: The folder beside a database.
    """

    unlearn: UnlearnInputs = field(default_factory=RequestUnlearnInputs)
    ledger: Path | str = _ledger()
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class AddInputs:
    """Inputs of ``request add``.

    Attributes:
        file: A list of samples, as for ``unlearn --forget``; None for a request without any.
        ledger: The folder, or the URL of a database.
        id_column: The column of the user ids.
        request_id: The request's id; None takes one from its content.
        received: When it was received.
        allow_missing: Whether samples that are not in the data are accepted.
        check_copies: Whether near copies of the samples are looked for in the data.
        copy_distance: In how many bits near copies differ at most.
        check_embeddings: Whether they are looked for by the newest model's embeddings too.
        also_forget_copies: Whether these are to be forgotten too.
        sign_key: A private key.
        ledger_dir: The folder beside a database.
    """

    file: Path
    ledger: Path | str = _ledger()
    id_column: str | None = option(
        "--id-column", metavar="NAME", help="The column of FILE with your ids of the people or accounts."
    )
    request_id: str | None = option(
        "--request-id", metavar="ID", help="Your name of the request.  [default: one made of its content]"
    )
    received: str | None = option(
        "--received",
        metavar="DATE",
        help="When it was received, YYYY-MM-DD; due a month later.  [default: today]",
    )
    allow_missing: bool = option(
        "--allow-missing", default=False, help="Accept samples that are not in the data, and count them."
    )
    check_copies: bool = option(
        "--check-copies",
        default=False,
        help="Look for near copies of the samples in all parts of the data, and list them.",
    )
    copy_distance: int = option(
        "--copy-distance",
        kind=int,
        default=MAX_DISTANCE,
        least=0,
        most=256,
        show_default=True,
        metavar="BITS",
        help="In how many of 256 bits hashes of near copies differ at most; 72 finds small crops of photographs.",
    )
    check_embeddings: bool = option(
        "--check-embeddings",
        default=False,
        help="Look for them by the newest model's feature maps too, which finds crops; implies --check-copies.",
    )
    also_forget_copies: bool = option(
        "--also-forget-copies",
        default=False,
        help="Add the near copies among the training images; implies --check-copies.",
    )
    sign_key: Path | None = _sign_key()
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class LedgerInputs:
    """Inputs of commands that only look at a ledger."""

    ledger: Path | str = _ledger()
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class PurgeInputs:
    """Inputs of ``request purge``."""

    ledger: Path | str = _ledger()
    sign_key: Path | None = _sign_key()
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class ExportInputs:
    """Inputs of ``request export``."""

    ledger: Path | str = _ledger()
    out: Path | None = option("--out", kind=Path, metavar="FILE", help="The file to write.  [default: standard output]")
    sign_key: Path | None = _sign_key()
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class RunInputs:
    """Inputs of ``request run``.

    Attributes:
        ledger: The folder, or the URL of a database.
        method: Another method than the ledger's.
        seed: Another seed.
        max_drop: Another limit than the ledger's.
        allow_missing: Whether samples that are no longer in the data are accepted.
        settings: Settings on top of the ledger's.
        sign_key: A private key.
        ledger_dir: The folder beside a database.
    """

    ledger: Path | str = _ledger()
    method: str | None = option("--method", metavar="NAME", help="Another method.  [default: the ledger's]")
    seed: int | None = option("--seed", kind=int, metavar="N", help="Another seed.  [default: the ledger's]")
    max_drop: float | None = option(
        "--max-drop",
        kind=float,
        least=0,
        most=100,
        metavar="POINTS",
        help="Another limit for this run.  [default: the ledger's]",
    )
    allow_missing: bool = option(
        "--allow-missing",
        default=False,
        help="Go on where samples of a request are no longer in the data, though the model has seen them.",
    )
    sign_key: Path | None = _sign_key()
    settings: dict[str, str] = field(default_factory=dict)
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class VerifyLedgerInputs:
    """Inputs of ``request verify``.

    Attributes:
        export: A file of ``request export``, to check it alone.
        ledger: The folder, or the URL of a database.
        public_key: Whose signatures every entry must have.
        head: A hash of an entry that is known from before.
        metrics: Whether the runs' metrics are measured again.
        ledger_dir: The folder beside a database.
    """

    export: Path | None = None
    ledger: Path | str = _ledger()
    public_key: Path | None = option(
        "--public-key", kind=Path, metavar="FILE", help="The public key that every entry must be signed for."
    )
    head: str | None = option(
        "--head", metavar="SHA256", help="The head of an earlier export: its entries must still be there."
    )
    metrics: bool = option(
        "--metrics", default=False, help="Load the data and the models of the runs, and measure them again."
    )
    ledger_dir: Path | None = _ledger_dir()


@dataclass(frozen=True)
class CheckInputs:
    """Inputs of ``request check``; exactly one of data and model.

    Attributes:
        ledger: The folder, or the URL of a database.
        dataset: A data set, to be searched for forgotten samples.
        data_dir: Where it is.
        model: A model, whose chain must have the ledger's requests.
        ledger_dir: The folder beside a database.
    """

    ledger: Path | str = _ledger()
    dataset: str | None = option("--dataset", metavar="SPEC", help="A data set: does it hold forgotten samples?")
    data_dir: Path | None = option("--data-dir", kind=Path, metavar="DIR", help="Where the files of --dataset are.")
    model: Path | None = option(
        "--model", kind=Path, metavar="FILE|RUN", help="A model: does its chain have all served requests?"
    )
    ledger_dir: Path | None = _ledger_dir()
