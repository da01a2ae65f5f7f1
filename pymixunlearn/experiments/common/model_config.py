"""Model config: how a model is built and fed, in a file that ``train`` and run folders write and all commands read.

It holds what a file of weights does not say: the specification, arguments, which output stands for which class, the
feature layer, and the preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from pymixunlearn.data import Preprocess
from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError, reason_of, unknown_name
from pymixunlearn.experiments.common.in_memory import is_object
from pymixunlearn.experiments.common.preprocessing import read_preprocessing

MODEL_CONFIG = "model.yaml"
"""Its name in a run folder."""

_HEAD = "# How the model of this folder is built and fed, for --model-config.\n"
_IMAGENET = "imagenet"


@dataclass(frozen=True)
class ModelConfig:
    """Content of a model config; every entry may be left out.

    Attributes:
        model: The specification, see :func:`pymixunlearn.models.build`.
        arguments: Further arguments of the library's or the user's function.
        classes: Names of the model's outputs, in their order; "imagenet" stands for ImageNet's 1000.
        class_map: For every class of the data, the index or the name of its output.
        outputs: Number of outputs, where ``classes`` do not say it.
        in_channels: Channels of the images that it was built for.
        image_size: Their height and width.
        num_classes: Number of classes that it was built for.
        feature_layer: Layer whose output is the feature map.
        embedding_layer: Layer whose output is the embedding.
        pretrained: Whether training starts from the library's pretrained weights; or a file of weights to start from,
            in which layers for another number of classes do not count.
        preprocessing: How images become the model's inputs.
        description: Configuration of a Hugging Face model.
        code_sha256: Hash of the file of a factory.
        pretrained_sha256: Hash of the file that ``pretrained`` names.
    """

    model: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] | str | None = None
    class_map: Any = None
    outputs: int | None = None
    in_channels: int | None = None
    image_size: int | None = None
    num_classes: int | None = None
    feature_layer: str | None = None
    embedding_layer: str | None = None
    pretrained: bool | str | None = None
    pretrained_sha256: str | None = None
    preprocessing: Preprocess | None = None
    description: Mapping[str, Any] | None = None
    code_sha256: str | None = None

    @property
    def output_names(self) -> list[str] | None:
        """Names of the model's outputs, where they are said.

        Raises:
            UserError: They are no list.
        """
        if self.classes is None:
            return None
        if self.classes == _IMAGENET:
            return imagenet_classes()
        if isinstance(self.classes, str) or not isinstance(self.classes, Sequence):
            raise UserError(f"classes in the model config is {self.classes!r}; expected a list of names, or imagenet")
        return [str(name) for name in self.classes]


def read_model_config(path: Path) -> ModelConfig:
    """Read a model config.

    Raises:
        UserError: It cannot be read, is no YAML, or has an entry that is unknown or of the wrong kind.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model config '{path}' cannot be read: {reason_of(error)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"model config '{path}' is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return ModelConfig()
    if not isinstance(content, dict):
        raise UserError(f"model config '{path}' holds {a_type(content)}; expected 'name: value' lines")
    known = [one.name for one in fields(ModelConfig)]
    for name in content:
        if name not in known:
            raise unknown_name(f"entry of model config '{path}':", str(name), known)
    for name, kinds in _KINDS.items():
        value = content.get(name)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(f"{name} in model config '{path}' is {value!r}; expected {expected}")
    if content.get("preprocessing") is not None:
        content["preprocessing"] = read_preprocessing(content["preprocessing"], f"model config '{path}'")
    given = {name: value for name, value in content.items() if value is not None}
    return ModelConfig(**given)


def model_config_text(architecture: Mapping[str, Any], classes: Sequence[str], preprocess: Preprocess) -> str:
    """Return the text of the model config of a network.

    Args:
        architecture: The arguments of ``models.build``.
        classes: Names of the classes of the data.
        preprocess: How images become the network's inputs.
    """
    known = {one.name for one in fields(ModelConfig)}
    content = {key: value for key, value in architecture.items() if key in known}
    if not is_object(architecture):
        content = {"model": architecture["name"], **content}
    if "class_map" in architecture:
        content["class_map"] = dict(zip(classes, architecture["class_map"], strict=True))
    else:
        content["classes"] = list(classes)
    content["preprocessing"] = preprocess.to_dict()
    return _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def imagenet_classes() -> list[str]:
    """Return the names of ImageNet's 1000 classes, as torchvision has them."""
    from torchvision.models import ResNet18_Weights

    names: list[str] = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return names


_KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "arguments": (dict,),
    "outputs": (int,),
    "in_channels": (int,),
    "image_size": (int,),
    "num_classes": (int,),
    "feature_layer": (str,),
    "embedding_layer": (str,),
    "pretrained": (bool, str),
    "pretrained_sha256": (str,),
    "description": (dict,),
    "code_sha256": (str,),
    "preprocessing": (dict,),
}
