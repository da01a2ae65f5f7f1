"""Image files of a tar or zip archive, which is read from front to back and never unpacked."""

from __future__ import annotations

import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from pymixunlearn.data.listing import FILE_LIMIT, Listing, Member, is_image, is_system
from pymixunlearn.display import printable
from pymixunlearn.errors import UserError

ZIP = ".zip"


def read_archive(source: Path, listing: Listing) -> Iterator[Member]:
    """Read an archive, filling ``listing``; one whose name ends in ``.zip`` is a zip archive, any other a tar archive.

    Member names are labels only, never places on this disk.

    Raises:
        UserError: It cannot be read as such an archive, or is encrypted.
    """
    reader, kind = (_read_zip, "zip") if source.name.lower().endswith(ZIP) else (_read_tar, "tar")
    try:
        yield from reader(source, listing)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OverflowError, MemoryError) as error:
        raise UserError(f"'{printable(str(source))}' cannot be read as a {kind} archive ({error})") from error
    except NotImplementedError as error:  # a compression that Python does not know
        raise UserError(f"'{printable(str(source))}' is compressed in a way that is not read ({error})") from error


def _read_tar(source: Path, listing: Listing) -> Iterator[Member]:
    with source.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as archive:
        for member in archive:
            path = _member_path(member.name)
            if not _counts(path, listing, folder=member.isdir()):
                continue
            if member.islnk():
                yield Member(path, 0, bytes, _member_path(member.linkname))
            elif not member.isreg():
                listing.leave_out(_NO_FILES, str(path))
            else:
                # Read here, where damage to the archive is caught.
                file = archive.extractfile(member) if member.size <= FILE_LIMIT else None
                yield Member(path, member.size, partial(bytes, file.read() if file else b""))


def _read_zip(source: Path, listing: Listing) -> Iterator[Member]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            path = _member_path(member.filename.replace("\\", "/"))
            if not _counts(path, listing, folder=member.is_dir()):
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive was not made on a Unix
            if kind not in (0, stat.S_IFREG):
                listing.leave_out(_NO_FILES, str(path))
                continue
            if member.flag_bits & 1:
                raise UserError(
                    f"'{printable(str(source))}' is encrypted ('{printable(str(path))}'); expected a plain archive"
                )
            # What it says of its size is also all that is read of it.
            content = archive.read(member) if member.file_size <= FILE_LIMIT else b""
            yield Member(path, member.file_size, partial(bytes, content))


_NO_FILES = "links, pipes and devices"


def _counts(path: PurePosixPath, listing: Listing, *, folder: bool) -> bool:
    """Tell whether a member is named like an image of the data; note in ``listing`` what else it is."""
    system = next((place for place in [*reversed(path.parents), path] if is_system(place.name)), None)
    if ".." in path.parts:
        listing.leave_out("members that lead out of the archive", str(path))
    elif system is not None:
        reason = "hidden files" if system == path and not folder else "folders of the system"
        names = listing.left_out.get(reason, [])
        if str(system) not in names and (reason != "hidden files" or is_image(path)):
            listing.leave_out(reason, str(system))
    elif folder:
        listing.add_folder(path)
    elif not is_image(path):
        listing.add_other(path)
    else:
        listing.add_folder(path.parent)
        return True
    return False


def _member_path(name: str) -> PurePosixPath:
    return PurePosixPath(posixpath.normpath(name.lstrip("/")))
