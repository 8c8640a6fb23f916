"""Columns of a table joined to the features of an image: `data.columns` and `model.join_columns`.

How numbers are scaled and which texts are known is learnt of the training images and goes with the weights, wherever
these go: checkpoints, exported weights, bundles.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from competition.config.optional_data import Columns
from competition.files.table_columns import ColumnValues

WIDTH = 64  # of what all columns of an image say together
TEXT_WIDTH = 16  # of what one text says
FARTHEST = 10.0  # standard deviations from the mean that a number may be
HIDDEN = 0.05  # share of values that training hides, so that what stands for missing and unknown ones is learnt
MISSING, UNKNOWN, FIRST = 0, 1, 2  # numbers of an empty text, of one that no training image has, of the first known one


def column_tensors(values: ColumnValues | None, row: int) -> dict[str, Tensor]:
    """Return `numbers` (numeric,) float32 and `texts` (categorical,) int64 of an image; nothing without columns.

    Texts come as fingerprints, 0 where there is none: each network knows them by those of its own training images.
    """
    if values is None:
        return {}
    texts = torch.tensor([fingerprint(text) for text in values.texts[row]], dtype=torch.int64)
    return {"numbers": torch.from_numpy(values.numbers[row].copy()), "texts": texts}


def collate_columns(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack to `numbers` (B, numeric) and `texts` (B, categorical)."""
    return {key: torch.stack([one[key] for one in samples]) for key in ("numbers", "texts") if key in samples[0]}


def mixed_columns(batch: dict[str, Any], order: Tensor, share: float) -> dict[str, Tensor]:
    """Tell the network with which image each is mixed, and its own share: what columns say is mixed as images are."""
    return {"partners": order, "own_share": torch.tensor(share, device=order.device)} if "numbers" in batch else {}


def fingerprint(text: str) -> int:
    """Return a number of 63 bits that is the same in every process, 0 for the empty text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1 or 1 if text else 0


def fit_columns(network: nn.Module, values: ColumnValues | None) -> None:
    """Let a network learn of the training images how numbers are scaled and which texts there are."""
    for module in network.modules():
        if isinstance(module, ColumnJoin) and values is not None:
            module.fit(values)


class ColumnJoin(nn.Module):
    """Joins what columns say of images to their features: beside these (concat), or as their scale and shift (film;
    Perez et al. 2018), which begins with leaving them as they are."""

    def __init__(self, columns: Columns, num_features: int, way: Literal["concat", "film"]) -> None:
        super().__init__()
        self.columns, self.way = columns, way
        self.num_features = num_features + (WIDTH if way == "concat" else 0)  # of what comes out
        wide = 2 * len(columns.numeric) + TEXT_WIDTH * len(columns.categorical)
        self.embeddings = nn.ModuleList(nn.Embedding(FIRST, TEXT_WIDTH) for _ in columns.categorical)
        self.together = nn.Sequential(nn.Linear(wide, WIDTH), nn.ReLU())
        if way == "film":
            self.film = nn.Linear(WIDTH, 2 * num_features)
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self._know([[0.0, 1.0] for _ in columns.numeric], [[] for _ in columns.categorical])

    def fit(self, values: ColumnValues) -> None:
        """Learn mean and deviation of each number, and the texts, of the training images."""
        scales = []
        for column in values.numbers.T.astype(np.float64):
            known = column[~np.isnan(column)]
            deviation = float(known.std()) if len(known) else 0.0
            scales.append([float(known.mean()) if len(known) else 0.0, deviation or 1.0])
        self._know(scales, [sorted(set(column) - {""}) for column in values.texts.T])

    def _know(self, scales: list[list[float]], texts: list[list[str]]) -> None:
        self.known: dict[str, Any] = {"scales": scales, "texts": texts}
        # No buffers: an average of weights would take those for numbers to be averaged.
        self._scales = torch.tensor(scales, dtype=torch.float32).reshape(-1, 2)
        numbers = [{fingerprint(text): place for place, text in enumerate(each)} for each in texts]
        self._fingerprints = [torch.tensor(sorted(each), dtype=torch.int64) for each in numbers]
        self._places = [torch.tensor([each[one] for one in sorted(each)], dtype=torch.int64) for each in numbers]
        for place, each in enumerate(texts):
            embedding = self.embeddings[place]
            assert isinstance(embedding, nn.Embedding)
            if embedding.num_embeddings != FIRST + len(each):
                self.embeddings[place] = nn.Embedding(
                    FIRST + len(each), TEXT_WIDTH, device=embedding.weight.device, dtype=embedding.weight.dtype
                )

    def get_extra_state(self) -> Tensor:
        """Return what is known as JSON in bytes: a tensor, as files of weights take nothing else."""
        return torch.frombuffer(bytearray(json.dumps(self.known).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Know what was known where weights were saved; their embeddings are loaded after it."""
        known = json.loads(bytes(state.cpu().numpy()))
        self._know(known["scales"], known["texts"])

    def forward(
        self,
        features: Tensor,
        numbers: Tensor | None = None,
        texts: Tensor | None = None,
        partners: Tensor | None = None,
        own_share: Tensor | None = None,
    ) -> Tensor:
        """Join features (B, F) with `numbers` and `texts`, missing ones where none are given; those of mixed images
        with those of their `partners`."""
        if numbers is None or texts is None:
            numbers = features.new_full((len(features), len(self.columns.numeric)), torch.nan, dtype=torch.float32)
            texts = features.new_zeros((len(features), len(self.columns.categorical)), dtype=torch.int64)
        told = self.together(torch.cat([self._scaled(numbers), *self._embedded(texts)], dim=1).to(features.dtype))
        if partners is not None and own_share is not None:
            told = told * own_share + told[partners] * (1 - own_share)
        if self.way == "concat":
            return torch.cat([features, told.to(features.dtype)], dim=1)
        scale, shift = self.film(told).chunk(2, dim=1)
        return features * (1 + scale) + shift

    def _scaled(self, numbers: Tensor) -> Tensor:
        """Return (B, 2 x numeric): numbers in deviations from the mean, 0 where missing, and which are missing."""
        mean, deviation = self._scales.to(numbers.device).unbind(dim=1)
        missing = numbers.isnan() | self._hidden(numbers)
        scaled = ((numbers - mean) / deviation).clamp(-FARTHEST, FARTHEST).masked_fill(missing, 0)
        return torch.cat([scaled, missing.to(scaled.dtype)], dim=1)

    def _embedded(self, texts: Tensor) -> list[Tensor]:
        """Return for each column (B, TEXT_WIDTH)."""
        hidden = self._hidden(texts)
        hides_as_missing = torch.rand(texts.shape, device=texts.device) < 0.5 if self.training else hidden
        vectors = []
        for place, embedding in enumerate(self.embeddings):
            numbers = self._numbers_of(texts[:, place], place)
            stand_in = torch.where(hides_as_missing[:, place], MISSING, UNKNOWN)
            vectors.append(embedding(torch.where(hidden[:, place], stand_in, numbers)))
        return vectors

    def _numbers_of(self, texts: Tensor, place: int) -> Tensor:
        """Return (B,) the numbers of texts in a column's embedding, by their fingerprints."""
        known, places = (each[place].to(texts.device) for each in (self._fingerprints, self._places))
        strange = torch.where(texts == 0, MISSING, UNKNOWN)
        if not len(known):
            return strange
        at = torch.searchsorted(known, texts.contiguous()).clamp(max=len(known) - 1)
        return torch.where(known[at] == texts, FIRST + places[at], strange)

    def _hidden(self, values: Tensor) -> Tensor:
        if not self.training:
            return torch.zeros(values.shape, dtype=torch.bool, device=values.device)
        return torch.rand(values.shape, device=values.device) < HIDDEN
