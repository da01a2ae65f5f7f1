"""Decoding of many files: in parallel, interrupted and gone on with, damaged in between."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pymixunlearn import data
from pymixunlearn.data import decoding
from pymixunlearn.data.image_file import Hashed, hashed
from pymixunlearn.data.spool import Spool
from pymixunlearn.errors import UserError
from tests.data.test_imagefolder import pack, picture


def photos(root: Path, count: int = 200) -> Path:
    for number in range(count):
        picture(root / ("cat" if number % 2 else "dog") / f"{number}.png", (number, 0, 0))
    return root


def interrupted_load(source: Path, after: int) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.load(str(source), progress=stop)


@pytest.mark.parametrize("archive", [False, True])
def test_an_interrupted_decoding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bool) -> None:
    source = photos(tmp_path / "photos")
    if archive:
        source = pack(source, tmp_path / "photos.tar")
    interrupted_load(source, 150)
    decoded: list[bytes] = []
    decode = decoding.decode_square
    monkeypatch.setattr(decoding, "decode_square", lambda *args: decoded.append(args[0]) or decode(*args))
    calls: list[tuple[int, int | None]] = []
    dataset = data.load(str(source), progress=lambda *numbers: calls.append(numbers))
    assert 0 < len(decoded) <= 50 and calls[-1] == (200, None if archive else 200)
    reds = {
        path: int(image[0, 0, 0]) for path, image in zip(dataset.train.paths or (), dataset.train.images, strict=True)
    }
    assert all(int(Path(path).stem) == red for path, red in reds.items())
    decoded.clear()
    assert data.load(str(source)).fingerprint() == dataset.fingerprint() and not decoded
    assert [path for path in (data.cache_dir() / "decoding").iterdir() if path.is_dir()] == []


def test_what_an_interruption_damaged_is_decoded_again(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    expected = data.load(str(source)).fingerprint()
    for path in (data.cache_dir() / "images").iterdir():
        path.unlink()
    interrupted_load(source, 150)
    (pixels,) = data.cache_dir().glob("decoding/*/pixels")
    content = bytearray(pixels.read_bytes())
    content[100 * 192] ^= 255  # a byte of the hundredth image
    pixels.write_bytes(content[:-7])
    assert data.load(str(source)).fingerprint() == expected


def test_a_change_of_one_file_leaves_nothing_of_an_interrupted_decoding(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    interrupted_load(source, 150)
    picture(source / "cat" / "1.png", (250, 1, 2), size=(16, 16))
    dataset = data.load(str(source))
    both = [dataset.train, dataset.test]
    (image,) = [part.images[part.paths.index("cat/1.png")] for part in both if "cat/1.png" in (part.paths or ())]
    assert image[:, 0, 0].tolist() == [250, 1, 2]


def test_a_spool_gives_back_what_was_put_in(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    grey, colour = (
        hashed(np.arange(size, dtype=np.uint8).reshape(shape)) for size, shape in ((9, (1, 3, 3)), (12, (3, 2, 2)))
    )
    spool.add("a", grey)
    spool.add("b", colour)
    spool.repeat("c", "a")
    spool.close()
    again = Spool(tmp_path / "spool")
    assert again.rows == {"a": 0, "b": 1, "c": 2}
    for name, image in (("c", grey), ("b", colour)):
        assert np.array_equal(again.read(name).pixels, image.pixels) and again.read(name).sha256 == image.sha256
    again.add("d", colour)
    again.close()
    assert np.array_equal(Spool(tmp_path / "spool").read("d").pixels, colour.pixels)


def test_of_two_files_of_one_name_the_later_counts(tmp_path: Path) -> None:
    import tarfile

    source = photos(tmp_path / "photos", 8)
    archive = pack(source, tmp_path / "photos.tar")
    picture(source / "cat" / "1.png", (250, 1, 2))
    with tarfile.open(archive, "a") as file:
        file.add(source / "cat" / "1.png", "./cat/1.png")
    dataset, folder = data.load(str(archive)), data.load(str(source))
    assert dataset.fingerprint() == folder.fingerprint() and len(dataset.train) + len(dataset.test) == 8


def test_a_full_disk_is_no_fault_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, add = photos(tmp_path / "photos", 40), Spool.add

    def full(self: Spool, name: str, image: Hashed) -> None:
        if len(self.rows) >= 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, name, image)

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "add", full)
        with pytest.raises(UserError, match=r"decoded images cannot be written to '.*': No space left on device; what"):
            data.load("imagefolder", data_dir=root, skip_unreadable=True)
    found = data.load("imagefolder", data_dir=root, skip_unreadable=True)
    assert len(found.train) + len(found.test) == 40 and not found.notes
