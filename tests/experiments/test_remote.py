"""What goes to another machine and comes back, without a cluster; with one: test_ray.py."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn.data import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import BadRequest, CompareInputs, ModelRequest, Observer, Plan, run_unlearning
from pymixunlearn.experiments.common.cache_exchange import ExchangedCache, entry_names, exchanging, read_entry
from pymixunlearn.experiments.common.placement import Placement
from pymixunlearn.experiments.common.ray_worker import Desk
from pymixunlearn.experiments.common.shipping import pack, unpack, user_modules
from pymixunlearn.experiments.unlearn.remote import prepare_remote, receive_run, run_remotely
from pymixunlearn.models import build
from pymixunlearn.training import TrainResult
from pymixunlearn.user_files import import_file

# Where


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"on": "rey"}, "on is 'rey'; expected local, ray or ray://HOST:PORT"),
        ({"on": "ray://host"}, "on is 'ray://host'; expected"),
        ({"gpus": 1}, "gpus are declared for tasks of Ray; expected on=ray"),
        ({"on": "ray", "gpus": 1.5}, "gpus is 1.5; expected a share above 0 and below 1, or a whole number"),
        ({"on": "ray", "gpus": 0.0}, "gpus is 0; expected a share above 0"),
    ],
)
def test_a_placement_that_does_not_exist_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        Placement(**fields)
    with pytest.raises(BadRequest, match=message):
        _ = CompareInputs(**fields).placement


def test_tasks_declare_a_gpu_where_they_compute_on_one() -> None:
    assert Placement("ray").gpus_on("cpu") == 0 and Placement("ray").gpus_on("cuda") == 1
    assert Placement("ray", 0.25).gpus_on("cuda:0") == 0.25
    with pytest.raises(BadRequest, match="gpus is 0.25, and the device is cpu"):
        Placement("ray", 0.25).gpus_on("cpu")
    with pytest.raises(BadRequest, match="device is 'cuda:1'; with on=ray expected cuda"):
        Placement("ray").gpus_on("cuda:1")


def test_without_ray_one_line_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--on ray needs ray, .*pip install 'pymixunlearn\[ray\]'$"):
        Placement("ray").check("cpu")
    Placement().check("cpu")


# What goes there


def test_images_travel_once_and_are_the_same() -> None:
    images = ImageSet(
        torch.arange(2**17, dtype=torch.int64).to(torch.uint8).reshape(8, 1, 128, 128), torch.arange(8) % 2, ("a", "b")
    )
    few = images.subset(torch.tensor([1]))
    shared: list[torch.Tensor] = []

    def share(tensor: torch.Tensor) -> int:
        shared.append(tensor)
        return len(shared) - 1

    content = pack({"one": images, "few": few}, pickle.Pickler, share)
    assert len(shared) == 1 and len(content) < 2**16
    found = unpack(content, lambda number: shared[number].numpy())
    assert torch.equal(found["one"].images, images.images) and torch.equal(found["few"].images, few.images)
    assert found["one"].fingerprint() == images.fingerprint()


def test_what_cannot_be_sent_is_said_in_one_sentence() -> None:
    with pytest.raises(UserError, match="this model, method or data cannot be sent to another machine"):
        pack(lambda: 1, pickle.Pickler, lambda tensor: 0)


def test_modules_of_the_user_are_found_elsewhere_by_content(tmp_path: Path) -> None:
    (tmp_path / "helping_hand.py").write_text("ANSWER = 42\n")
    file = tmp_path / "plugged.py"
    file.write_text("from helping_hand import ANSWER\n\n\nclass Thing:\n    value = ANSWER\n")
    module = import_file(file)
    sources = user_modules()
    assert {module.__name__, "helping_hand"} <= set(sources)
    assert not {"torch", "json", "pymixunlearn.data", "pytest", "__main__"} & set(sources)
    sent = pickle.dumps((sources, pickle.dumps(module.Thing())))
    (tmp_path / "sent").write_bytes(sent)
    file.unlink()
    (tmp_path / "helping_hand.py").unlink()
    code = (
        "import pickle, sys\n"
        "from pymixunlearn.experiments.common.shipping import install\n"
        "from pymixunlearn.user_files import import_file\n"
        "from pathlib import Path\n"
        "kept, thing = pickle.load(open(sys.argv[1], 'rb'))\n"
        "install({name: kept[name] for name in kept if name in sys.argv[2:]})\n"
        "print(pickle.loads(thing).value, import_file(Path(sys.argv[1]).parent / 'plugged.py').Thing.value)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "sent"), module.__name__, "helping_hand"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["42", "42"]


def test_a_run_elsewhere_leaves_the_folder_of_one_here(small_plan: Callable[..., Plan], tmp_path: Path) -> None:
    plan = small_plan(method="neggrad")
    here = run_unlearning(plan, tmp_path / "here", command_line="c", guard=False)
    sent = pickle.loads(pickle.dumps(prepare_remote(small_plan(method="neggrad"))))
    files = run_remotely(sent, "c", Observer())
    there = receive_run(plan, tmp_path / "there", files)
    assert {path.name for path in here.folder.iterdir()} == {path.name for path in there.folder.iterdir()}
    for name in ("metrics", "details", "acceptance"):
        assert here.record.get(name) == there.record.get(name)
    assert here.record["hashes"]["unlearned"] == there.record["hashes"]["unlearned"]
    ours, theirs = (json.loads((run.folder / "config.json").read_text("utf-8")) for run in (here, there))
    assert ours == theirs
    assert (there.folder / "forget.key").stat().st_mode & 0o777 == 0o600
    assert receive_run(plan, tmp_path / "there", files).record == there.record  # of another command, meanwhile


def test_weights_that_another_program_made_go_along(
    small_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build("cnn", num_classes=10, in_channels=1, image_size=8, seed=3)
    file = tmp_path / "theirs" / "net.pt"
    file.parent.mkdir()
    torch.save(network.state_dict(), file)
    plan = small_plan({"epochs": 1}, method="neggrad", model=ModelRequest("cnn", weights=file), retrain="none")
    sent = pickle.dumps(prepare_remote(plan))
    config = plan.origin
    file.rename(tmp_path / "elsewhere.pt")
    monkeypatch.chdir(tmp_path)
    files = run_remotely(pickle.loads(sent), "c", Observer())
    assert "original-form/net.pt" in files and json.loads(files["config.json"])["weights"] == config["weights"]


def test_a_file_that_every_run_reads_is_refused(small_plan: Callable[..., Plan]) -> None:
    plan = small_plan(method="neggrad")
    plan.initial.architecture["pretrained"] = "/home/me/start.pt"
    with pytest.raises(UserError, match="starts from a file of weights .* on another machine; expected on=local"):
        prepare_remote(plan)


# Entries of the cache


class Fetched:
    """Exchange whose other side is a dict."""

    def __init__(self, entries: Mapping[str, Mapping[str, bytes]]) -> None:
        self.entries = dict(entries)
        self.asked: list[tuple[str, bool]] = []
        self.given: list[str] = []

    def bring(self, name: str, *, to_make: bool) -> Mapping[str, bytes]:
        self.asked.append((name, to_make))
        return self.entries.get(name, {})

    def give(self, name: str, files: Mapping[str, bytes]) -> None:
        if files:
            self.given.append(name)
            self.entries[name] = dict(files)


def test_a_model_is_trained_by_one_machine_and_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Fetched({})
    trained = []

    def train(**_: Any) -> TrainResult:
        trained.append(1)
        return TrainResult(build("cnn", num_classes=10, in_channels=1, image_size=8), 2.5, [])

    found = []
    for machine in ("a", "b"):
        monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / machine))
        with exchanging(exchange):
            cache = ExchangedCache(tmp_path / machine / "models", origin={"of": "digits"})
            found.append(cache.get_or_train({"seed": 1}, train))
        (name,) = entry_names()
        assert set(read_entry(name)) == {".safetensors", ".json", ".about"}
    assert len(trained) == 1 and [one.hit for one in found] == [False, True] and found[1].seconds == 2.5
    assert exchange.given == [name] and exchange.asked == [(name, True)] * 2
    with exchanging(exchange):
        cache.put({"seed": 2}, TrainResult(nn.Identity(), 0.0, []))
    assert len(exchange.given) == 2 and entry_names() == set(exchange.given)


def test_the_desk_has_one_worker_make_an_entry_and_the_others_wait() -> None:
    desk = Desk(["models/known"])
    assert desk.ask("models/known", 0, True) == ("coming", []) and desk.take().wanted == ["models/known"]
    desk.supply("models/known", ["reference"])
    assert desk.ask("models/known", 0, True) == ("here", ["reference"]) and not desk.take().wanted
    assert desk.ask("models/new", 0, True)[0] == "made" and desk.ask("models/new", 1, True)[0] == "coming"
    assert desk.ask("models/new", 2, False)[0] == "absent"
    desk.release(0)  # its machine was lost
    assert desk.ask("models/new", 1, True)[0] == "made"
    desk.give("models/new", {".json": b""})
    news = desk.take()
    assert news.made == [("models/new", {".json": b""})] and not desk.take().made
    assert desk.ask("models/new", 3, True)[0] == "coming" and desk.take().wanted == ["models/new"]
    desk.supply("models/new", [])  # the calling process could not store it
    assert desk.ask("models/new", 3, True)[0] == "made"
    desk.give("models/new", {})  # its training was interrupted
    assert desk.ask("models/new", 4, True)[0] == "made"
    desk.post([(1, "half")])
    assert desk.take().events == [(1, "half")]
