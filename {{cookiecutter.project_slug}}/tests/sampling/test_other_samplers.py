"""Any sampler in place of the project's own: what it draws follows from seed and epoch, on any number of processes."""

import pickle
import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from timm.data.distributed_sampler import RepeatAugSampler
from tiny import PROJECT, tiny_words
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler
from trainings import assert_ended_like, rows

from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds
from competition.sampling.batch_sampler import TrainBatches
from competition.sampling.build import SeededSampler
from competition.support.errors import CompetitionError
from competition.tasks.made_up_images import write_sample
from competition.training.checkpoint import load_checkpoint

Command = Callable[..., CompletedProcess[str]]

NUM_IMAGES = 12


class OfNumpy:
    """A sampler of a user's own, who knows nothing of seeds."""

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Any:
        yield from (int(np.random.randint(NUM_IMAGES)) for _ in range(8))
        yield random.randrange(NUM_IMAGES)


class WithGenerators(OfNumpy):
    """Who has made generators of his own."""

    def __init__(self) -> None:
        self.numpy, self.older, self.python = np.random.default_rng(), np.random.RandomState(), random.Random()

    def __iter__(self) -> Any:
        yield from self.numpy.integers(NUM_IMAGES, size=5)
        yield from self.older.randint(NUM_IMAGES, size=3)
        yield self.python.randrange(NUM_IMAGES)


class Unseeded(OfNumpy):
    def __iter__(self) -> Any:
        return iter(np.random.default_rng().integers(NUM_IMAGES, size=9).tolist())


SAMPLERS: dict[str, Callable[[], Any]] = {
    "weighted": lambda: WeightedRandomSampler(torch.arange(1.0, NUM_IMAGES + 1).tolist(), 20),
    "weighted, with a generator": lambda: WeightedRandomSampler([1.0] * NUM_IMAGES, 20, generator=torch.Generator()),
    "random": lambda: RandomSampler(range(NUM_IMAGES)),
    "with replacement": lambda: RandomSampler(range(NUM_IMAGES), replacement=True, num_samples=50),
    "subset": lambda: SubsetRandomSampler(range(0, NUM_IMAGES, 2)),
    "timm": lambda: RepeatAugSampler(range(NUM_IMAGES), num_replicas=1, rank=0, selected_round=0),
    "numpy": OfNumpy,
    "with generators": WithGenerators,
    "tensors": lambda: torch.arange(NUM_IMAGES).flip(0),
    "list": lambda: [3, 3, 0, 11, 5],
}


def batches(make: Callable[[], Any], size: int = 1, accumulate: int = 1, **place: Any) -> TrainBatches:
    sampler = SeededSampler(make(), NUM_IMAGES, **({"seed": 5} | place))
    return TrainBatches(sampler, size, accumulate=accumulate)


def epoch_of(made: TrainBatches, epoch: int, start: int = 0) -> list[Any]:
    made.set_epoch(epoch, start_batch=start)
    drawn = list(made)
    assert len(drawn) == len(made) - start
    return drawn


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_is_drawn_again_alike_and_another_one_otherwise(name: str) -> None:
    made = batches(SAMPLERS[name])
    torch.manual_seed(1)
    before = random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()
    epochs = [epoch_of(made, epoch) for epoch in range(3)]
    assert (random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()) == before
    torch.manual_seed(2)
    again = batches(SAMPLERS[name])
    assert epoch_of(again, 2) == epochs[2]  # without the epochs before, as a resumed run
    assert epoch_of(again, 2, start=3) == epochs[2][3:]
    images = [[draw.index for draw in chain(*epoch)] for epoch in epochs]
    if name in ("list", "tensors"):
        assert images[0] == images[1] == [int(one) for one in SAMPLERS[name]()]
    else:
        assert images[0] != images[1]
    assert [draw.seed for draw in chain(*epochs[0])] != [draw.seed for draw in chain(*epochs[1])]


def test_a_sampler_that_cannot_be_seeded_is_refused_with_a_way_on() -> None:
    with pytest.raises(CompetitionError, match=r"^sampler: Unseeded draws other images .* draw by a generator"):
        epoch_of(batches(Unseeded), 0)


@pytest.mark.parametrize("name", ["weighted", "random", "numpy", "with generators", "subset"])
def test_another_seed_of_the_run_draws_otherwise(name: str) -> None:
    first, second = (
        [draw.index for draw in chain(*epoch_of(batches(SAMPLERS[name], seed=seed), 0))] for seed in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_out_what_one_would_draw(name: str, accumulate: int) -> None:
    ranks = [epoch_of(batches(SAMPLERS[name], accumulate=accumulate, rank=rank, world_size=2), 1) for rank in range(2)]
    alone = epoch_of(batches(SAMPLERS[name], size=2 * accumulate), 1)
    shared = [list(chain(*rank)) for rank in ranks]
    assert not set(shared[0]) & set(shared[1])  # each draw has a seed of its own: the same image twice is two draws
    assert sorted(chain(*shared)) == sorted(chain(*alone))
    assert len(ranks[0]) == len(ranks[1])


class WithoutLength:
    def __iter__(self) -> Any:
        return iter([0])


class Short(OfNumpy):
    def __len__(self) -> int:
        return 30


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (WithoutLength, "sampler: WithoutLength has no length; give it a `__len__`"),
        (Short, "sampler: Short yields 9 images in epoch 1; expected 30, as its length says"),
        (lambda: [0, 12], "sampler: list yields 12; expected 0 to 11, the training images of this fold"),
        (lambda: [0, -1], "sampler: list yields -1; expected 0 to 11"),
        (lambda: [0.5, 1], "sampler: list yields a float; expected numbers of images"),
        (
            lambda: BatchSampler(SequentialSampler(range(NUM_IMAGES)), 2, drop_last=True),
            "sampler: BatchSampler yields a list; expected numbers of images, of which batches are made here",
        ),
        (
            lambda: RepeatAugSampler(range(NUM_IMAGES), num_replicas=2, rank=1),
            "sampler: RepeatAugSampler has num_replicas=2; give num_replicas=1 and rank=0",
        ),
        (lambda: [], "sampler: list draws 0 images in epoch 1 for 1 processes; use fewer"),
    ],
)
def test_a_sampler_that_makes_no_epoch_is_refused(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(CompetitionError) as fault:
        epoch_of(batches(make), 0)
    assert str(fault.value).startswith(expected)


@pytest.mark.slow
def test_a_training_by_another_sampler_is_previewed_told_and_resumed_to_the_same_end(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_sampler(config: Any, table: Any, rows: np.ndarray, **place: Any) -> WeightedRandomSampler:
        return WeightedRandomSampler(np.arange(1.0, len(rows) + 1).tolist(), 10)

    monkeypatch.setattr("competition.sampling.build.build_sampler", build_sampler)
    task = task_names()[0]
    write_sample(task, tmp_path / "data", size=24)
    words = [str(PROJECT / "configs" / f"{task}.yaml"), *tiny_words(task), "data.num_folds=2", "data.image_size=32"]
    words += ["trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "checkpoint.every_steps=1"]
    make_folds(load_config([Path(words[0])], words[1:]))
    previewed = command("train", "--preview", *words)
    header, *lines = previewed.stdout.splitlines()
    assert header.split() == ["epoch", "images", "batches", "steps", "lr_first", "lr_last"]
    assert [line.split()[:4] for line in lines[:2]] == [["1", "8", "4", "2"], ["2", "8", "4", "2"]]
    assert "leaves out up to 2 of its 10 images" in lines[2]
    assert command("train", *words, "name=whole").returncode == 0
    assert command("train", *words, "name=stopped", "trainer.max_time=00:00:00:00").returncode == 3
    folder = tmp_path / "outputs" / "stopped" / "fold0"
    assert load_checkpoint(folder / "latest.pt")["FoldData"] == {"epoch": 0, "batches_done": 2}
    assert command("train", *words, "name=stopped", "--resume").returncode == 0
    whole = tmp_path / "outputs" / "whole" / "fold0"
    assert_ended_like(folder, whole)
    assert [(row["images"], row["positive_share"]) for row in rows(whole)] == [("8", ""), ("8", "")]
