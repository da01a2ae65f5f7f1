"""Listing of a folder: which files are images, and what is left out."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pymixunlearn.data.decode import SUFFIXES
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

FILE_LIMIT = 2**29
"""Bytes of the largest image file that is read: 512 MiB."""

_SYSTEM = frozenset({"@eadir", "__macosx", "__pycache__", "#recycle", "$recycle.bin", "system volume information"})
"""Folders that systems leave, beside those whose names begin with a dot; in lower case."""

_OTHER_IMAGES = frozenset(
    {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".tga", ".svg", ".psd", ".eps", ".ico", ".pcx", ".exr", ".dcm"}
    | {".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".apng", ".dib", ".jif", ".jpg~", ".png~"}
)
"""Suffixes of pictures that are not read; a picture may also have none."""

_SHOWN = 5


@dataclass
class Listing:
    """Content of a folder or an archive; paths are below its root.

    Attributes:
        images: Every image file.
        folders: Every folder, and how many files of each suffix are directly in it that are no images.
        left_out: Names of what is left out, by reason.
    """

    images: list[PurePosixPath] = field(default_factory=list)
    folders: dict[PurePosixPath, Counter[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Note that ``name`` is left out."""
        self.left_out.setdefault(reason, []).append(name)

    def add_folder(self, path: PurePosixPath) -> None:
        """Add a folder and those around it."""
        while path not in self.folders:
            self.folders[path] = Counter()
            path = path.parent

    def add_other(self, path: PurePosixPath) -> None:
        """Add a file that is no image."""
        self.add_folder(path.parent)
        self.folders[path.parent][path.suffix.lower() or path.name] += 1

    def barren(self) -> dict[PurePosixPath, set[str]]:
        """Return the topmost folders without any image below, and the suffixes of the files below each."""
        holders = {image.parent for image in self.images}  # few, beside the images
        fertile = holders.union(*(folder.parents for folder in holders))
        found: dict[PurePosixPath, set[str]] = {}
        for folder, suffixes in self.folders.items():
            line = [folder, *folder.parents]
            top = next((path for path, parent in zip(line, line[1:], strict=False) if parent in fertile), None)
            if folder not in fertile and top is not None:
                found.setdefault(top, set()).update(suffixes)
        return found

    def notes(self) -> Iterator[str]:
        """Yield a sentence part for each sort of thing that is left out."""
        for reason, names in self.left_out.items():
            yield f"{reason}: {shown(names)}"
        empty = [folder for folder, suffixes in self.barren().items() if not suffixes]
        if empty:
            yield f"folders without a file: {shown(empty)}"
        foreign = {folder: suffixes for folder, suffixes in self.barren().items() if suffixes}
        if foreign:
            suffixes = ", ".join(sorted({printable(suffix) for some in foreign.values() for suffix in some})[:_SHOWN])
            yield f"folders without an image that can be read (files of {suffixes}): {shown(foreign)}"
        pictures: Counter[str] = Counter()
        for folder in {image.parent for image in self.images}:
            pictures.update({suffix: count for suffix, count in self.folders[folder].items() if _may_be_image(suffix)})
        if pictures:
            kinds = ", ".join(
                f"{count} of '{printable(suffix)}'" for suffix, count in sorted(pictures.items())[:_SHOWN]
            )
            more = f" and {len(pictures) - _SHOWN} more kinds" if len(pictures) > _SHOWN else ""
            yield f"files beside the images that are not read: {kinds}{more}"


def shown(names: Iterable[object], count: int = _SHOWN) -> str:
    """Return the first names in quotation marks, safe to print, and how many more there are."""
    listed = sorted(str(name) for name in names)
    rest = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(f"'{printable(name)}'" for name in listed[:count]) + rest


def is_image(path: PurePosixPath) -> bool:
    """Return whether the name is that of an image."""
    return path.suffix.lower() in SUFFIXES


def is_system(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a system and not to the data."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _may_be_image(suffix: str) -> bool:
    return suffix in _OTHER_IMAGES or not suffix.startswith(".")


def list_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """List the files below a folder, each real folder once.

    A folder that can be reached in several ways goes by its own path, not by that of a link. Links to the folders
    around the root are left out, as they would lead back here.

    Args:
        root: The folder.
        follow_links: Whether links may lead out of the root.

    Raises:
        OSError: A folder cannot be read.
        UserError: A link leads out of the root, or something that is named like an image is no file.
    """
    lister = _Lister(root, follow_links)
    lister.visit(PurePosixPath())
    while lister.links:  # after all real folders; behind a link there may be further ones
        lister.follow(lister.links.pop(0))
    name = printable(str(root))
    if lister.outside:
        raise UserError(
            f"'{name}' holds links that lead out of it: {shown(lister.outside)}; allow them with follow_links "
            "(--follow-links), or remove them"
        )
    if lister.special:
        raise UserError(
            f"'{name}' holds pipes, devices or links to nothing that are named like images: {shown(lister.special)}; "
            "remove them"
        )
    return lister.listing


class _Lister:
    def __init__(self, root: Path, follow_links: bool) -> None:
        self.listing = Listing()
        self.links: list[PurePosixPath] = []
        self.outside: list[PurePosixPath] = []
        self.special: list[PurePosixPath] = []
        self._root, self._real_root, self._follow_links = root, os.path.realpath(root), follow_links
        self._visited: set[str] = set()

    def visit(self, folder: PurePosixPath) -> None:
        """Add everything below a folder but what lies behind links."""
        pending = [folder]
        while pending:
            folder = pending.pop()
            real = os.path.realpath(self._root / folder)
            if real in self._visited:
                self.listing.leave_out("links to folders that are read already", str(folder))
                continue
            self._visited.add(real)
            self.listing.add_folder(folder)
            with os.scandir(self._root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = folder / entry.name
                    if entry.is_symlink() and not is_system(entry.name):
                        self.links.append(path)
                    elif entry.is_dir(follow_symlinks=False):
                        if is_system(entry.name):
                            self.listing.leave_out("folders of the system", str(path))
                        else:
                            pending.append(path)
                    else:
                        self._add_file(path, regular=entry.is_file(follow_symlinks=False))

    def follow(self, link: PurePosixPath) -> None:
        """Add what a link leads to."""
        try:
            mode = os.stat(self._root / link).st_mode
        except OSError:  # a link to nothing, or to itself
            if is_image(link):
                self.special.append(link)
            else:
                self.listing.leave_out("links to nothing", str(link))
            return
        real, folder = os.path.realpath(self._root / link), stat.S_ISDIR(mode)
        if folder and _is_below(self._real_root, real):
            self.listing.leave_out("links to the folders around the data", str(link))
        elif (folder or is_image(link)) and not (self._follow_links or _is_below(real, self._real_root)):
            self.outside.append(link)
        elif folder:
            self.visit(link)
        else:
            self._add_file(link, regular=stat.S_ISREG(mode))

    def _add_file(self, path: PurePosixPath, *, regular: bool) -> None:
        if not is_image(path):
            if not is_system(path.name):
                self.listing.add_other(path)
        elif is_system(path.name):
            self.listing.leave_out("hidden files", str(path))
        elif regular:
            self.listing.images.append(path)
        else:
            self.special.append(path)


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


@dataclass
class Member:
    """Image file of a folder or an archive.

    Attributes:
        path: Its path there.
        size: Bytes of the file; above :data:`FILE_LIMIT` it is not to be read.
        read: Reads the file, before the next member is taken.
        link: For a hard link, the earlier member whose content it has.
    """

    path: PurePosixPath
    size: int
    read: Callable[[], bytes]
    link: PurePosixPath | None = None


def file_reader(path: Path) -> Callable[[], bytes]:
    """Return what reads a file that a row names, of which nothing is known yet.

    It raises UserError without a subject where there is no such file, or one above :data:`FILE_LIMIT`.
    """

    def read() -> bytes:
        if not path.is_file():
            raise UserError("is not there" if not path.exists() else "is no file")
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise UserError(f"has {size} bytes; expected at most {FILE_LIMIT}")
        return path.read_bytes()

    return read
