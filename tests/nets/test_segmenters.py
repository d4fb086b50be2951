from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import TINY_UNET, make_segmenter_folder

from napari_histomil.errors import ModelError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import build_module, load_module


@pytest.mark.parametrize("name", ["unet", "unetplusplus", "fpn", "linknet"])
def test_every_pixel_gets_its_classes(name: str) -> None:
    net = build_module(f"smp/{name}", 3, {"encoder_name": "resnet18", "encoder_depth": 5}).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("smp/wnet", {}, r"no 'wnet' \(known: .*unet"),
        ("smp/unet", {"activation": "sigmoid"}, "activation cannot be chosen"),
        ("smp/unet", {"aux_params": {"classes": 2}}, "aux_params cannot be chosen"),
        ("smp/unet", {"encoder_name": "tu-no_such_net"}, "cannot be built"),
        ("smp/unet", {"surprise": 1}, "surprise"),
    ],
)
def test_unknown_nets_are_told(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_module(name, 2, arguments)


def test_arguments_fetch_no_weights_and_change_no_classes() -> None:
    net = build_module("smp/unet", 5, {**TINY_UNET, "encoder_weights": "imagenet", "classes": 7})
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)


def test_a_model_folder_with_a_unet_is_loaded(tmp_path: Path) -> None:
    model = load_manifest(make_segmenter_folder(tmp_path / "tiny"))
    module = load_module(model)
    assert not module.training
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 2, 64, 64)
