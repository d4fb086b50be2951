from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_histomil.errors import ModelError
from napari_histomil.nets.mil import build_mil


def test_temperature_and_activation_make_probabilities() -> None:
    model = build_mil("mean", 4, 2).eval()
    bag = torch.randn(5, 4)
    logits = model(bag).logits
    model.temperature = 2.0
    assert torch.allclose(model(bag).probabilities, (logits / 2).softmax(0))
    model.activation = "sigmoid"
    assert torch.allclose(model(bag).probabilities, (logits / 2).sigmoid())
    assert torch.equal(model(bag).logits, logits)


def test_half_features_are_computed_in_full() -> None:
    model = build_mil("attention", 4, 2).eval()
    bag = torch.randn(5, 4).half()
    assert torch.equal(model(bag).logits, model(bag.float()).logits)


def test_clinical_variables_are_added_to_the_logits() -> None:
    model = build_mil("gated-attention", 4, 2, clinical=3).eval()
    bag, clinical = torch.randn(5, 4), torch.tensor([1.0, -2.0, 0.5])
    output = model(bag, clinical)
    none = model(bag, torch.zeros(3))
    assert model.clinical is not None
    assert torch.allclose(output.logits - none.logits, model.clinical.weight @ clinical)
    whole = output.bias + output.contributions.sum(1) + output.clinical.sum(1)
    assert torch.allclose(whole, output.logits, atol=1e-5)
    with pytest.raises(ModelError, match="needs clinical variables"):
        model(bag)
    with pytest.raises(ModelError, match="takes 3 clinical variables"):
        model(bag, torch.zeros(2))
    with pytest.raises(ModelError, match="without clinical variables"):
        build_mil("mean", 4, 2)(bag, clinical)


@pytest.mark.parametrize(
    ("bag", "words"),
    [
        (torch.zeros(3, 5), r"shape \[3, 5\], and the model takes \[N, 4\]"),
        (torch.zeros(1, 3, 4), r"takes \[N, 4\]"),
        (torch.zeros(0, 4), "empty"),
        ([torch.zeros(3, 4), torch.zeros(12, 4)], "1 magnifications, and this one has 2"),
    ],
)
def test_a_bag_that_does_not_fit_is_told(bag: torch.Tensor, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_mil("mean", 4, 2)(bag)


def test_the_loss_is_that_of_the_criterion() -> None:
    model = build_mil("attention", 4, 3).eval()
    bag = torch.randn(5, 4)
    loss, output = model.training_loss(bag, torch.tensor(2), criterion=nn.CrossEntropyLoss())
    assert torch.allclose(loss, -output.logits.log_softmax(0)[2])


def test_odd_names_and_arguments_are_told() -> None:
    with pytest.raises(ModelError, match="no MIL model 'magic'; there are mean, max"):
        build_mil("magic", 4, 2)
    with pytest.raises(ModelError, match=r"attention cannot be built with .*unexpected keyword"):
        build_mil("attention", 4, 2, magic=1)
