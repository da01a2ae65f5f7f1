from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import models
from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.data.cache_origin import read_origin
from pymixunlearn.errors import UserError
from pymixunlearn.models.registry import beyond_weights
from pymixunlearn.training import (
    Callback,
    ModelCache,
    StateDict,
    TrainConfig,
    TrainResult,
    model_hash,
    train,
    training_key,
)

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=3)
KEY = {"model": "cnn", "seed": 0}


def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(40) % 3, ("a", "b", "c"))


def fresh(seed: int = 0) -> nn.Module:
    return models.build("cnn", num_classes=3, in_channels=1, image_size=8, seed=seed)


class Stop(Callback):
    def __init__(self, after_epoch: int) -> None:
        self.after_epoch = after_epoch

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        if epoch == self.after_epoch:
            raise KeyboardInterrupt


class Training:
    """What a caller hands to the cache; counts its calls and notes where each one started."""

    def __init__(self, stop_after_epoch: int = -1, config: TrainConfig = CONFIG) -> None:
        self.stop = Stop(stop_after_epoch)
        self.config = config
        self.starts: list[int] = []

    def __call__(self, *, callbacks: Sequence[Callback], resume: StateDict | None) -> TrainResult:
        self.starts.append(0 if resume is None else len(resume["history"]))
        watchers = [*callbacks, self.stop]
        return train(fresh(), images(), Preprocess(), self.config, device=CPU, callbacks=watchers, resume=resume)


def files(root: Path) -> list[str]:
    return sorted(path.suffix for path in root.iterdir())


def test_a_model_is_trained_once(tmp_path: Path) -> None:
    training = Training()
    first = ModelCache(tmp_path / "deep" / "cache").get_or_train(KEY, training)
    second = ModelCache(tmp_path / "deep" / "cache").get_or_train(dict(reversed(KEY.items())), training)
    assert (first.hit, second.hit) == (False, True)
    assert training.starts == [0]
    assert model_hash(first.model) == model_hash(second.model) == model_hash(training(callbacks=[], resume=None).model)
    assert (first.seconds, first.history) == (second.seconds, second.history)
    assert not first.model.training and not second.model.training
    assert set(files(tmp_path / "deep" / "cache")) - {".lock"} == {".json", ".safetensors"}


def test_another_key_is_another_model(tmp_path: Path) -> None:
    training = Training()
    cache = ModelCache(tmp_path)
    cache.get_or_train(KEY, training)
    assert not cache.get_or_train({**KEY, "seed": 1}, training).hit


def test_the_record_holds_the_key_in_full(tmp_path: Path) -> None:
    result = ModelCache(tmp_path).get_or_train(KEY, Training())
    record = json.loads(next(tmp_path.glob("*.json")).read_text())["content"]
    assert (record["key"], record["seconds"], record["history"]) == (KEY, result.seconds, result.history)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "empty", "exchange"])
def test_damaged_entries_are_trained_again(
    suffix: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training, cache = Training(), ModelCache(tmp_path)
    expected = model_hash(cache.get_or_train(KEY, training).model)
    path = next(tmp_path.glob(f"*{suffix}"))
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-7])
    elif damage == "flip":  # in the last tensor, or among the numbers of the history
        position = len(content) - 40 if suffix == ".safetensors" else content.index(b'"loss": ') + 10
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    elif damage == "remove":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:  # an intact file of another entry
        other = ModelCache(tmp_path / "other")
        other.get_or_train({**KEY, "seed": 1}, Training(config=TrainConfig(epochs=1)))
        path.write_bytes(next((tmp_path / "other").glob(f"*{suffix}")).read_bytes())
    with caplog.at_level(logging.WARNING):
        again = cache.get_or_train(KEY, training)
    assert not again.hit
    assert training.starts == [0, 0]
    assert model_hash(again.model) == expected
    assert ("is corrupt" in caplog.text) == (not (suffix == ".json" and damage == "remove"))
    assert cache.get_or_train(KEY, training).hit


def test_an_interrupted_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole = ModelCache(tmp_path / "whole").get_or_train(KEY, Training())
    cache, training = ModelCache(tmp_path / "parts"), Training(stop_after_epoch=1)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_train(KEY, training)
    assert ".partial" in files(tmp_path / "parts")
    training.stop.after_epoch = -1
    resumed = cache.get_or_train(KEY, training)
    assert training.starts == [0, 2]
    assert not resumed.hit
    assert model_hash(resumed.model) == model_hash(whole.model)
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]
    assert ".partial" not in files(tmp_path / "parts")


@pytest.mark.parametrize("damage", ["flip", "cut", "code"])
def test_a_damaged_snapshot_is_not_used(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, training = ModelCache(tmp_path), Training(stop_after_epoch=0)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_train(KEY, training)
    path = next(tmp_path.glob("*.partial"))
    content = path.read_bytes()
    position = len(content) // 2
    path.write_bytes(
        {
            "flip": content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :],
            "cut": content[:position],
            "code": b"cos\nsystem\n(S'false'\ntR.",
        }[damage]
    )
    training.stop.after_epoch = -1
    with caplog.at_level(logging.WARNING):
        cache.get_or_train(KEY, training)
    assert training.starts == [0, 0]
    assert "is damaged; training starts again" in caplog.text


def test_a_snapshot_that_the_training_rejects_is_not_used(tmp_path: Path) -> None:
    cache, training = ModelCache(tmp_path), Training(stop_after_epoch=0)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_train(KEY, training)
    other = Training(config=TrainConfig(epochs=4))
    assert len(cache.get_or_train(KEY, other).history) == 4
    assert other.starts == [1, 0]


def test_a_failed_training_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    def fails(*, callbacks: Sequence[Callback], resume: StateDict | None) -> TrainResult:
        raise UserError("lr is too large")

    cache = ModelCache(tmp_path)
    with pytest.raises(UserError, match="lr is too large"):
        cache.get_or_train(KEY, fails)
    assert set(files(tmp_path)) <= {".lock"}
    assert not cache.get_or_train(KEY, Training()).hit


def test_a_users_network_is_filled_on_a_hit(tmp_path: Path) -> None:
    def build(*, callbacks: Sequence[Callback], resume: StateDict | None) -> TrainResult:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        return train(model, images(), Preprocess(), CONFIG, device=CPU, callbacks=callbacks, resume=resume)

    cache = ModelCache(tmp_path)
    first = cache.get_or_train(KEY, build)
    template = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    second = cache.get_or_train(KEY, build, into=template)
    assert second.hit and second.model is template
    assert model_hash(template) == model_hash(first.model)


def test_a_folder_that_cannot_be_made_is_bypassed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache, training = ModelCache(tmp_path / "file"), Training()
    assert model_hash(cache.get_or_train(KEY, training).model) == model_hash(cache.get_or_train(KEY, training).model)
    cache.put(KEY, TrainResult(fresh(), 1.0, []))
    assert cache.get(KEY) is None and training.starts == [0, 0]
    (message,) = (record.getMessage() for record in caplog.records)  # one line, however often
    assert message == f"models are not stored in the cache '{cache.root}', only read from it: File exists"


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be opened for reading only, as on a read-only file system; the tests may run as root."""
    opened = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *arguments, **options)

    def refuse_to_remove(path: Any, *arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "unlink", refuse_to_remove)


def test_a_read_only_folder_is_read_and_bypassed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, training, key = ModelCache(tmp_path), Training(stop_after_epoch=1), {**KEY, "seed": 1}
    stored = cache.get_or_train(KEY, Training())
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_train(key, training)
    for left in tmp_path.glob("*.lock"):
        left.unlink()
    before = sorted(tmp_path.iterdir())
    read_only(monkeypatch)
    found = cache.get_or_train(KEY, training)
    assert found.hit and model_hash(found.model) == model_hash(stored.model)
    training.stop.after_epoch = -1
    resumed = cache.get_or_train(key, training)  # from the snapshot, which stays as it is
    assert not resumed.hit and training.starts == [0, 2]
    assert model_hash(resumed.model) == model_hash(stored.model)
    assert sorted(tmp_path.iterdir()) == before
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == f"models are not stored in the cache '{tmp_path}', only read from it: Read-only file system"


@pytest.mark.parametrize("failing", ["snapshot", "model"])
def test_a_full_disk_does_not_end_a_training(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, replace = model_hash(ModelCache(tmp_path / "other").get_or_train(KEY, Training()).model), os.replace

    def full(old: Any, new: Any) -> None:
        if Path(new).suffix == (".partial" if failing == "snapshot" else ".safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device", str(new))
        replace(old, new)

    monkeypatch.setattr(os, "replace", full)
    cache, training = ModelCache(tmp_path / "cache"), Training()
    assert model_hash(cache.get_or_train(KEY, training).model) == expected and training.starts == [0]
    (message,) = (record.getMessage() for record in caplog.records)
    assert "cannot be written: No space left on device" in message
    assert ("training goes on: free some space" in message) == (failing == "snapshot")
    assert cache.get_or_train(KEY, training).hit == (failing == "snapshot")
    assert training.starts[1:] == ([] if failing == "snapshot" else [3])  # the last epoch's snapshot is there
    assert not list(cache.root.glob(".*"))


def test_a_snapshot_beside_a_stored_model_is_removed(tmp_path: Path) -> None:
    cache, kept = ModelCache(tmp_path), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_train(KEY, Training(stop_after_epoch=1))
    snapshot = next(tmp_path.glob("*.partial"))
    shutil.copy(snapshot, kept)
    cache.get_or_train(KEY, Training())
    shutil.move(kept, snapshot)  # as a kill leaves it between the model and the end
    assert cache.get_or_train(KEY, Training()).hit and not snapshot.exists()


def test_everything_that_determines_the_model_is_in_the_key() -> None:
    def key(
        model: nn.Module | None = None,
        pixels: ImageSet | None = None,
        preprocess: Preprocess | None = None,
        config: TrainConfig = CONFIG,
        seed: int = 0,
    ) -> str:
        parts = model or fresh(), pixels or images(), preprocess or Preprocess(), config
        return json.dumps(training_key(*parts, device=CPU, seed=seed), sort_keys=True, allow_nan=False)

    relabelled = images().with_targets((torch.arange(40) + 1) % 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    more_threads = key()
    torch.set_num_threads(threads)
    changed = [
        key(model=fresh(seed=1)),
        key(pixels=images().subset(torch.arange(39))),
        key(pixels=relabelled),
        key(preprocess=Preprocess(flip=True)),
        key(seed=1),
        more_threads,
    ]
    for field, value in {"epochs": 9, "lr": 1.0, "weight_decay": 0.5, "batch_size": 7, "optimizer": "sgd"}.items():
        changed.append(key(config=dataclasses.replace(CONFIG, **{field: value})))  # type: ignore[arg-type]
    assert key() == key()
    assert len({key(), *changed}) == len(changed) + 1


def _net(activation: nn.Module, *, scale: float = 1.0) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
            self.activation = activation

        def forward(self, images: Tensor) -> Tensor:
            return scale * self.activation(self.layers(images))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def test_networks_with_the_same_weights_are_told_apart_by_structure_and_code() -> None:
    def key(model: nn.Module) -> str:
        return json.dumps(training_key(model, images(), Preprocess(), CONFIG, device=CPU, seed=0), sort_keys=True)

    built, changed = (models.build("cnn", num_classes=3, in_channels=1, image_size=8) for _ in range(2))
    changed.features.relu1 = nn.Sigmoid()
    different = [_net(nn.ReLU()), _net(nn.Sigmoid()), _net(nn.ReLU(), scale=2.0), built, changed]
    assert len({key(model) for model in different}) == 5
    assert key(_net(nn.ReLU())) == key(_net(nn.ReLU()))
    assert not beyond_weights(built)


PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_cache import KEY, Training
from pymixunlearn.training import ModelCache, model_hash
training = Training()
print("ready", flush=True)
sys.stdin.readline()
result = ModelCache(Path(sys.argv[2])).get_or_train(KEY, training)
print(result.hit, len(training.starts), model_hash(result.model))
"""


def test_two_processes_at_once_train_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sorted(result[:2] for result in results) == [["False", "1"], ["True", "0"]]
    assert results[0][2] == results[1][2]


def test_models_that_were_trained_elsewhere_can_be_kept(tmp_path: Path) -> None:
    cache, key = ModelCache(tmp_path / "cache"), {"shard": 1}
    assert cache.get(key) is None
    assert not (tmp_path / "cache").exists()  # a question leaves nothing behind
    model = fresh(3)
    cache.put(key, TrainResult(model, 2.5, [{"loss": 1.0}]))
    found = cache.get(key)
    assert found is not None and found.hit
    assert (model_hash(found.model), found.seconds, found.history) == (model_hash(model), 2.5, [{"loss": 1.0}])
    assert cache.get({"shard": 2}) is None

    cache.put(key, TrainResult(fresh(4), 3.5, []))
    assert model_hash(cache.get(key, into=fresh()).model) == model_hash(fresh(4))  # type: ignore[union-attr]
    assert cache.get_or_train(key, Training()).seconds == 3.5


def test_a_kept_model_that_is_damaged_is_not_found(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    cache.put(KEY, TrainResult(fresh(), 1.0, []))
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert cache.get(KEY) is None


def test_what_a_model_is_made_of_is_noted_beside_it(tmp_path: Path) -> None:
    origin = {"dataset": "pets", "source": "/pets", "model": "initial"}
    cache = ModelCache(tmp_path, origin=origin)
    cache.put({"a": 1}, TrainResult(fresh(), 1.0, []))
    cache.get_or_train({"b": 1}, lambda **_: TrainResult(fresh(), 1.0, []))
    for record in tmp_path.glob("*.json"):
        assert read_origin(record) == origin
    assert len(list(tmp_path.glob("*.about"))) == 2
    (note,) = list(tmp_path.glob("*.about"))[:1]
    note.write_bytes(note.read_bytes() + b" ")  # a note that is damaged is none, and the next use writes it again
    assert read_origin(note) is None
    cache.get_or_train({"a": 1}, lambda **_: pytest.fail("is cached"))
    cache.get_or_train({"b": 1}, lambda **_: pytest.fail("is cached"))
    assert read_origin(note) == origin
