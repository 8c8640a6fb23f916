"""From features of the images of groups to features of the groups: `model.join`."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

HIDDEN = 128  # of what attention is told by


def padded(features: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (B, longest, F) of flat ones (N, F) by the `sizes` (B,) of groups, 0 behind each group's end, and
    which are there (B, longest). This is the only place where groups become a shape."""
    groups = pad_sequence(list(features.split(sizes.tolist())), batch_first=True)
    return groups, torch.arange(groups.shape[1], device=features.device) < sizes.to(features.device)[:, None]


class GroupJoin(nn.Module):
    """Joins the features of a group's images, however many there are and in whatever order.

    attention: their mean by weights that are learnt of them (Ilse et al. 2018), gated_attention: with that paper's
    gates. lse: between mean and max, log-sum-exp of a sharpness that is learnt (Pinheiro and Collobert 2015).
    """

    def __init__(self, way: str, num_features: int) -> None:
        super().__init__()
        self.way = way
        if way in ("attention", "gated_attention"):
            self.see, self.weigh = nn.Linear(num_features, HIDDEN), nn.Linear(HIDDEN, 1)
        if way == "gated_attention":
            self.gate = nn.Linear(num_features, HIDDEN)
        if way == "lse":
            self.sharpness = nn.Parameter(torch.zeros(1))  # its logarithm

    def forward(self, features: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Join features (N, F) to (B, F); without `sizes` (B,) each image is a group."""
        if sizes is None:
            sizes = torch.ones(len(features), dtype=torch.int64)
        groups, present = padded(features, sizes)
        absent = ~present[..., None]
        if self.way == "max":
            return groups.masked_fill(absent, -torch.inf).amax(dim=1)
        number = present.sum(dim=1, keepdim=True)
        if self.way == "mean":
            return groups.sum(dim=1) / number
        if self.way == "lse":
            sharpness = self.sharpness.float().exp()
            sums = (groups.float() * sharpness).masked_fill(absent, -torch.inf).logsumexp(dim=1)
            return ((sums - number.log()) / sharpness).to(features.dtype)
        return (self.weights(groups, present)[..., None] * groups).sum(dim=1)

    def weights(self, groups: Tensor, present: Tensor) -> Tensor:
        """Return (B, longest) what each image counts: those of a group add up to 1."""
        seen = self.see(groups).tanh()
        if self.way == "gated_attention":
            seen = seen * self.gate(groups).sigmoid()
        scores = self.weigh(seen)[..., 0].float().masked_fill(~present, -torch.inf)
        return scores.softmax(dim=1).to(groups.dtype)
