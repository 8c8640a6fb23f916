"""Metric learning: a head that learns where classes lie on a sphere, and answers by the nearest images it remembers.

While it learns, an image is compared with a centre a class, from which the loss asks for a margin. What is validated
and handed in is compared with every training image: a class with few images is as near as its nearest one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from competition.networks.memory import Memory
from competition.support.errors import CompetitionError
from competition.tasks.classification.settings.model import ClassificationModel

AT_ONCE = 8192  # remembered images that a batch is compared with
UNKNOWN = -1.0  # cosine of a class of which no image is remembered: as far as can be


class MetricHead(Memory):
    """Maps features (B, features) to cosines with the classes' centres (B, classes), or else to logits (B, classes).

    The first while it learns, the second in evaluation mode: the cosine with the nearest image of each class, or with
    its centre as long as none is remembered, times the scale.
    """

    def __init__(self, features: int, num_classes: int, model: ClassificationModel) -> None:
        super().__init__()
        learnt = model.metric_learning
        self.kind, self.margin, self.scale = model.head, learnt.margin, learnt.scale
        self.num_classes = num_classes
        self.centers = learnt.centers if model.head == "subcenter_arcface" else 1
        self.embed = nn.Linear(features, learnt.size, bias=False)
        self.weight = nn.Parameter(torch.empty(self.centers * num_classes, learnt.size))
        nn.init.xavier_uniform_(self.weight)

    def embedding(self, features: Tensor) -> Tensor:
        """Return (B, size) float32 of length 1."""
        return functional.normalize(self.embed(features).float(), dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Compare features with centres, or with images."""
        embedded = self.note(self.embedding(features))
        with torch.autocast(embedded.device.type, enabled=False):
            if self.training:
                return self._with_centers(embedded)
            known = self.embeddings
            found = self._with_centers(embedded) if known is None else self._with_images(embedded, known)
            return self.scale * found

    def _with_centers(self, embedded: Tensor) -> Tensor:
        cosines = embedded @ functional.normalize(self.weight.float(), dim=1).T
        return cosines.view(len(embedded), self.num_classes, self.centers).amax(dim=2)

    def _with_images(self, embedded: Tensor, known: Tensor) -> Tensor:
        """Return the largest cosine with an image of each class, block by block, so that memory is bounded."""
        assert self.labels is not None
        largest = embedded.new_full((self.num_classes, len(embedded)), UNKNOWN)
        for start in range(0, len(known), AT_ONCE):
            cosines = known[start : start + AT_ONCE].float() @ embedded.T
            labels = self.labels[start : start + AT_ONCE, None].expand_as(cosines)
            largest.scatter_reduce_(0, labels, cosines, "amax")
        return largest.T

    def logits(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return what cross entropy is of: while it learns, cosines (B, classes) of which that of the true class, by
        its share in `truth` (B, classes), is short of the margin; else what it is given."""
        if not self.training:
            return outputs
        return self.scale * (outputs - truth * (outputs - self._less_margin(outputs)))

    def _less_margin(self, cosines: Tensor) -> Tensor:
        """CosFace (Wang et al. 2018) takes it from the cosine, ArcFace (Deng et al. 2019) adds it to the angle; where
        that would be over half a turn, it takes as much as at the end, so that it stays descending."""
        if self.kind == "cosface":
            return cosines - self.margin
        angle = torch.tensor(self.margin)
        sines = (1 - cosines.square()).clamp(min=1e-12).sqrt()
        turned = cosines * angle.cos() - sines * angle.sin()
        return torch.where(cosines > -angle.cos(), turned, cosines - self.margin * angle.sin())


def metric_head(network: nn.Module) -> MetricHead | None:
    """Return the head of a network that learns so."""
    return next((part for part in network.modules() if isinstance(part, MetricHead)), None)


def put_metric_head(network: nn.Module, num_classes: int, model: ClassificationModel) -> None:
    """Put it in the place of the classifier of a network of timm; raise CompetitionError where that is no layer."""
    configured: Any = getattr(network, "pretrained_cfg", {}).get("classifier")
    place = configured if isinstance(configured, str) else ""
    classifier = network.get_submodule(place) if place else None
    if not isinstance(classifier, nn.Linear):
        raise CompetitionError(
            f"model.head: {model.encoder} does not end in a linear layer that {model.head} could stand for; take "
            "another encoder, as resnet34 or convnext_tiny"
        )
    network.set_submodule(place, MetricHead(classifier.in_features, num_classes, model))
