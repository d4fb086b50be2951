"""An encoder's weights come into classifiers and segmentations of the same backbone, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import make_encoder_folder, make_model_folder
from torch import nn

from napari_histomil.errors import ModelError
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.nets.encoders import load_encoder_weights
from napari_histomil.nets.load import build_module, load_module

RESNET = {"channels": [8, 16, 16, 16], "stem_width": 8}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def encoder(tmp_path: Path) -> ModelManifest:
    return load_manifest(make_encoder_folder(tmp_path / "encoder", "resnet10t", RESNET))


def maps(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = net.forward_features(x)  # type: ignore[operator]
    return result


def test_a_classifier_of_the_same_kind(encoder: ModelManifest) -> None:
    net = build_module("timm/resnet10t", 3, RESNET).eval()
    before = net.fc.weight.clone()
    taken = load_encoder_weights(net, encoder)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(maps(net, x), maps(load_module(encoder), x))
    assert torch.equal(net.fc.weight, before)
    assert taken.left_out == ()
    assert taken.where == ""


def test_a_centre_patch_that_ends_early(encoder: ModelManifest) -> None:
    arguments = {"backbone": "resnet10t", "backbone_arguments": RESNET, "level": 3, "cell_px": 16}
    net = build_module("histomil/centre-patch", 2, arguments).eval()
    taken = load_encoder_weights(net, encoder)
    whole = load_module(encoder)
    inner: Any = whole
    x = torch.rand(1, 3, 64, 64)
    wanted = inner.maxpool(inner.act1(inner.bn1(inner.conv1(x))))
    wanted = inner.layer3(inner.layer2(inner.layer1(wanted)))
    with torch.no_grad():
        assert torch.allclose(net.backbone(x)[0], wanted, atol=1e-6)
    assert taken.where == "backbone"
    assert taken.left_out
    assert all(name.startswith("layer4.") for name in taken.left_out)


@pytest.mark.parametrize(
    ("name", "arguments", "unet"),
    [
        ("resnet10t", RESNET, {"encoder_name": "tu-resnet10t", **RESNET}),
        ("resnet18", {}, {"encoder_name": "resnet18"}),
        (
            "convnext_atto",
            {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
            {"encoder_name": "tu-convnext_atto", "dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
        ),
    ],
)
def test_the_encoder_of_a_unet(
    tmp_path: Path, name: str, arguments: dict[str, Any], unet: dict[str, Any]
) -> None:
    manifest = load_manifest(make_encoder_folder(tmp_path / "e", name, arguments))
    net = build_module("smp/unet", 2, unet).eval()
    taken = load_encoder_weights(net, manifest)
    assert taken.where.startswith("encoder")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        deepest = net.encoder(x)[-1]
        wanted = maps(load_module(manifest), x)
    if name != "convnext_atto":  # its last norm belongs to what pools
        assert torch.allclose(deepest, wanted, atol=1e-5)
    else:
        assert deepest.shape == wanted.shape


def test_a_vision_transformer(tmp_path: Path) -> None:
    manifest = load_manifest(make_encoder_folder(tmp_path / "e", "vit_tiny_patch16_224", VIT))
    net = build_module("timm/vit_tiny_patch16_224", 2, VIT).eval()
    load_encoder_weights(net, manifest)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(maps(net, x), maps(load_module(manifest), x))


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("timm/resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8}),
        ("timm/resnet18", {}),
        ("smp/unet", {"encoder_name": "resnet18"}),
    ],
)
def test_other_backbones_are_refused_and_left_as_they_are(
    encoder: ModelManifest, architecture: str, arguments: dict[str, Any]
) -> None:
    net = build_module(architecture, 2, arguments)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(ModelError, match=r"does not fit this net: .*same backbone"):
        load_encoder_weights(net, encoder)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_a_classifier_is_no_encoder(tmp_path: Path) -> None:
    manifest = load_manifest(make_model_folder(tmp_path / "classifier"))
    with pytest.raises(ModelError, match="is no encoder"):
        load_encoder_weights(build_module("timm/resnet10t", 2, RESNET), manifest)
