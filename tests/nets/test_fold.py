from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from napari_histomil.nets.fold import first_convolution, fold_batch_norm, fold_scaling

MEAN, STD = (0.7, 0.5, 0.65), (0.15, 0.2, 0.25)


def make_net(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=3, **arguments)
    for module in net.modules():  # as after training: fresh ones fold to nothing
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


def batch_norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "efficientnet_lite0", "regnetx_002"]
)
def test_a_folded_net_answers_the_same(name: str) -> None:
    net = make_net(name)
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    scaled = (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    wanted = net(scaled)
    folded = copy.deepcopy(net)
    assert fold_batch_norm(folded, scaled) == batch_norms(net) > 0
    assert batch_norms(folded) == 0
    torch.testing.assert_close(folded(scaled), wanted, rtol=1e-5, atol=1e-5)

    conv = first_convolution(folded, scaled)
    assert conv is not None
    vertical, horizontal = conv.padding
    fold_scaling(conv, MEAN, STD)
    border = 255 * torch.tensor(MEAN)[:, None, None]
    padded = border.expand(2, 3, 64 + 2 * vertical, 64 + 2 * horizontal).clone()
    padded[:, :, vertical : vertical + 64, horizontal : horizontal + 64] = pixels
    torch.testing.assert_close(folded(padded), wanted, rtol=1e-5, atol=1e-5)


def test_black_padding_is_not_the_same() -> None:
    """Why the border is painted with the mean: with black, tiles' edges change the answer."""
    net = make_net("resnet10t")
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    scaled = (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    conv = first_convolution(net, scaled)
    assert conv is not None
    wanted, padding = net(scaled), conv.padding
    fold_scaling(conv, MEAN, STD)
    conv.padding = padding
    assert (net(pixels) - wanted).abs().max() > 1e-3


class Twice(nn.Module):
    """Shares a convolution: folding the one batch norm behind it would change the other path."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        z: Tensor = self.conv(y)
        return z


def test_a_shared_convolution_is_left_alone() -> None:
    net = Twice().eval()
    net.norm.running_mean.fill_(1)
    x = torch.rand(1, 3, 8, 8)
    wanted = net(x)
    assert fold_batch_norm(net, x) == 0
    assert torch.equal(net(x), wanted)


def test_padding_that_is_not_zeros_is_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    assert first_convolution(net, torch.rand(1, 3, 8, 8)) is None
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"))
    assert first_convolution(net, torch.rand(1, 3, 8, 8)) is None


def test_a_net_that_begins_otherwise_has_no_first_convolution() -> None:
    net = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 3))
    assert first_convolution(net, torch.rand(1, 3, 8, 8)) is None
