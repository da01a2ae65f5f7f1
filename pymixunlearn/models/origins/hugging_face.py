"""Image classifiers of Hugging Face's transformers, by name or by folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError
from pymixunlearn.models.origins import Asked, Built, check_arguments, network_error

REMEDY = "pip install 'pymixunlearn[hf]'"
_NOT_KEPT = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_name_or_path",
    "transformers_version",
    "quantization_config",
    "torch_dtype",
    "dtype",
)
"""Entries of a configuration that say where a network is from or bring code along, not what it is.

An attention implementation may be the name of a kernel on the hub, which the library fetches and runs.
"""


def build_hugging_face(asked: Asked) -> Built:
    """Build a classifier from its configuration, or take its pretrained weights along.

    ``trust_remote_code`` is never set: only classes of the library are built.

    Raises:
        UserError: transformers is not installed, the configuration cannot be found or is of no image classifier, or
            weights cannot be fetched.
    """
    library = load_library(asked.source)
    check_arguments("hf", asked, _NOT_KEPT)
    # A description may be of a file that anyone wrote.
    given = kept(asked.description) if asked.description else read_description(asked.source)
    given = {**given, **asked.arguments}
    labels = {**given.get("id2label", {})}
    if len(labels) != asked.outputs:
        for name in ("id2label", "label2id"):
            given.pop(name, None)
        given["num_labels"] = asked.outputs
    if "num_channels" in given or asked.in_channels != 3:
        given["num_channels"] = asked.in_channels
    own = given.get("image_size")
    if asked.image_size is not None and isinstance(own, int):
        given["image_size"] = asked.image_size
    kind = given.get("model_type")
    try:
        config = library.AutoConfig.for_model(**given)
    except Exception as error:
        raise UserError(f"model 'hf:{asked.source}' has a configuration of no known model ({kind}): {error}") from error
    auto = library.AutoModelForImageClassification
    try:
        if asked.pretrained:
            model = auto.from_pretrained(
                asked.source, config=config, ignore_mismatched_sizes=True, trust_remote_code=False, dtype=torch.float32
            )
        else:
            model = auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
    except OSError as error:
        raise UserError(network_error(f"the weights of hf:{asked.source}", error)) from error
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model 'hf:{asked.source}' ({kind}) cannot be built as an image classifier: {reason}"
        ) from error
    side = asked.image_size or (own if isinstance(own, int) else None)
    return Built(model.train(), side, kept({"model_type": kind, **config.to_diff_dict()}))


def load_library(name: str) -> Any:
    """Import transformers, or say how to install it."""
    return require("transformers", purpose=f"model 'hf:{name}'", remedy=REMEDY)


def read_description(name: str) -> dict[str, Any]:
    """Return the configuration of a folder, or of a name on the hub.

    Raises:
        UserError: There is none, or it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        try:
            content = json.loads((folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"folder '{folder}' has no config.json that can be read ({error})") from error
        if not isinstance(content, dict) or "model_type" not in content:
            raise UserError(f"'{folder / 'config.json'}' is no configuration of a Hugging Face model")
        return kept(content)
    library = load_library(name)
    try:
        found: dict[str, Any] = library.AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except Exception as error:
        raise UserError(network_error(f"the configuration of hf:{name}", error)) from error
    return kept(found)


def kept(description: dict[str, Any]) -> dict[str, Any]:
    """Return what of a configuration says what the network is, JSON-able."""
    text = json.dumps({key: value for key, value in description.items() if key not in _NOT_KEPT}, default=str)
    content: dict[str, Any] = json.loads(text)
    return content
