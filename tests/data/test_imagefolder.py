from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pymixunlearn import data
from pymixunlearn.data import decode, decoding
from pymixunlearn.data.cache_origin import read_origin
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError


def picture(path: Path, colour: object = (255, 0, 0), size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]


def picture_tree(root: Path, parts: tuple[str, ...] = ("train", "val")) -> Path:
    """Two classes with 5 images each in every part; every image has its own grey value in all channels."""
    for part in parts:
        for place, name in enumerate(("zebra", "ant")):
            for number in range(5):
                level = 20 * number + 10 * place + (1 if part == "val" else 0)
                picture(root / part / name / f"{number}.png", (level, level, level))
    return root


def pack(folder: Path, archive: Path, arcname: str = ".") -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in folder.rglob("*"):
                file.write(path, Path(arcname) / path.relative_to(folder))
        return archive
    with tarfile.open(archive, "w:gz" if archive.suffix in (".gz", ".tgz") else "w") as file:
        file.add(folder, arcname)
    return archive


def load(source: Path, **options: object) -> data.Dataset:
    return data.load("imagefolder", data_dir=source, **options)  # type: ignore[arg-type]


def test_a_folder_with_train_and_val(tmp_path: Path) -> None:
    dataset = load(picture_tree(tmp_path / "pictures"))
    assert dataset.train.classes == ("ant", "zebra")
    assert dataset.train.images.shape == (10, 3, 8, 8) and dataset.train.images.dtype == torch.uint8
    assert dataset.train.targets.tolist() == [0] * 5 + [1] * 5
    assert dataset.train.images[:, 0, 0, 0].tolist() == [10, 30, 50, 70, 90, 0, 20, 40, 60, 80]
    assert dataset.test.images[:, 0, 0, 0].tolist() == [11, 31, 51, 71, 91, 1, 21, 41, 61, 81]
    assert dataset.preprocess == data.natural_images() and dataset.image_size == 8


@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz", "all.tgz", "all.zip"])
@pytest.mark.parametrize("arcname", [".", "some/root"])
def test_an_archive_is_the_same_data(tmp_path: Path, name: str, arcname: str) -> None:
    folder = picture_tree(tmp_path / "pictures")
    archive = pack(folder, tmp_path / name, arcname)
    assert load(archive).fingerprint() == load(folder).fingerprint()
    assert load(archive).train.classes == ("ant", "zebra")


def test_a_pair_of_archives(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    pair = tmp_path / "pair"
    pair.mkdir()
    pack(folder / "train", pair / "train.tar.gz", "train")
    pack(folder / "val", pair / "val.tar", ".")
    assert load(pair).fingerprint() == load(folder).fingerprint()


def test_test_is_preferred_to_val(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures", ("train", "val", "test"))
    assert load(folder).test.images[:, 0, 0, 0].tolist() == [10, 30, 50, 70, 90, 0, 20, 40, 60, 80]


def test_a_single_set_is_split_by_class(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures", ("all",))
    dataset = load(folder)
    assert len(dataset.train) == 8 and dataset.test.targets.tolist() == [0, 1]
    assert load(folder / "all").fingerprint() == dataset.fingerprint()


def test_folders_below_the_class_do_not_count(tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        for number in range(3):
            picture(tmp_path / "in" / "train" / name / "images" / f"{number}.png")
            picture(tmp_path / "in" / "val" / "images" / name / f"{number}.png")
    dataset = load(tmp_path / "in")
    assert dataset.train.classes == ("n1", "n2")
    assert dataset.test.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_second_load_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    sources = [folder, pack(folder, tmp_path / "all.tar.gz")]
    first = [load(source).fingerprint() for source in sources]
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_decode", None)
        assert [load(source).fingerprint() for source in sources] == first
    kept = sorted((own_cache / "images").glob("*.safetensors"))
    assert len(kept) == 2
    assert sorted(read_origin(path)["source"] for path in kept) == sorted(map(str, sources))  # type: ignore[index]

    # What was kept is worth nothing once it is damaged, or once the images change.
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert [load(source).fingerprint() for source in sources] == first
    picture(folder / "train" / "ant" / "0.png", (1, 2, 3))
    assert load(folder).train.images[0, :, 0, 0].tolist() == [1, 2, 3]


def test_an_archive_that_changes_is_decoded_again(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    archive = pack(folder, tmp_path / "all.tar")
    before, status = load(archive), archive.stat()
    picture(folder / "train" / "ant" / "0.png", (1, 2, 3))
    pack(folder, archive)
    assert archive.stat().st_size == status.st_size  # tar pads to whole blocks: only the time tells them apart
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert load(archive).fingerprint() != before.fingerprint()


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert len(load(picture_tree(tmp_path / "pictures")).train) == 10


def test_progress_is_told(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    calls: list[tuple[int, int | None]] = []
    load(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 20) for number in range(1, 21)]
    calls.clear()
    load(pack(folder, tmp_path / "all.tar"), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (20, None)


def test_sizes_are_brought_to_the_commonest(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("a", "b"):
        for number in range(4):
            picture(root / name / f"{number}.png", size=(10, 10))
        picture(root / name / "large.png", size=(30, 20))
        picture(root / name / "small.png", size=(6, 9))
    assert load(root).train.images.shape[1:] == (3, 10, 10)
    smaller = load(root, image_size=8)
    assert smaller.train.images.shape[1:] == (3, 8, 8) and smaller.preprocess.size is None
    larger = load(root, image_size=32)  # enlarged batch by batch, not in memory
    assert larger.train.images.shape[1:] == (3, 10, 10) and larger.preprocess.size == 32


def test_the_middle_of_an_oblong_image_is_kept() -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 200
    for limit in (None, 2):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        image = decode.decode_square(file.getvalue(), limit)
        shape = decode.common_shape([image.shape])
        square = decode.fitted(image, shape)
        assert square.shape == shape == (3, limit or 4, limit or 4) and np.unique(square).tolist() == [200]


def test_grey_images_have_one_channel_unless_some_are_coloured(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            picture(tmp_path / "grey" / name / f"{number}.png", 100, mode="L")
            picture(tmp_path / "both" / name / f"{number}.png", 100, mode="L")
    grey = load(tmp_path / "grey")
    assert grey.train.images.shape[1:] == (1, 8, 8) and grey.preprocess == data.Preprocess()
    picture(tmp_path / "both" / "a" / "colour.jpg", (0, 0, 255))
    both = load(tmp_path / "both")
    assert both.train.images.shape[1] == 3 and both.preprocess.flip
    assert both.train.images[both.train.targets == 1].unique().tolist() == [100]


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    before = load(folder).fingerprint()
    (folder / "train" / "ant" / "._0.png").write_bytes(b"resource fork")
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / ".git").mkdir()
    picture(folder / ".git" / "x" / "0.png")
    assert load(folder).fingerprint() == before
    assert load(pack(folder, tmp_path / "all.tar")).fingerprint() == before


def test_member_paths_never_reach_the_disk(tmp_path: Path) -> None:
    archive, file = tmp_path / "in" / "hostile.tar", io.BytesIO()
    archive.parent.mkdir()
    Image.new("RGB", (8, 8)).save(file, "png")
    content = file.getvalue()
    with tarfile.open(archive, "w") as tar:
        for name in ("/set/a/0.png", "/set/a/1.png", "set/b/0.png", "set/b/1.png", "../../escaped/c/0.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("set/d/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        tar.addfile(link)
    dataset = load(archive)
    assert dataset.train.classes == ("a", "b") and len(dataset.train) + len(dataset.test) == 4
    assert [path.name for path in archive.parent.iterdir()] == ["hostile.tar"]
    assert not list(tmp_path.parent.rglob("escaped"))


def test_a_hostile_zip_archive_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    archive = tmp_path / "in" / "hostile.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("/set/a/0.png", "/set/a/1.png", "set/b/0.png", "set\\b\\1.png", "../../escaped/c/0.png"):
            packed.writestr(name, file.getvalue())
        link = zipfile.ZipInfo("set/d/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, str(tmp_path / "secret.png"))
    with pytest.warns(UserWarning) as said:
        dataset = load(archive)
    assert dataset.train.classes == ("a", "b") and len(dataset.train) + len(dataset.test) == 4
    notes = " ".join(str(warning.message) for warning in said)
    assert "members that lead out of the archive" in notes and "links, pipes and devices: 'set/d/link.png'" in notes
    assert [path.name for path in archive.parent.iterdir()] == ["hostile.zip"]
    assert not list(tmp_path.parent.rglob("escaped"))
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            packed.writestr(name, file.getvalue())
        packed.writestr("b/huge.png", bytes(100_000))
    monkeypatch.setattr("pymixunlearn.data.archives.FILE_LIMIT", 50_000)
    monkeypatch.setattr("pymixunlearn.data.decoding.FILE_LIMIT", 50_000)
    read = []
    plain = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda of, member: read.append(member.filename) or plain(of, member))
    with pytest.raises(UserError, match="b/huge.png' has 100000 bytes; expected at most 50000"):
        load(bomb)
    assert "b/huge.png" not in read and "b/1.png" in read
    encrypted = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = encrypted.index(mark)
        encrypted[start + place] |= 1
    (tmp_path / "secret.zip").write_bytes(encrypted)
    with pytest.raises(UserError, match="secret.zip' is encrypted .'set/a/0.png'.; expected a plain archive"):
        load(tmp_path / "secret.zip")
    unknown = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        unknown[unknown.index(mark) + place] = 77
    (tmp_path / "unknown.zip").write_bytes(unknown)
    with pytest.raises(UserError, match="unknown.zip' is compressed in a way that is not read"):
        load(tmp_path / "unknown.zip")
    (tmp_path / "broken.zip").write_bytes(archive.read_bytes()[:200])
    with pytest.raises(UserError, match="broken.zip' cannot be read as a zip archive"):
        load(tmp_path / "broken.zip")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'imagefolder' needs data_dir"):
        data.load("imagefolder")
    with pytest.raises(UserError, match="nowhere' does not exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty' holds no images"):
        load(tmp_path / "empty")
    picture(tmp_path / "one" / "class" / "0.png")
    with pytest.raises(UserError, match="at least two directories of images"):
        load(tmp_path / "one")
    picture(tmp_path / "loose" / "a" / "0.png")
    picture(tmp_path / "loose" / "0.png")
    with pytest.raises(UserError, match="no loose images"):
        load(tmp_path / "loose")


def test_test_classes_must_be_known(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    picture(folder / "val" / "bee" / "0.png")
    with pytest.raises(UserError, match="val/bee/0.png' in the test set .* none of the train set's class directories"):
        load(folder)


def test_damaged_images_and_archives_are_named(tmp_path: Path, own_cache: Path) -> None:
    folder = picture_tree(tmp_path / "pictures")
    bad = folder / "train" / "ant" / "0.png"
    whole = bad.read_bytes()
    for content in (b"", b"not an image", whole[:50]):
        bad.write_bytes(content)
        with pytest.raises(UserError, match="train/ant/0.png' cannot be decoded as an image"):
            load(folder)
    picture(bad, 40_000, mode="I;16")
    with pytest.raises(UserError, match="has pixels of mode I.*; expected 8 bits"):
        load(folder)
    bad.write_bytes(whole)
    archive = pack(folder, tmp_path / "all.tar.gz")
    archive.write_bytes(archive.read_bytes()[:400])
    with pytest.raises(UserError, match="all.tar.gz' cannot be read"):
        load(archive)
    assert not list(own_cache.glob("images/*"))


def test_streamed_images_are_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in (("train", "val"), ("all",)):
        folder = picture_tree(tmp_path / parts[0], parts)
        held, streamed = load(folder, stream=False), load(folder, stream=True)
        assert isinstance(streamed.train, StreamedImageSet) and not isinstance(held.train, StreamedImageSet)
        assert streamed.fingerprint() == held.fingerprint()
        assert not isinstance(load(folder).train, StreamedImageSet)
        monkeypatch.setattr(decoding, "IN_MEMORY_LIMIT", 100)
        assert isinstance(load(folder).test, StreamedImageSet)
        assert not isinstance(load(folder, stream=False).test, StreamedImageSet)
        monkeypatch.undo()
    with pytest.raises(UserError, match="stream is set for 'digits', which is always held in memory"):
        data.load("digits", stream=True)


def test_images_are_streamed_from_a_temporary_file_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = picture_tree(tmp_path / "pictures")
    expected = pack(folder, tmp_path / "all.tar")
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(folder / "train" / "ant" / "0.png"))
    with pytest.warns(UserWarning, match="could not be cached"):
        streamed = load(folder, stream=True)  # from a temporary file
    assert isinstance(streamed.train, StreamedImageSet) and streamed.fingerprint() == load(expected).fingerprint()


@pytest.mark.real_data
def test_the_real_data(real_data: Path) -> None:
    dataset = load(real_data / "tiny-imagenet-100", image_size=32)
    assert dataset.train.images.shape == (25_000, 3, 32, 32) and dataset.num_classes == 100
    assert dataset.test.targets.bincount().tolist() == [50] * 100
