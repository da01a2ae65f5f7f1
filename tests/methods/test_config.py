"""Settings: typed, ranged, readable from text; methods by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.methods import MixUnlearn, MixUnlearnConfig, Retrain, RetrainConfig


def test_methods_by_name() -> None:
    assert {"mixunlearn", "retrain"} <= set(methods.available())
    assert methods.get("mixunlearn") is MixUnlearn
    with pytest.raises(UserError, match="unknown method 'mixunlern'.*Did you mean 'mixunlearn'"):
        methods.get("mixunlern")


def test_every_setting_says_what_it_does() -> None:
    for name in methods.available():
        for field in dataclasses.fields(methods.get(name).config_class):
            assert field.metadata["help"], f"{name}: {field.name}"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "7", 7),
        ("lr", "5e-5", 5e-5),
        ("omega", 30, 30.0),
        ("label_aware", "true", True),
        ("sharpen", "Off", False),
        ("pairing", "grid", "grid"),
        ("feature_layer", "body.pool", "body.pool"),
        ("feature_layer", "none", None),
    ],
)
def test_text_is_read_as_the_type_of_its_field(name: str, text: Any, value: object) -> None:
    config = MixUnlearnConfig.from_mapping({name: text})
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'.*Did you mean 'epochs'"),
        ({"epochs": "many"}, "epochs is 'many'; expected a whole number"),
        ({"epochs": "2.5"}, "epochs is '2.5'; expected a whole number"),
        ({"epochs": 2.5}, "epochs is 2.5; expected a whole number"),
        ({"epochs": True}, "epochs is True; expected a whole number"),
        ({"epochs": 0}, "epochs is 0; expected a value at least 1"),
        ({"lr": "0"}, "lr is 0.0; expected a value above 0"),
        ({"lr": "nan"}, "lr is nan; expected a finite number"),
        ({"omega": None}, "omega is None; expected a number"),
        ({"ema_momentum": 1}, "ema_momentum is 1.0; expected a value at least 0 and below 1"),
        ({"label_aware": "maybe"}, "label_aware is 'maybe'; expected true or false"),
        ({"pairing": "gird"}, "unknown pairing 'gird'.*Did you mean 'grid'"),
        ({"feature_layer": 3}, "feature_layer is 3; expected a text, or none"),
        ({"use_mix_loss": "no", "use_real_loss": "no"}, "both false"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        MixUnlearnConfig.from_mapping(values)


def test_config_survives_the_trip_through_plain_values() -> None:
    config = MixUnlearnConfig(label_aware=True, omega=30.0, adversary="ema")
    assert MixUnlearnConfig.from_mapping(config.to_dict()) == config
    assert config.replace(omega="100") == MixUnlearnConfig(label_aware=True, omega=100.0, adversary="ema")


def test_method_takes_a_config_or_fields() -> None:
    config = MixUnlearnConfig(epochs=3)
    assert MixUnlearn(config).config == config
    assert MixUnlearn(config, omega=1).config == MixUnlearnConfig(epochs=3, omega=1.0)
    assert not MixUnlearn().needs_labels
    assert MixUnlearn(label_aware=True).needs_labels
    assert Retrain().needs_labels
    with pytest.raises(UserError, match="config is a RetrainConfig; expected a MixUnlearnConfig"):
        MixUnlearn(RetrainConfig())


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is registered is forgotten afterwards."""
    from pymixunlearn.methods import registry as module

    monkeypatch.setattr(module, "_METHODS", dict(module._METHODS))


def test_a_method_of_the_users_own(registry: None) -> None:
    @methods.method("mine", summary="does as gradient ascent does")
    class Mine(methods.GradientAscent):
        """Another name."""

    assert methods.get("mine") is Mine and "mine" in methods.available()
    assert (Mine.name, Mine.summary) == ("mine", "does as gradient ascent does")
    assert methods.GradientAscent.name == "gradient-ascent"
    methods.method("mine", summary="registered again, as when a file is run twice")(Mine)
    with pytest.raises(UserError, match=r"a method 'mine' is there already \(.*Mine of tests.methods.test_config\)"):
        methods.method("mine", summary="")(methods.NegGrad)
    assert methods.get("mine") is Mine and methods.NegGrad.name == "neggrad"


def test_the_decorator_of_the_version_before(registry: None) -> None:
    class Old(methods.Method):
        name, summary, config_class = "old", "as in 0.1.0", methods.MethodConfig

    with pytest.warns(DeprecationWarning, match=r"register is now .*methods\.method\(name, summary=\.\.\.\)"):
        assert methods.register(Old) is Old
    assert methods.get("old") is Old
