"""A user's file brings a method, a data set and a metric, which commands take like the built-in ones."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from pymixunlearn import data, methods, models, tasks
from pymixunlearn.data import registry as data_registry
from pymixunlearn.evaluation import plugged
from pymixunlearn.experiments import Observer, UnlearnInputs, resolve_unlearning
from pymixunlearn.experiments.common import plugins
from pymixunlearn.experiments.common.identity import identity_hash
from pymixunlearn.experiments.common.stages import unlearn_cached
from pymixunlearn.methods import registry as method_registry
from pymixunlearn.methods.base import MethodOutput, UnlearnJob
from pymixunlearn.training import model_hash
from pymixunlearn.user_files import import_file
from tests.cli.conftest import Invoke

PLUGIN = '''
from dataclasses import dataclass

import torch

from pymixunlearn import data, evaluation, methods


@dataclass(frozen=True)
class PushConfig(methods.LoopConfig):
    epochs: int = methods.setting(1, "passes over the forget set", low=1)
    lr: float = methods.setting(1e-3, "learning rate (Adam)", above=0)


@methods.method("push-away", summary="ascends on the forgotten data")
class PushAway(methods.Loop[PushConfig]):
    config_class = PushConfig
    epoch_of = "forget"

    def setup(self):
        self.optimizer = self.add_optimizer("adam", self.config.lr)

    def step(self, forget):
        loss = -methods.cross_entropy(self.model(forget.images), forget)
        methods.descend(self.optimizer, loss)
        return {"forget": loss}


@data.register("stripes")
def load_stripes(request):
    """Two kinds of stripes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(120, 1, 8, 8, generator=generator)
    labels = torch.arange(120) % 2
    images[labels == 0, :, ::2] += 1
    images[labels == 1, :, :, ::2] += 1
    return data.from_tensors(images[:80], labels[:80], images[80:], labels[80:], name=request.name)


@evaluation.metric("forget_confidence", summary="mean largest probability on D_f")
def forget_confidence(predictions):
    return float(predictions.forget_probabilities.max(dim=1).values.mean())
'''


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file registers in this process is gone after the test."""
    for module, name in ((method_registry, "_METHODS"), (data_registry, "_LOADERS"), (plugged, "_PLUGGED")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(PLUGIN)
    return path


def file_module(path: Path) -> str:
    """Name of the module that a file is imported as."""
    return import_file(path).__name__


FEW = ("--set", "initial.epochs=1", "--set", "retrain.epochs=1", "--device", "cpu")


def test_lists_show_what_a_file_brings(invoke: Invoke, plugin: Path) -> None:
    for kind, name, meaning in (
        ("methods", "push-away", "ascends on the forgotten data"),
        ("datasets", "stripes", "Two kinds of stripes"),
        ("metrics", "forget_confidence", "mean largest probability on D_f"),
    ):
        result = invoke("list", kind, "--plugin", str(plugin))
        assert result.exit_code == 0, result.output
        text = " ".join(result.stdout.split())
        assert re.search(rf"{name} {meaning} \[.*own.py\]", text) and "[built in]" in text


def test_a_run_with_a_plugged_method_data_set_and_metric(invoke: Invoke, plugin: Path) -> None:
    names = ("--method", "push-away", "--dataset", "stripes", "--plugin", str(plugin))
    result = invoke("unlearn", *names, *FEW, "--set", "epochs=2", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "forget_confidence" in result.stdout
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert 0 < metrics["metrics"]["unlearned"]["forget_confidence"] <= 1
    assert metrics["gap"]["unlearned"]["forget_confidence"] is not None
    assert "forget_confidence" in Path("run/report.html").read_text("utf-8")
    record = json.loads(Path("run/report.json").read_text())
    assert record["metrics"]["retrain"]["forget_confidence"] > 0
    again = invoke("unlearn", "--config", "run/config.json", "--out", "run")
    assert again.exit_code == 0 and "finished already" in again.stdout, again.output


@pytest.mark.slow
def test_a_plugged_method_is_compared_in_other_processes_and_tuned(invoke: Invoke, plugin: Path) -> None:
    common = ("--plugin", str(plugin), *FEW[2:], "--set", "initial.epochs=1")
    result = invoke("compare", "--methods", "push-away,neggrad", "--seeds", "0", "--jobs", "2", *common, "--out", "c")
    assert result.exit_code == 0, result.output
    table = Path("c/table.md").read_text()
    assert "push-away" in table and "forget_confidence" in table
    result = invoke("tune", "push-away", "--grid", "epochs=1,2", "--sampler", "grid", *common, "--out", "t")
    assert result.exit_code == 0, result.output


def test_another_version_of_a_method_is_another_run_and_unlearns_anew(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that a caller defines, in a notebook for example, and changes between two calls."""
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    split = tasks.class_split(data.load("digits"))
    network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

    def define(rate: float) -> tuple[str, str]:
        @methods.method("mine", summary="scales all weights")
        class Mine(methods.Method):
            config_class = methods.MethodConfig

            def _run(self, job: UnlearnJob) -> MethodOutput:
                with torch.no_grad():
                    for parameter in job.model.parameters():
                        parameter *= rate
                return MethodOutput(job.model, [], self.config)

        plan = resolve_unlearning(UnlearnInputs("mine", device="cpu", retrain=False))
        options = {"device": torch.device("cpu"), "seed": 0, "observer": Observer()}
        return identity_hash(plan.identity), model_hash(unlearn_cached(Mine(), network, split, **options).model)

    first, again, other = define(0.5), define(0.5), define(2.0)
    assert first == again
    assert first[0] != other[0] and first[1] != other[1]


def test_files_that_are_no_plugin_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("unlearn", "--plugin", "none.py")
    assert result.exit_code == 1 and "does not exist; expected a Python file" in result.output
    (tmp_path / "broken.py").write_text("1 / 0")
    result = invoke("list", "methods", "--plugin", str(tmp_path / "broken.py"))
    assert result.exit_code == 1 and "ZeroDivisionError: division by zero, line 1" in result.output
    (tmp_path / "twice.py").write_text(
        "from pymixunlearn import evaluation\nevaluation.metric('asr', summary='x')(lambda predictions: 1)"
    )
    result = invoke("list", "metrics", "--plugin", str(tmp_path / "twice.py"))
    assert result.exit_code == 1 and "a metric 'asr' is there already" in result.output


def test_verify_runs_no_file_of_a_record_unasked(invoke: Invoke, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gentle = ("--method", "push-away", "--set", "lr=0.0001")
    result = invoke("unlearn", *gentle, "--plugin", str(plugin), *FEW, "--out", "run")
    assert result.exit_code == 0, result.output
    for registry, name in ((plugged._PLUGGED, "forget_confidence"), (method_registry._METHODS, "push-away")):
        registry.pop(name)  # type: ignore[attr-defined]
    result = invoke("verify", "run", "--device", "cpu")
    text = " ".join(result.stdout.split())
    assert result.exit_code == 0 and "not checked metrics forget_confidence: of plug-ins" in text, result.output
    monkeypatch.delitem(sys.modules, file_module(plugin))
    result = invoke("verify", "run", "--device", "cpu", "--allow-code")
    assert result.exit_code == 0 and "forget_confidence" not in result.stdout, result.output
    plugged._PLUGGED.pop("forget_confidence")
    plugin.write_text(plugin.read_text() + "\nraise SystemExit('was run')\n")
    for change in (lambda: None, plugin.unlink):  # another file, and none
        change()
        result = invoke("verify", "run", "--device", "cpu", "--allow-code")
        assert result.exit_code == 0 and "not the file of the run" in " ".join(result.stdout.split()), result.output


def test_installed_packages_bring_plugins(
    invoke: Invoke, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site"
    info = package / "ownplug-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "ownplug.py").write_text(plugin.read_text() + "\n\ndef net(num_classes):\n    ...\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ownplug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pymixunlearn.methods]\npush-away = ownplug:PushAway\n[pymixunlearn.models]\nownnet = ownplug:net\n"
        "[pymixunlearn.metrics]\nforget_confidence = ownplug:forget_confidence\nbroken = ownplug:none\n"
    )
    monkeypatch.syspath_prepend(package)
    for cached in (plugins._load_installed, plugins.plugged_models):
        cached.cache_clear()
    with pytest.warns(UserWarning, match="plug-in 'ownplug:none' cannot be loaded"):
        plugins.load_plugins(())
    for kind, name in (("methods", "push-away"), ("metrics", "forget_confidence"), ("models", "ownnet")):
        result = invoke("list", kind)
        assert re.search(rf"{name} .*\[ownplug\]", " ".join(result.stdout.split())), result.output
    result = invoke("unlearn", "--method", "push-away", "--dataset", "nothing")
    assert "unknown dataset 'nothing'" in result.output
    sys.modules.pop("ownplug", None)
    monkeypatch.undo()
    for cached in (plugins._load_installed, plugins.plugged_models):
        cached.cache_clear()
