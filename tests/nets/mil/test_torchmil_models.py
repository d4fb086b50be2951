"""With torchmil where it is installed; without it on a stand-in with torchmil's calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_folders import make_encoder_folder, make_mil_folder
from torch import Tensor, nn

from napari_histomil.errors import ModelError
from napari_histomil.manifest import load_manifest
from napari_histomil.manifest.mil import MAP_KINDS
from napari_histomil.nets.mil import build_mil, load_mil
from napari_histomil.nets.mil.torchmil_models import READINGS

SMALL: dict[str, dict[str, Any]] = {
    "ABMIL": {"att_dim": 5, "gated": True},
    "CLAM_SB": {"att_dim": 5, "k_sample": 3},
    "DSMIL": {"att_dim": 5},
    "TransformerABMIL": {"pool_att_dim": 5, "transf_att_dim": 8, "transf_n_heads": 2},
}


class Stand(nn.Module):
    """Calls and answers as torchmil's ABMIL has them, and an argument that is asserted."""

    def __init__(self, in_shape: tuple[int, ...], att_dim: int = 4) -> None:
        super().__init__()
        assert att_dim > 0, "att_dim must be positive"
        self.score = nn.Linear(*in_shape, 1)
        self.classifier = nn.Linear(*in_shape, 1)

    def forward(
        self, X: Tensor, mask: Tensor | None = None, return_att: bool = False
    ) -> tuple[Tensor, Tensor]:
        f = self.score(X)[..., 0]
        z = self.classifier((f.softmax(1)[..., None] * X).sum(1))[:, 0]
        return z, f


class StandDSMIL(Stand):
    """As torchmil's DSMIL: attention [1, N, 1] after its softmax, and instances' logits."""

    def forward(
        self, X: Tensor, return_att: bool = False, return_inst_pred: bool = False
    ) -> tuple[Tensor, ...]:
        z, f = super().forward(X)
        return z, f.softmax(1)[..., None], self.classifier(X)[..., 0]

    def compute_loss(self, Y: Tensor, X: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z, _, scores = self.forward(X)
        loss = F.binary_cross_entropy_with_logits
        second = loss(scores.max(1).values, Y.float())
        return z, {"BCEWithLogitsLoss": loss(z, Y.float()), "BCEWithLogitsLoss_max": second}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchmil.models")
    module.ABMIL, module.DSMIL = Stand, StandDSMIL
    monkeypatch.setitem(sys.modules, "torchmil.models", module)


def test_where_torchmil_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmil.models", None)
    with pytest.raises(ModelError, match=r"torchmil/ABMIL needs torchmil .*histomil\[torchmil\]"):
        build_mil("torchmil/ABMIL", 6, 2)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "classes", "arguments", "said"),
    [
        ("CAMIL", 2, {}, "There is no MIL model 'torchmil/CAMIL': .* torchmil/ABMIL, torchmil/CL"),
        ("MILModel", 2, {}, "There is no MIL model"),
        ("ABMIL", 3, {}, "torchmil/ABMIL tells two classes apart, not 3"),
        ("ABMIL", 2, {"feat_ext": "x"}, "feat_ext is not taken"),
        ("ABMIL", 2, {"transf_dropout": 0.1}, "transf_dropout is not taken"),
        ("ABMIL", 2, {"k": 1}, "cannot be built with {'k': 1}.*unexpected keyword"),
        ("ABMIL", 2, {"att_dim": 0}, "cannot be built.*att_dim must be positive"),
    ],
)
def test_what_cannot_be_built_is_told(
    name: str, classes: int, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        build_mil(f"torchmil/{name}", 6, classes, **arguments)


@pytest.mark.usefixtures("stand_in")
def test_one_logit_is_shared_by_two_classes() -> None:
    model = build_mil("torchmil/ABMIL", 6, 2)
    bag = torch.randn(9, 6)
    z, f = model.net(bag[None])
    output = model(bag)
    assert torch.allclose(output.logits, torch.tensor([-0.5, 0.5]) * z)
    assert torch.allclose(output.probabilities[1], z[0].sigmoid())
    assert torch.equal(output.attention_raw, f)
    assert torch.allclose(output.attention, f.softmax(1))
    assert output.contributions is None
    assert output.instance_scores is None
    for target in torch.tensor([0, 1]):
        loss, _ = model.training_loss(bag, target, criterion=F.cross_entropy)
        assert torch.allclose(loss, F.binary_cross_entropy_with_logits(z[0], target.float()))


@pytest.mark.usefixtures("stand_in")
def test_one_class_has_the_logit_itself() -> None:
    model = build_mil("torchmil/DSMIL", 6, 1)
    bag = torch.randn(9, 6)
    z, a, scores = model.net(bag[None])
    output = model(bag)
    assert torch.equal(output.logits, z)
    assert torch.allclose(output.probabilities, z.sigmoid())
    assert output.maps[0].kind == "critical"
    assert output.attention_raw is None
    assert torch.equal(output.attention, a[..., 0])
    assert torch.equal(output.instance_scores, scores.T)


@pytest.mark.usefixtures("stand_in")
def test_a_second_loss_is_added() -> None:
    model = build_mil("torchmil/DSMIL", 6, 2)
    bag, target = torch.randn(9, 6), torch.tensor(1)
    _, losses = model.net.compute_loss(target[None], bag[None])
    loss, output = model.training_loss(bag, target, criterion=F.cross_entropy)
    assert torch.allclose(loss, losses["BCEWithLogitsLoss"] + losses["BCEWithLogitsLoss_max"])
    assert output.instance_scores.shape == (9, 2)


@pytest.mark.usefixtures("stand_in")
def test_clinical_variables_are_added_to_the_shared_logits() -> None:
    model = build_mil("torchmil/ABMIL", 6, 2, clinical=3)
    bag, clinical = torch.randn(9, 6), torch.randn(3)
    output = model(bag, clinical)
    z, _ = model.net(bag[None])
    wanted = torch.tensor([-0.5, 0.5]) * z + model.clinical.weight @ clinical
    assert torch.allclose(output.logits, wanted)


@pytest.mark.usefixtures("stand_in")
def test_a_model_folder_names_it(tmp_path: Path) -> None:
    folder_answers(tmp_path, "ABMIL", {"att_dim": 5})


def folder_answers(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    encoder = make_encoder_folder(
        tmp_path / "encoder", "resnet10t", {"channels": [8, 8, 8, 8], "stem_width": 8}
    )
    folder = make_mil_folder(tmp_path / "m", f"torchmil/{name}", encoder, arguments=arguments)
    model = load_mil(load_manifest(folder))
    torch.manual_seed(0)  # the weights that the folder was written with
    net = build_mil(f"torchmil/{name}", model.dim, 2, **arguments).eval()
    bag = torch.randn(4, model.dim)
    assert torch.equal(model(bag).logits, net(bag).logits)


@pytest.fixture
def torchmil() -> ModuleType:
    return pytest.importorskip("torchmil.models")


@pytest.mark.parametrize("name", READINGS)
def test_torchmil_answers_the_same(torchmil: ModuleType, tmp_path: Path, name: str) -> None:
    model = build_mil(f"torchmil/{name}", 6, 2, **SMALL[name]).eval()
    bag = torch.randn(11, 6)
    output = model(bag)
    own = getattr(torchmil, name)(in_shape=(6,), **SMALL[name]).eval()
    own.load_state_dict(model.net.state_dict())
    z, attention = own(bag[None], return_att=True)
    assert torch.allclose(output.probabilities[1], z[0].sigmoid(), atol=1e-6)
    reading = READINGS[name]
    shown = output.attention if reading.softmaxed else output.attention_raw
    assert torch.allclose(shown, attention.reshape(1, 11))
    assert torch.allclose(output.attention.sum(1), torch.ones(1))
    assert output.maps[0].kind in MAP_KINDS
    assert torch.allclose(model(bag[:1]).attention, torch.ones(1, 1))
    assert torch.equal(model(bag).logits, output.logits)  # nothing is drawn in answering
    folder_answers(tmp_path, name, SMALL[name])


@pytest.mark.parametrize("name", READINGS)
def test_torchmil_trains_with_all_its_losses(torchmil: ModuleType, name: str) -> None:
    model = build_mil(f"torchmil/{name}", 6, 2, **SMALL[name])
    bag, target = torch.randn(11, 6), torch.tensor(1)
    loss, _ = model.training_loss(bag, target, criterion=F.cross_entropy)
    _, losses = model.net.compute_loss(target[None], bag[None])
    assert torch.allclose(loss, sum(losses.values()))
    loss.backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
