"""Models of timm and Hugging Face: built, fed as they expect, unlearned, and written for their own libraries."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pymixunlearn
from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models import FeatureExtractor, find_feature_layer
from pymixunlearn.models.origins.expected_inputs import expected_preprocess
from pymixunlearn.training import load_model, model_hash

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]

NAMES = ("bee", "ant", "cat")
FEW: dict[str, Any] = {"epochs": 1, "initial.epochs": 1, "retrain.epochs": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for part, count in (("train", 8), ("test", 12)):
        for label, name in enumerate(sorted(NAMES)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                noise = torch.randint(0, 120, (40, 50, 3), generator=torch.Generator().manual_seed(99 * label + index))
                noise[..., label] += 100
                Image.fromarray(noise.to(torch.uint8).numpy()).save(root / part / name / f"{index}.png")
    return root


def hugging_face(folder: Path) -> nn.Module:
    transformers = importlib.import_module("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: label for label, name in enumerate(NAMES)}}
    torch.manual_seed(0)
    config = transformers.ViTConfig(**sizes, **labels, image_size=32, patch_size=8)
    model: Any = transformers.ViTForImageClassification(config)
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3, image_mean=[0.4] * 3)
    processor.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "size", "arguments", "layer", "shape"),
    [
        ("timm:resnet18", 64, {}, "layer3", (256, 4)),
        ("timm:resnet50", 64, {}, "layer3", (1024, 4)),
        ("timm:convnext_atto", 64, {}, "stages.2", (160, 4)),
        ("timm:efficientnet_b0", 64, {}, "blocks.4", (112, 4)),
        ("timm:swin_tiny_patch4_window7_224", 224, {"depths": (1, 1, 1, 1)}, "layers.2", (384, 14)),
        ("timm:vit_tiny_patch16_224", 64, {"depth": 2}, "blocks", (192, 4)),
        ("timm:deit_tiny_distilled_patch16_224", 64, {"depth": 2}, "blocks", (192, 4)),
        ("timm:beit_base_patch16_224", 64, {"depth": 2, "embed_dim": 48, "num_heads": 2}, "blocks.1", (48, 4)),
        ("timm:vit_small_patch14_reg4_dinov2", 70, {"depth": 2}, "blocks", (384, 5)),
        ("timm:mobilenetv3_small_050", 64, {}, "blocks.3", (24, 4)),
        ("timm:regnetx_002", 64, {}, "s3", (152, 4)),
        ("torchvision:convnext_tiny", 64, {}, "features.5", (384, 4)),
        ("torchvision:efficientnet_b0", 64, {}, "features.5", (112, 4)),
        ("torchvision:swin_t", 64, {}, "features.5", (384, 4)),
        ("torchvision:densenet121", 64, {}, "features.denseblock3", (1024, 4)),
    ],
)
def test_the_feature_layer_of_common_families(
    name: str, size: int, arguments: dict[str, Any], layer: str, shape: tuple[int, int]
) -> None:
    model = models.build(name, num_classes=3, image_size=size, arguments=arguments).eval()
    images = torch.rand(2, 3, size, size)
    assert find_feature_layer(model, images) == layer
    with FeatureExtractor(model, layer) as extract, torch.no_grad():
        assert extract(images)[1].shape == (2, shape[0], shape[1], shape[1])


def test_the_feature_layer_of_a_hugging_face_model(tmp_path: Path) -> None:
    model = hugging_face(tmp_path)
    layer = find_feature_layer(model, torch.rand(2, 3, 32, 32))
    with FeatureExtractor(model, layer) as extract, torch.no_grad():
        assert extract(torch.rand(2, 3, 32, 32))[1].shape == (2, 16, 4, 4)
    assert "1" in layer.split(".")  # the last of two


def test_specifications_of_libraries(tmp_path: Path) -> None:
    first, same, other = (models.build("timm:resnet10t", num_classes=3, seed=seed) for seed in (1, 1, 2))
    assert model_hash(first) == model_hash(same) != model_hash(other)
    with pytest.raises(UserError, match="unknown model of timm 'resnet81'; expected one of its .*resnet18"):
        models.build("timm:resnet81", num_classes=3)
    with pytest.raises(UserError, match="argument 'checkpoint_path' .* is set by pymixunlearn itself"):
        models.build("timm:resnet10t", num_classes=3, arguments={"checkpoint_path": "a"})
    hugging_face(tmp_path)
    model = models.build(f"hf:{tmp_path}", num_classes=5)
    assert model(torch.rand(2, 3, 32, 32)).logits.shape == (2, 5)
    # The configuration goes along, so that the folder is not needed to build the network again.
    architecture = {**model.architecture, "name": "hf:gone"}
    assert models.build(**architecture)(torch.rand(1, 3, 32, 32)).logits.shape == (1, 5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "resnet10t"])
def test_timms_models_are_fed_as_timm_feeds_them(name: str, photos: Path) -> None:
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    preprocess = expected_preprocess(f"timm:{name}")
    assert preprocess is not None
    dataset = pymixunlearn.data.load(str(photos), preprocess=preprocess)
    inputs = preprocess.evaluation(dataset.test.images)
    for index in (0, 13, 30):
        assert dataset.test.paths is not None
        expected = transform(Image.open(photos / dataset.test.paths[index]).convert("RGB"))
        torch.testing.assert_close(inputs[index], expected, rtol=0, atol=1e-6)


def plain_accuracy(folder: Path, model: Any, inputs: Any) -> float:
    hits = total = 0
    for file in sorted(folder.glob("test/*/*.png")):
        with torch.no_grad():
            logits: Tensor = model(**inputs(Image.open(file).convert("RGB"), return_tensors="pt")).logits
        hits += NAMES[int(logits.argmax())] == file.parent.name
        total += 1
    return 100 * hits / total


def test_a_hugging_face_model_through_unlearn_and_verify(photos: Path, tmp_path: Path) -> None:
    transformers = importlib.import_module("transformers")
    model = hugging_face(tmp_path / "vit")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "vit")
    expected = plain_accuracy(photos, model, processor)
    options: dict[str, Any] = {"retrain": True, "expect_accuracy": expected, "settings": FEW, "device": "cpu"}
    run = pymixunlearn.unlearn(str(tmp_path / "vit"), str(photos), out=tmp_path / "run", **options)
    assert run.record["initial_accuracy"]["test"] == pytest.approx(expected, abs=0.01)
    config = json.loads((run.folder / "config.json").read_text())
    # The outputs are those of the classes by name: the folder's classes are in another order.
    assert config["architecture"]["class_map"] == [1, 0, 2]
    assert config["preprocess"]["interpolation"] == "bicubic" and config["preprocess"]["squash"] is True
    assert pymixunlearn.verify(run.folder, device="cpu").holds

    back = transformers.AutoModelForImageClassification.from_pretrained(run.folder / "original-form")
    images = torch.rand(2, 3, 32, 32)
    ours = load_model(run.folder / "model.safetensors")
    assert torch.equal(back.eval()(images).logits, ours(images).logits)
    assert back.config.id2label == dict(enumerate(NAMES))
    assert transformers.AutoImageProcessor.from_pretrained(run.folder / "original-form").resample == 3


def test_a_timm_checkpoint_through_unlearn_and_verify(photos: Path, tmp_path: Path) -> None:
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    (tmp_path / "model.yaml").write_text(json.dumps({"arguments": sizes}))
    given: dict[str, Any] = {"weights": tmp_path / "vit.pth", "model_config": tmp_path / "model.yaml", "image_size": 32}
    run = pymixunlearn.unlearn(
        "timm:vit_tiny_patch16_224", str(photos), out=tmp_path / "run", settings=FEW, device="cpu", **given
    )
    assert pymixunlearn.verify(run.folder, device="cpu").holds

    back = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    back.load_state_dict(torch.load(run.folder / "original-form" / "vit.pth", weights_only=True))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(back.eval()(images), load_model(run.folder / "model.safetensors")(images))
