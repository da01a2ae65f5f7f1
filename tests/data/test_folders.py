"""Folders and archives as people have them: parts of many names, what systems leave behind, links, hostile files."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pymixunlearn import data
from pymixunlearn.data import archives, decode
from pymixunlearn.errors import UserError

# Most folders here hold something that is left out, which is told in a warning; where it matters, tests look at notes.
pytestmark = pytest.mark.filterwarnings("ignore:.*left out:UserWarning")


def image(path: Path, seed: int = 0, **save: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)  # type: ignore[arg-type]
    return path


def folder(root: Path, **counts: int) -> Path:
    """Return ``root`` with so many images in each folder; ``__`` in a name stands for ``/``."""
    for name, count in counts.items():
        for number in range(count):
            image(root / name.replace("__", "/") / f"{number}.png", seed=zlib.crc32(f"{name}/{number}".encode()))
    return root


def packed(source: Path) -> Path:
    archive = source.with_suffix(".tar")
    with tarfile.open(archive, "w") as file:
        file.add(source, "data")
    return archive


def zipped(source: Path) -> Path:
    archive = source.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in [source, *sorted(source.rglob("*"))]:
            file.write(path, path.relative_to(source.parent))
    return archive


def load(source: Path, **options: object) -> data.Dataset:
    return data.load("imagefolder", data_dir=source, **options)  # type: ignore[arg-type]


def sizes(dataset: data.Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.test), len(dataset.validation or ())


# Parts


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("test", ["valid", "validation", "VAL", "dev", "Test", "testing", "eval"])
def test_any_usual_name_of_a_part(tmp_path: Path, train: str, test: str) -> None:
    root = folder(tmp_path / "d", **{f"{train}__{name}": 3 for name in "ab"}, **{f"{test}__{name}": 2 for name in "ab"})
    dataset = load(root)
    assert dataset.train.classes == ("a", "b") and sizes(dataset) == (6, 4, 0)
    assert dataset.train.paths is not None and dataset.train.paths[0] == f"{train}/a/0.png"


@pytest.mark.parametrize(("validation", "test"), [("val", "test"), ("Dev", "eval"), ("valid", "Testing")])
def test_a_validation_part_beside_a_test_part_is_kept_apart(tmp_path: Path, validation: str, test: str) -> None:
    parts = {"train": 4, validation: 3, test: 2}
    root = folder(tmp_path / "d", **{f"{part}__{name}": count for part, count in parts.items() for name in "ab"})
    for source in (root, packed(root)):
        dataset = load(source)
        assert sizes(dataset) == (8, 4, 6)
        assert dataset.validation is not None and dataset.validation.classes == ("a", "b")


def test_archives_by_any_usual_name(tmp_path: Path) -> None:
    for part, count in (("Train", 3), ("valid", 2), ("test", 1)):
        packed(folder(tmp_path / "d" / part, a=count, b=count))
        for path in sorted((tmp_path / "d" / part).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert sizes(load(tmp_path / "d")) == (6, 2, 4)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train__a": 2, "train__b": 2, "val__a": 1, "dev__b": 1}, "'dev', 'val', which mean the same part"),
        ({"train__a": 2, "Train__b": 2, "test__a": 1}, "'Train', 'train', which mean the same part"),
        ({"fit__a": 2, "fit__b": 2, "holdout__a": 1, "holdout__b": 1}, "'fit', 'holdout' all hold the same folders"),
        ({"train__a__x": 1, "train__a__y": 1, "train__b__x": 1, "train__b__y": 1}, "'a', 'b' all hold the same"),
        ({"train__a": 2, "train__b": 2, "other__x": 1}, "'train', which holds the folders 'a', 'b', looks like a part"),
        ({"Train data__a": 2, "Train data__b": 2, "held out": 2}, "and 'held out' like no other part"),
        ({"a__train": 2, "b__train": 2, "b__test": 1}, "'b' holds the parts 'test', 'train' of the data; expected"),
    ],
)
def test_parts_that_cannot_be_told_apart_are_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(folder(tmp_path / "d", **counts))


@pytest.mark.parametrize(
    "counts", [{"train": 3, "plane": 3}, {"train__x": 3, "plane": 3}, {"a__x": 1, "a__y": 1, "b": 2}]
)
def test_a_class_may_be_called_train_or_hold_folders(tmp_path: Path, counts: dict[str, int]) -> None:
    assert load(folder(tmp_path / "d", **counts)).num_classes == 2


def test_nested_names_of_classes_mean_the_same_in_every_part(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", train__cat__dog=2, train__dog__cat=2, test__cat__dog=1, test__dog__cat=1, val__cat=1)
    for source in (root, packed(root)):
        dataset = load(source)
        for images in (dataset.train, dataset.test, dataset.validation):
            assert images is not None and images.paths is not None
            first = [next(name for name in path.split("/") if name in ("cat", "dog")) for path in images.paths]
            assert [images.classes[label] for label in images.targets] == first
    with pytest.raises(UserError, match="test/all/cat/dog/0.png' in the test set of .* several classes: 'cat', 'dog'"):
        load(folder(tmp_path / "e", train__cat=2, train__dog=2, test__all__cat__dog=1))


def test_a_test_part_without_images_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", train__a=3, train__b=3)
    (root / "test" / "a").mkdir(parents=True)
    for source in (root, packed(root)):
        with pytest.raises(UserError, match="'.*test' without an image that can be read beside a training part"):
            load(source)


def test_images_beside_the_parts_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", train__a=3, train__b=3, test__a=1, test__b=1, unlabelled=2)
    assert load(root).notes == ("images beside the parts 'test', 'train': 'unlabelled'",)


# What is no data


def litter(root: Path) -> Path:
    folder(root, cat=4, dog=4)
    (root / "bee").mkdir()
    (root / "ant").mkdir()
    (root / "ant" / "0.heic").write_bytes(b"x")
    for path in ("@eaDir/cat/0.png", ".ipynb_checkpoints/a.png", "cat/.ipynb_checkpoints/0.png", "__MACOSX/cat/0.png"):
        image(root / path)
    (root / "cat" / "._0.png").write_bytes(b"x")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.mark.parametrize("packing", [lambda root: root, packed, zipped], ids=["folder", "archive", "zip"])
def test_what_is_no_data_is_named_and_no_class(tmp_path: Path, packing: Callable[[Path], Path]) -> None:
    source = packing(litter(tmp_path / "d"))
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(UserWarning, match="d.*': left out "):
            dataset = load(source)
        assert dataset.train.classes == ("cat", "dog") and sum(sizes(dataset)) == 8
        text = "; ".join(dataset.notes)
        for name in ("bee", "ant", "@eaDir", ".ipynb_checkpoints", "cat/.ipynb_checkpoints", "__MACOSX", "cat/._0.png"):
            assert f"{name}'" in text
        assert "(files of .heic)" in text


@pytest.mark.parametrize("packing", [lambda root: root, packed], ids=["folder", "archive"])
def test_pictures_of_other_formats_beside_images_are_counted(tmp_path: Path, packing: Callable[[Path], Path]) -> None:
    root = folder(tmp_path / "d", ant=4, bee=4)
    for name in ("ant/0.HEIC", "ant/1.heic", "bee/2.avif", "bee/photo", "bee/labels.txt", "README"):
        (root / name).write_bytes(b"x")
    said = "files beside the images that are not read: 1 of '.avif', 2 of '.heic', 1 of 'photo'"
    assert load(packing(root)).notes == (said,)


def test_a_jfif_is_a_jpeg(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    image(root / "ant" / "0.jpg").rename(root / "ant" / "0.jfif")
    assert load(root).train.classes == ("ant", "cat", "dog")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_images_are_upright(suffix: str, orientation: int, turns: int) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), exif=exif)
    upright = decode.decode_square(file.getvalue(), None)
    assert np.abs(upright[0].astype(int) - np.rot90(pixels, turns)).max() < 20


# Links


def test_each_real_folder_is_read_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", cat=4, dog=4)
    expected = load(root).fingerprint()
    (root / "cat" / "loop").symlink_to("..")
    (root / "cat" / "other").symlink_to("../dog")
    (root / "dog" / "other").symlink_to("../cat")
    (root / "above").symlink_to(tmp_path)
    (root / "itself").symlink_to("itself")
    dataset = load(root, follow_links=True)
    assert dataset.fingerprint() == load(root).fingerprint() == expected
    text = "; ".join(dataset.notes)
    for name in ("cat/loop", "cat/other", "dog/other", "above", "itself"):
        assert f"'{name}'" in text


def test_links_within_the_root_are_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", cat=3, **{".store__birds": 3})
    (root / "bird").symlink_to(".store/birds")
    assert load(root).train.classes == ("bird", "cat")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_links_lead_out_of_the_root_only_when_allowed(tmp_path: Path, what: str) -> None:
    root, outside = folder(tmp_path / "d", cat=3, dog=3), folder(tmp_path / "outside", a=3)
    if what == "folder":
        (root / "bird").symlink_to(outside / "a")
    else:
        (root / "bird").mkdir()
        (root / "bird" / "0.png").symlink_to(outside / "a" / "0.png")
    with pytest.raises(UserError, match=r"links that lead out of it: 'bird.*--follow-links"):
        load(root)
    assert load(root, follow_links=True).train.classes == ("bird", "cat", "dog")
    with pytest.raises(UserError, match="follow_links is set for 'digits'"):
        data.load("digits", follow_links=True)


# Hostile files


@pytest.mark.parametrize("what", ["pipe", "device", "nothing"])
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, what: str) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    path = root / "cat" / "x.png"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if what == "device" else "nowhere.png")
    with pytest.raises(UserError, match="pipes, devices or links to nothing .*: 'cat/x.png'"):
        load(root, follow_links=True)


def test_what_is_too_large_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    Image.new("1", (60, 40)).save(root / "cat" / "x.png")
    (root / "dog" / "y.png").write_bytes(b"0" * 5000)
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 50 * 40)
    monkeypatch.setattr("pymixunlearn.data.decoding.FILE_LIMIT", 4000)
    monkeypatch.setattr(archives, "FILE_LIMIT", 4000)
    for source in (root, packed(root), zipped(root)):
        with pytest.raises(UserError) as caught:
            load(source)
        assert "cat/x.png' has 60 x 40 pixels; expected at most 2000" in str(caught.value)
        assert "dog/y.png' has 5000 bytes; expected at most 4000" in str(caught.value)


@pytest.mark.parametrize("kind", ["eps", "pdf", "ico", "tga"])
def test_no_other_decoder_runs(tmp_path: Path, kind: str) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    Image.new("RGB", (16, 16)).save(root / "cat" / "x.png", kind)
    with pytest.raises(UserError, match="cat/x.png' cannot be decoded as an image .it is none of JPEG, PNG, BMP, GIF"):
        load(root)


def test_all_unreadable_images_are_named_at_once_or_counted(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", cat=6, dog=6)
    bad = [root / "cat" / "1.png", root / "dog" / "2.png"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:40])
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(root / "dog" / "deep.png")
    for source in (root, packed(root)):
        with pytest.raises(UserError) as caught:
            load(source)
        for name in ("cat/1.png", "dog/2.png", "dog/deep.png", "8 bits", "3 of 13 images", "--skip-unreadable"):
            assert name in str(caught.value)
        for _ in range(2):
            dataset = load(source, skip_unreadable=True)
            assert sum(sizes(dataset)) == 10 and len(dataset.notes) == 1
            assert dataset.notes[0].startswith("3 images that cannot be read: ") and "cat/1.png" in dataset.notes[0]


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA", "L", "1"])
def test_images_of_many_modes(tmp_path: Path, mode: str) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode).save(
        root / "cat" / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    )
    assert load(root).in_channels == 3


def test_hard_links_of_an_archive_are_images(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    os.link(root / "cat" / "0.png", root / "dog" / "same.png")
    assert load(packed(root)).fingerprint() == load(root).fingerprint()


@pytest.mark.parametrize("name", [b"\xc4\xe3", b"a$b", b"\x1b[31m", b"new\nline", "日本".encode()])
def test_names_of_any_bytes(tmp_path: Path, name: bytes) -> None:
    root = folder(tmp_path / "d", cat=4, dog=4)
    os.rename(root / "cat" / "0.png", os.fsencode(root / "cat") + b"/" + name + b".png")
    os.rename(root / "cat", os.fsencode(root) + b"/" + name)
    for source in (root, packed(root)):
        dataset = load(source)
        assert os.fsdecode(name) in dataset.train.classes and sum(sizes(dataset)) == 8
        assert load(source).fingerprint() == dataset.fingerprint()
    Path(os.fsdecode(os.fsencode(root) + b"/" + name + b"/" + name + b".png")).write_bytes(b"damaged")
    with pytest.raises(UserError) as caught:
        load(root)
    assert str(caught.value).isprintable()


# The held-out part


def test_a_deleted_file_moves_no_other(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", cat=30, dog=30)
    first = load(root)
    assert first.train.paths is not None and first.test.paths is not None
    assert 4 <= len(first.test) <= 24 and set(first.test.targets.tolist()) == {0, 1}
    gone = {first.train.paths[0], first.train.paths[-1], first.test.paths[0]}
    for path in gone:
        (root / path).unlink()
    second = load(root)
    assert second.train.paths == tuple(path for path in first.train.paths if path not in gone)
    assert second.test.paths == tuple(path for path in first.test.paths if path not in gone)


def test_every_class_of_two_is_in_both_parts() -> None:
    for names in (("x", "y"), ("0", "1"), ("p", "q")):
        images = data.ImageSet(torch.zeros(3, 1, 2, 2), torch.tensor([0, 0, 1]), ("a", "b"), (*names, "z"))
        train, test = data.hold_out(images, fraction=0.5)
        assert sorted(train.targets.tolist()) == [0, 1] and test.targets.tolist() == [0]


def test_each_purpose_holds_out_other_images() -> None:
    paths = tuple(f"a/{number}.png" for number in range(400))
    images = data.ImageSet(torch.zeros(400, 1, 1, 1), torch.zeros(400).long(), ("a",), paths)
    train, test = data.hold_out(images)
    rest, validation = data.hold_out(train, purpose="validation")
    assert 50 < len(test) < 110 and 40 < len(validation) < 90 and len(rest) == 400 - len(test) - len(validation)


# The cache


def test_a_flipped_bit_is_found_and_the_images_are_decoded_again(tmp_path: Path, own_cache: Path) -> None:
    root = folder(tmp_path / "d", cat=3, dog=3)
    expected = load(root)
    (cached,) = (own_cache / "images").glob("*.safetensors")
    whole = cached.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in (start, len(whole) - 1, whole.index(b"cat/0.png"), whole.index(b"sha256") + 12):
        cached.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match="cached images of .* are damaged and are decoded again"):
            again = load(root)
        assert again.fingerprint() == expected.fingerprint() and again.train.paths == expected.train.paths
        assert cached.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(root)


def test_a_user_without_a_home_folder_has_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PYMIXUNLEARN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert data.cache_dir() == tmp_path / "pymixunlearn"
