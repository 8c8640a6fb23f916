"""From `sampler:` in YAML to the sampler of a fold, and what any other sampler needs to take its place.

To draw by a sampler of your own, return it from `build_sampler`: anything that has a length and yields numbers of the
fold's training images, counted from 0, as torch's WeightedRandomSampler, timm's samplers or a list.
"""

import operator
import random
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from competition.config.sampler_settings import PositiveColumn
from competition.config.settings import Config
from competition.data.dataset import seeded
from competition.data.groups import join_groups
from competition.data.training_part import image_column, refuse_absent_column
from competition.sampling.sampler import RatioSampler, class_weights
from competition.sampling.share_schedule import ShareSchedule
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table


class Indices(Protocol):
    """Anything that has a length and yields numbers of images."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...


class EpochSampler(Protocol):
    """What batches are made of: RatioSampler has it, and SeededSampler gives it to any other sampler."""

    seed: int
    rank: int
    world_size: int

    def num_drawn(self, epoch: int) -> int:
        """Return the draws of an epoch, of all ranks together."""
        ...

    def own_rows(self, epoch: int) -> Iterator[list[int]]:
        """Yield in pieces, every time the same, what this rank draws: `rank`, `rank` + `world_size`, ... of all."""
        ...


def build_sampler(
    config: Config, table: Table, rows: np.ndarray, *, rank: int = 0, world_size: int = 1
) -> RatioSampler | Indices:
    """Return the sampler over the training images of a fold, `rows` (n,) of the table; it yields numbers up to n - 1.

    A sampler of your own needs no `rank` and no `world_size`: it draws for all ranks (where it asks for `num_replicas`,
    it is 1), and each gets its share.
    """
    settings = config.sampler
    present = table.present()[rows]
    points = settings.share if isinstance(settings.share, list) else [(0, settings.share)]
    return RatioSampler(
        _positive(config, table, present, rows),
        seed=config.seed,
        schedule=ShareSchedule(tuple((e, None if s == "natural" else s) for e, s in points), settings.course),
        keep=settings.keep,
        num_draws=settings.num_draws,
        weights=class_weights(present, settings.weights) if settings.weights else None,
        groups=join_groups([image_column(config, table, settings.group)])[rows] if settings.group else None,
        max_per_group=settings.max_per_group,
        rank=rank,
        world_size=world_size,
    )


def fold_sampler(config: Config, table: Table, rows: np.ndarray, *, rank: int = 0, world_size: int = 1) -> EpochSampler:
    """Return what `build_sampler` made, of whatever kind, ready to be cut into batches."""
    sampler = build_sampler(config, table, rows, rank=rank, world_size=world_size)
    if isinstance(sampler, RatioSampler):
        return sampler
    return SeededSampler(sampler, len(rows), seed=config.seed, rank=rank, world_size=world_size)


class SeededSampler:
    """Makes any sampler draw by the run's seed and the epoch, the same on every rank, and deals it to the ranks.

    It seeds torch's, numpy's and Python's own generators while the sampler draws, and those that the sampler holds; a
    sampler that has `set_epoch` is told the epoch. So an epoch can be drawn again, as a resumed run does: the first one
    that is asked for is, to see that.
    """

    def __init__(self, sampler: Indices, num_images: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        """Raise CompetitionError where the sampler has no length, or shares out its draws itself."""
        self.name = f"sampler: {type(sampler).__name__}"
        if not hasattr(sampler, "__len__"):
            raise CompetitionError(f"{self.name} has no length; give it a `__len__`: how many images an epoch draws")
        if (replicas := getattr(sampler, "num_replicas", 1)) != 1:
            raise CompetitionError(
                f"{self.name} has num_replicas={replicas}; give num_replicas=1 and rank=0: its draws are dealt to the "
                "processes here"
            )
        self.sampler, self.num_images = sampler, num_images
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._draws_again = False  # as was seen

    def num_drawn(self, epoch: int) -> int:
        """Return the sampler's length in an epoch; raise CompetitionError if a rank gets nothing."""
        if set_epoch := getattr(self.sampler, "set_epoch", None):
            set_epoch(epoch)
        number = len(self.sampler)
        if number < self.world_size:
            raise CompetitionError(
                f"{self.name} draws {number} images in epoch {epoch + 1} for {self.world_size} processes; use fewer"
            )
        return number

    def own_rows(self, epoch: int) -> Iterator[list[int]]:
        """Yield this rank's share of the epoch; raise CompetitionError where the sampler does not keep its word."""
        expected = self.num_drawn(epoch)
        rows = self._checked(self._drawn(expected, epoch), expected, epoch)
        if not self._draws_again and self._drawn(self.num_drawn(epoch), epoch) != rows:
            raise CompetitionError(
                f"{self.name} draws other images when it draws the same epoch again, as a resumed run does; draw by a "
                "generator that it holds as an attribute, or by numpy's, torch's or Python's own functions"
            )
        self._draws_again = True
        yield rows[self.rank :: self.world_size]

    def _drawn(self, expected: int, epoch: int) -> list[int]:
        number = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        with seeded(number):
            for own in vars(self.sampler).values() if hasattr(self.sampler, "__dict__") else ():
                _seed(own, number)
            return list(islice(self.sampler, expected + 1))

    def _checked(self, drawn: list[int], expected: int, epoch: int) -> list[int]:
        if len(drawn) != expected:
            found = f"more than {expected}" if len(drawn) > expected else str(len(drawn))
            raise CompetitionError(
                f"{self.name} yields {found} images in epoch {epoch + 1}; expected {expected}, as its length says"
            )
        try:
            rows = [operator.index(row) for row in drawn]
        except TypeError:
            kind = next(type(row).__name__ for row in drawn if not hasattr(row, "__index__"))
            raise CompetitionError(
                f"{self.name} yields a {kind}; expected numbers of images, of which batches are made here"
            ) from None
        if odd := [row for row in rows if not 0 <= row < self.num_images]:
            raise CompetitionError(
                f"{self.name} yields {odd[0]}; expected 0 to {self.num_images - 1}, the training images of this fold"
            )
        return rows


def _seed(generator: object, number: int) -> None:
    """Seed a generator of torch's, numpy's or Python's; leave all else as it is."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(number)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(number).state
    elif isinstance(generator, np.random.RandomState | random.Random):
        generator.seed(number)


def _positive(config: Config, table: Table, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (n,) bool; without a rule every image is positive, so that an epoch holds each once."""
    rule = config.sampler.positive
    if rule is None:
        return np.ones(len(rows), dtype=bool)
    if isinstance(rule, PositiveColumn):
        refuse_absent_column(table, rule.column, "sampler.positive")
        values = np.char.lower(image_column(config, table, rule.column)[rows].astype(str))
        return ~np.isin(values, ["", "0", "0.0", "false", "no", "nan"])
    if isinstance(rule, str):
        return present.sum(axis=1) > 0
    unknown = [name for name in rule if name not in table.classes]
    if unknown:
        raise CompetitionError(
            f"sampler.positive: {unknown[0]!r} is no class of train.csv; expected some of {', '.join(table.classes)}"
        )
    return present[:, [table.classes.index(name) for name in rule]].sum(axis=1) > 0
