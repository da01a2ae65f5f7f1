"""Specification of a data set: a name, a folder, an archive, a table, a Hugging Face data set, or a Python factory."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pymixunlearn.display import printable
from pymixunlearn.errors import UserError, unknown_name

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
TABLES = (".csv", ".tsv", ".parquet")
HUB = "hf:"

_PART = re.compile(r"(?P<base>.+)@(?P<count>[0-9]{1,9})")
_FACTORY = re.compile(r"(?P<where>.+\.py|[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_]\w*)")
_FORCED = ("./", "../", "/", "~", ".\\", "..\\")
_ODD = re.compile(r"[^\w.+-]+")
_RUN = ("config.json", ".partial", "metrics.json")


@dataclass(frozen=True)
class Specification:
    """What ``--dataset`` says.

    Attributes:
        kind: "name" (a registered data set), "images" (a folder or archive), "table", "hub", or "factory".
        text: The name, the path, what stands behind "hf:", or ``where:attribute``.
        count: Number of training images, for ``SPEC@COUNT``; None takes all.
    """

    kind: Literal["name", "images", "table", "hub", "factory"]
    text: str
    count: int | None = None

    @property
    def name(self) -> str:
        """Name of the data set in reports and folders, without the part."""
        if self.kind == "name":
            return self.text
        if self.kind == "factory":
            where, _, attribute = self.text.rpartition(":")
            return _ODD.sub("-", f"{Path(where).stem if where.endswith('.py') else where}-{attribute}")
        name = Path(os.path.abspath(Path(self.text).expanduser())).name
        suffix = next((suffix for suffix in (*ARCHIVES[1:], ARCHIVES[0], *TABLES) if name.lower().endswith(suffix)), "")
        return _ODD.sub("-", name[: len(name) - len(suffix)]) or "data"

    @property
    def path(self) -> Path | None:
        """The path that it names, if it does."""
        if self.kind in ("images", "table"):
            return Path(self.text).expanduser()
        if self.kind == "hub" and _is_path(self.text):
            return Path(self.text).expanduser()
        return None

    def absolute(self) -> str:
        """Return the same specification, with paths that do not depend on the current folder."""
        part = "" if self.count is None else f"@{self.count}"
        if self.kind == "factory":
            where, _, attribute = self.text.rpartition(":")
            return f"{os.path.abspath(where) if where.endswith('.py') else where}:{attribute}{part}"
        if self.path is None:
            return f"{HUB if self.kind == 'hub' else ''}{self.text}{part}"
        return f"{HUB if self.kind == 'hub' else ''}{os.path.abspath(self.path)}{part}"

    def moved(self, path: Path) -> Specification:
        """Return the same specification for data that now lie at ``path``."""
        return replace(self, text=str(path))


def parse_specification(
    text: str, names: Collection[str], *, by_name: bool = False, missing: bool = False
) -> Specification:
    """Read a specification.

    An existing path wins over a name, unless it is a run folder or no data set can be in it; ``./`` forces a path.

    Args:
        text: What was given; ``SPEC@COUNT`` is a part.
        names: The registered names.
        by_name: Whether only a registered name can be meant, as with a folder given beside it.
        missing: Whether what is not there any more is taken for a folder.

    Raises:
        UserError: There is no such name, file or form, or the part is not a whole number.

    Example:
        >>> from pymixunlearn.data.specification import parse_specification
        >>> parse_specification("mnist@10000", ["mnist"])
        Specification(kind='name', text='mnist', count=10000)
        >>> parse_specification("mydata.photos:make", []).kind
        'factory'
    """
    for base, count in _readings(text):
        if base.startswith(HUB) and len(base) > len(HUB):
            if count is None and _PART.fullmatch(base) and not Path(base[len(HUB) :]).expanduser().exists():
                continue  # a part, not a name with an @
            return Specification("hub", base[len(HUB) :], count)
        if by_name and base in names:
            return Specification("name", base, count)
        if (found := _at_path(base, count, names)) is not None:
            return found
        if base in names:
            return Specification("name", base, count)
        if _FACTORY.fullmatch(base):
            return Specification("factory", base, count)
    if missing:
        return Specification("images", text)
    base, at, _ = text.rpartition("@")
    if at and (base in names or Path(base).expanduser().exists()):
        raise UserError(f"dataset is '{printable(text)}'; expected a whole number of training images behind the @")
    if _is_path(text) or Path(text).suffix:
        raise UserError(f"dataset '{printable(text)}' does not exist; expected a folder, an archive or a table there")
    raise unknown_name("dataset", printable(text.partition("@")[0]), names)


def _readings(text: str) -> Iterator[tuple[str, int | None]]:
    """Yield the text as it stands, and then as a part, if it reads like one."""
    yield text, None
    part = _PART.fullmatch(text)
    if part is not None:
        yield part["base"], int(part["count"])


def _is_path(text: str) -> bool:
    return text.startswith(_FORCED) or os.path.isabs(text) or text.endswith(("/", os.sep)) or os.path.exists(text)


def _at_path(text: str, count: int | None, names: Collection[str]) -> Specification | None:
    path = Path(text).expanduser()
    if not path.exists():
        return None
    if path.is_dir():
        if text in names and any((path / name).exists() for name in _RUN):
            return None  # the name of a run folder that happens to be a data set's
        return Specification("images", text, count)
    name = path.name.lower()
    if name.endswith(ARCHIVES):
        return Specification("images", text, count)
    if name.endswith(TABLES):
        return Specification("table", text, count)
    if text in names:
        return None
    expected = ", ".join((*ARCHIVES, *TABLES))
    raise UserError(f"dataset '{printable(text)}' is a file of no known kind; expected a folder, or one of {expected}")
