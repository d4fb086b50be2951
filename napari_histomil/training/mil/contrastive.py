r"""SC-MIL: supervised contrastive MIL for imbalanced classes (Juyal et al., WACV 2024).

Bags of a class are drawn together and those of different classes apart before the classifier has
its say: learning passes from the bags' embeddings to the classifier in the course of the training,

.. math::

    L = w L_{SC} + (1 - w) L_{MIL}, \qquad w = 1 - step / steps

    L_{SC} = - \frac{1}{|A|} \sum_{i \in A} \frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{j \ne i} \exp(z_i \cdot z_j / \tau)}

(Khosla et al., NeurIPS 2020) over the bags of a step: z are their embeddings after a projection
head of two layers, normalised; :math:`P_i` the others of the class of i, A the bags that have such
others.

Taken from the paper is the joint training that passes from the one loss to the other. Chosen here,
whatever its own numbers are: the weight falls linearly with the step, head and temperature are
Khosla's, a bag has one view (which `schedule.instance_dropout` makes another each time), and the
classifier's loss reaches the embedding, too. The head is for the training only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histomil.nets.mil import MILModel
from napari_histomil.nets.mil.model import Criterion
from napari_histomil.training.mil.config import ScMil
from napari_histomil.training.mil.scheme import Scheme, Step, loss_of


class ContrastiveBags(Scheme):
    """A projection head in which the bags of a step are compared.

    Parameters
    ----------
    numbers
        Temperature and width.
    net
        Whose embeddings are projected.
    """

    def __init__(self, numbers: ScMil, net: MILModel) -> None:
        super().__init__()
        self.temperature = numbers.temperature
        width = embedding_width(net)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, numbers.projection)
        )

    def losses(self, net: MILModel, step: Step, criterion: Criterion) -> Iterator[Tensor]:
        """Give one loss for all bags, which are in memory together."""
        embeddings, losses, targets = [], [], []
        for example in step.examples:
            loss, output = loss_of(net, example, example.bag, criterion)
            assert output.embedding is not None
            embeddings.append(output.embedding)
            losses.append(loss)
            targets.append(example.target)
        z = F.normalize(self.head(torch.stack(embeddings)), dim=1)
        apart = contrast(z, torch.stack(targets), self.temperature)
        yield (1 - step.progress) * apart + step.progress * torch.stack(losses).mean()


def contrast(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of normalised embeddings [B, E] with labels [B].

    Embeddings that are the only ones of their class have no partner and are only kept away from;
    if no one has a partner the loss is 0.
    """
    alone = torch.eye(len(z), dtype=torch.bool, device=z.device)
    partners = (labels[:, None] == labels) & ~alone
    anchors = partners.any(1)
    if not anchors.any():
        return z.sum() * 0
    alike = (z @ z.T / temperature).masked_fill(alone, -torch.inf)
    chances = (alike - alike.logsumexp(1, keepdim=True)).masked_fill(~partners, 0)
    return -(chances.sum(1)[anchors] / partners.sum(1)[anchors]).mean()


@torch.no_grad()
def embedding_width(net: MILModel) -> int:
    """Return how many values a bag's embedding has."""
    before, place = net.training, next(net.parameters()).device
    instance = torch.zeros(1, net.dim, device=place)
    net.eval()
    found = net.aggregate(
        instance if net.magnifications == 1 else [instance] * net.magnifications
    ).embedding
    net.train(before)
    assert found is not None
    return len(found)
