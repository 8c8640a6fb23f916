"""From rows to batches: the same keys everywhere, random changes that follow from seeds alone, exact shares."""

import os
import pickle
import random
from itertools import chain
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset

from competition.config.data_settings import Data
from competition.config.loading import load_config, validate
from competition.config.sampler_settings import Sampler
from competition.config.settings import Config
from competition.data.dataset import Batch, ImageDataset, SeededIndex, ready
from competition.data.loaders import ShareOfRank, num_workers
from competition.sampling.batch_sampler import TrainBatches
from competition.sampling.build import build_sampler, fold_sampler
from competition.sampling.sampler import RatioSampler
from competition.sampling.share_schedule import ShareSchedule
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Task
from competition.training.fold_data import FoldData, mixing_warnings


@pytest.fixture(scope="module")
def table(config: Config) -> Table:
    return Task(config.task).table.read_table(config)


@pytest.fixture(scope="module")
def train_set(config: Config, table: Table) -> ImageDataset:
    return ImageDataset(config, table.image_ids, table=table, train=True)


@pytest.fixture(scope="module")
def test_set(config: Config) -> ImageDataset:
    submission = Task(config.task).submission
    classes = Task(config.task).table.read_table(config).classes
    return ImageDataset(config, submission.read_test_ids(config, classes))


def assert_equal(first: Any, second: Any) -> None:
    """Compare samples or batches, key by key, to the last bit."""
    if isinstance(first, dict):
        assert_equal(list(first.items()), list(second.items()))
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_a_sample_carries_its_id_and_original_size(train_set: ImageDataset, config: Config) -> None:
    for index in range(5):
        sample = train_set[SeededIndex(index, 0)]
        assert sample["image_id"] == train_set.image_ids[index]
        assert (sample["height"], sample["width"]) == train_set.read(index).shape[:2]
        assert sample["image"].shape == (3, *config.data.image_size)
        assert sample["image"].dtype in (torch.uint8, torch.float32)


class BlackImages(ImageDataset):
    """Images that are not read from files, as those given to a bundle and those that it cannot read."""

    def read(self, index: int) -> np.ndarray:
        """Return a black image."""
        return np.zeros((40, 30, 3), np.uint8)


def test_a_sample_is_of_the_image_that_a_dataset_says_it_reads(test_set: ImageDataset, config: Config) -> None:
    sample = BlackImages(config, test_set.image_ids)[0]
    assert (sample["height"], sample["width"]) == (40, 30)
    assert not sample["image"].any()


def test_a_test_image_is_a_sample_without_target(train_set: ImageDataset, test_set: ImageDataset) -> None:
    assert set(test_set[0]) == {"image_id", "image", "height", "width"} < set(train_set[0])
    test_batch = test_set.collate([test_set[0], test_set[1]])
    assert set(test_batch) == set(test_set[0]) < set(train_set.collate([train_set[0], train_set[1]]))


@pytest.mark.parametrize("channels", [1, 3, 130])
@pytest.mark.parametrize("kind", ["8 bit", "light", "float"])
def test_images_are_normalised_to_the_last_bit_as_albumentations_does(
    config: Config, table: Table, channels: int, kind: str
) -> None:
    """Earlier runs were trained so. Whole batches of 8 bit travel as they are, others are normalised before."""
    mean, std = np.linspace(0.485, 0.406, channels).tolist(), np.linspace(0.229, 0.225, channels).tolist()
    values = {"channels": channels, "mean": mean, "std": std}
    light = {"brightness_contrast": {"probability": float(kind == "light")}}
    data = Data.model_validate(config.data.model_dump() | values | {"augmentation": light})
    config = config.model_copy(update={"data": data})
    dataset = ImageDataset(config, table.image_ids, table=table, train=True)
    height, width = dataset.read_size(0)
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    image = image.astype(np.float32) / 77 if kind == "float" else image
    target = table.target(dataset.rows[0], height, width)  # ty: ignore[not-subscriptable]
    sample, plain = (dataset.sample(0, one, target, seed=3) for one in (image, np.zeros_like(image, dtype=np.uint8)))
    changed, _ = dataset.augmentation(image, target, 3)
    largest = 1.0 if kind == "float" else 255.0
    parts = [slice(first, first + 3) for first in range(0, channels, 3)]  # it takes no more than 128
    each = [albumentations.Normalize(tuple(data.mean[one]), tuple(data.std[one]), largest) for one in parts]
    made = [step(image=changed[:, :, one])["image"] for step, one in zip(each, parts, strict=True)]
    expected = np.concatenate([one.reshape(*one.shape[:2], -1) for one in made], axis=2)
    for samples in ([sample], [sample, plain]):
        batch = dataset.collate(samples)
        assert batch["image"].dtype == (torch.uint8 if kind == "8 bit" else torch.float32)
        seen = ready(batch, config, torch.float32)["image"]
        assert seen.dtype == torch.float32
        np.testing.assert_array_equal(seen[0].numpy().transpose(1, 2, 0), expected)
        assert torch.equal(
            seen[1:], ready({"image": plain["image"][None]}, config, torch.float32)["image"][: len(samples) - 1]
        )


def test_a_draw_gives_the_same_sample_again_and_another_seed_another(train_set: ImageDataset) -> None:
    for index in range(4):
        assert_equal(train_set[SeededIndex(index, 7)], train_set[SeededIndex(index, 7)])
    images = [train_set[SeededIndex(0, seed)]["image"] for seed in range(6)]
    assert len({image.numpy().tobytes() for image in images}) > 3


def test_what_was_drawn_before_does_not_matter(config: Config, table: Table, train_set: ImageDataset) -> None:
    fresh = ImageDataset(config, table.image_ids, table=table, train=True)
    for seed in range(3):
        train_set[SeededIndex(1, seed)]
    assert_equal(fresh[SeededIndex(2, 9)], train_set[SeededIndex(2, 9)])


@pytest.mark.parametrize("workers", [0, 2])
def test_by_number_alone_each_image_and_epoch_draws_afresh(train_set: ImageDataset, workers: int) -> None:
    """As in a notebook: twenty times the same image in a plain DataLoader, two epochs of it."""
    torch.manual_seed(0)
    loader = DataLoader(Subset(train_set, [0] * 20), batch_size=5, collate_fn=train_set.collate, num_workers=workers)
    batches = [batch["image"].numpy().tobytes() for _ in range(2) for batch in loader]
    assert len(set(batches)) == len(batches) == 8
    assert len({image.numpy().tobytes() for batch in loader for image in batch["image"]}) > 10  # flips alone are four
    assert len({train_set[0]["image"].numpy().tobytes() for _ in range(10)}) > 5


def test_a_number_alone_leaves_the_users_own_generators_as_they_are(train_set: ImageDataset) -> None:
    state = random.getstate(), pickle.dumps(np.random.get_state())
    train_set[0]
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == state


def test_images_to_be_validated_are_not_changed_at_random(config: Config, table: Table) -> None:
    dataset = ImageDataset(config, table.image_ids, table=table)
    assert_equal(dataset[SeededIndex(0, 1)], dataset[SeededIndex(0, 2)])


def test_images_without_a_group_are_groups_by_themselves(config: Config, data_dir: Path) -> None:
    """As pseudo-labelled images are, and images that train.csv does not name."""
    frame = pd.read_csv(data_dir / "train.csv", dtype=str, keep_default_na=False)
    frame.assign(patient=["p" if i == frame["image_id"][0] else "" for i in frame["image_id"]]).to_csv(
        data_dir / "train.csv", index=False
    )
    data = config.data.model_copy(update={"dir": data_dir})
    settings = Sampler(group="patient", max_per_group=1)
    grouped = config.model_copy(update={"data": data, "sampler": settings})
    table = Task(config.task).table.read_table(grouped)
    number = len(table.image_ids)
    assert sorted(build_sampler(grouped, table, np.arange(number))) == list(range(number))


def load(train_set: ImageDataset, config: Config, table: Table, workers: int) -> list[Batch]:
    """Return the batches of two epochs in which every image comes once."""
    every_image_once = config.model_copy(update={"sampler": Sampler()})
    batches = TrainBatches(fold_sampler(every_image_once, table, np.arange(len(table.image_ids))), 5)
    loader = DataLoader(train_set, batch_sampler=batches, collate_fn=train_set.collate, num_workers=workers)
    loaded = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        loaded += list(loader)
    return loaded


def test_batches_do_not_depend_on_the_number_of_workers(train_set: ImageDataset, config: Config, table: Table) -> None:
    alone = load(train_set, config, table, workers=0)
    assert_equal(alone, load(train_set, config, table, workers=0))
    assert_equal(alone, load(train_set, config, table, workers=2))
    first, second = (list(chain(*(batch["image_id"] for batch in epoch))) for epoch in (alone[:4], alone[4:]))
    assert first != second
    assert len(set(first)) == len(first) == 20  # no image twice; of 24 the last, incomplete batch is left out


def test_processes_that_are_no_forks_are_sent_the_images_to_read(train_set: ImageDataset) -> None:
    sent = pickle.loads(pickle.dumps(train_set))  # as macOS, and Python from 3.14 on, start the workers of a loader
    assert_equal(sent[SeededIndex(1, 7)], train_set[SeededIndex(1, 7)])


@pytest.mark.parametrize(
    ("cores", "processes", "num_nodes", "expected"),
    [(1, 1, 1, 1), (4, 1, 1, 4), (4, 2, 1, 2), (64, 1, 1, 8), (64, 16, 1, 4), (16, 16, 2, 2), (2, 8, 1, 1)],
)
def test_processes_that_read_images_share_the_cores(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, num_nodes: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: processes > 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes)
    assert num_workers(load_config([config_file], [f"trainer.num_nodes={num_nodes}"])) == expected
    assert num_workers(load_config([config_file], ["data.num_workers=3"])) == 3


def test_a_broken_image_is_named_with_its_line(
    config: Config, table: Table, tmp_path: Path, test_set: ImageDataset
) -> None:
    data = config.data.model_copy(update={"train_images": str(tmp_path), "test_images": str(tmp_path)})
    config = config.model_copy(update={"data": data})
    for name in (table.image_ids[2], test_set.image_ids[3]):
        (tmp_path / str(name)).write_bytes(b"broken")
    broken = ImageDataset(config, table.image_ids, table=table)
    with pytest.raises(CompetitionError, match=rf"truncated or no image .* \(train\.csv line {table.lines[2]}\)"):
        broken[2]
    with pytest.raises(CompetitionError, match=r"truncated or no image .* \(image 4 of sample_submission\.csv\)"):
        ImageDataset(config, test_set.image_ids)[3]


# -- who reads what


@given(st.integers(1, 200), st.integers(1, 9))
@settings(max_examples=100)
def test_ranks_share_every_image_once_without_padding(num_images: int, world_size: int) -> None:
    shares = [list(ShareOfRank(num_images, rank, world_size)) for rank in range(world_size)]
    assert [len(ShareOfRank(num_images, rank, world_size)) for rank in range(world_size)] == [*map(len, shares)]
    assert all(shares)
    read = sorted(chain(*shares))
    if num_images >= world_size:
        assert read == list(range(num_images))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    else:  # a rank without a batch would make the others wait for ever: it reads an image a second time
        assert set(read) == set(range(num_images))
        assert all(len(share) == 1 for share in shares)


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(CompetitionError, match="no image"):
        ShareOfRank(0, 0, 1)


def epoch_draws(
    num_images: int, batch_size: int, epoch: int, start: int = 0, accumulate: int = 1, **place: Any
) -> list[list[SeededIndex]]:
    """Return the batches of a process that sees every image once an epoch."""
    sampler = RatioSampler(np.ones(num_images, dtype=bool), seed=3, schedule=ShareSchedule.constant(None), **place)
    batches = TrainBatches(sampler, batch_size, accumulate=accumulate)
    batches.set_epoch(epoch, start_batch=start)
    drawn = list(batches)
    assert len(batches) == len(drawn) + start
    return drawn


@given(st.integers(3, 60), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
@example(28, 4, 1, 3, 0)  # two steps of 12 images, not a third of the other four
@example(7, 2, 2, 3, 0)  # one step of 7
@settings(max_examples=60, deadline=None)
def test_a_step_and_its_seeds_are_the_same_on_any_number_of_processes_and_accumulated_batches(
    num_images: int, batch_size: int, world_size: int, accumulate: int, epoch: int
) -> None:
    ranks = [
        epoch_draws(num_images, batch_size, epoch, accumulate=accumulate, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    alone = epoch_draws(num_images, batch_size * world_size * accumulate, epoch)
    assert all(batch for rank in ranks for batch in rank)
    parts, rest = divmod(len(ranks[0]), len(alone))
    assert rest == 0
    assert parts <= accumulate
    for number, step in enumerate(alone):
        own = [chain(*rank[number * parts : (number + 1) * parts]) for rank in ranks]
        assert sorted(chain(*own)) == sorted(step)
    assert {len(rank) for rank in ranks} == {len(ranks[0])}
    if num_images >= batch_size * world_size * accumulate:
        assert {len(batch) for rank in ranks for batch in rank} == {batch_size}


@given(st.integers(2, 60), st.integers(1, 5), st.integers(1, 3), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_resumed_epoch_goes_on_with_the_batch_that_was_next(
    num_images: int, batch_size: int, accumulate: int, start: int
) -> None:
    split = {"accumulate": accumulate, "rank": 1, "world_size": 2}
    whole = epoch_draws(num_images, batch_size, 2, **split)
    start = min(start, len(whole))
    assert epoch_draws(num_images, batch_size, 2, start=start, **split) == whole[start:]


@given(st.integers(2, 60), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_no_two_draws_share_a_seed_within_or_between_epochs(num_images: int, batch_size: int) -> None:
    draws = [draw for epoch in range(3) for batch in epoch_draws(num_images, batch_size, epoch) for draw in batch]
    assert len({draw.seed for draw in draws}) == len(draws)


def test_mixing_in_batches_of_one_image_is_warned_of(config: Config) -> None:
    kind: Any = type(getattr(config, "mix"))  # noqa: B009 - each task has its own
    plain = config.model_copy(update={"mix": kind()})
    mixed = config.model_copy(update={"mix": kind(**dict.fromkeys(kind.model_fields, 0.5))})
    (line,) = mixing_warnings(mixed, 1)
    assert line.startswith("mix: a device has batches of 1 image")
    assert f"set data.batch_size={2 * config.data.batch_size}," in line
    assert mixing_warnings(mixed, 2) == mixing_warnings(plain, 1) == []


# -- sizes by epoch


def test_training_images_have_the_size_of_their_epoch_and_all_others_the_last(
    config_file: Path, sample: Path, config: Config
) -> None:
    words = ["data.image_size=[[0, 32], [1, [48, 64]], [3, 96]]", f"data.dir={sample}", "data.num_workers=0"]
    sized = load_config([config_file], words)
    assert load_config([config_file], [*words, "data.image_size=64"]).data.train_sizes == []
    kept = sized.model_dump(mode="json")
    assert validate(kept, {}, "again") == sized
    # A run's own config with another size over it: training sees that size, too, from the first epoch on.
    other, same = (validate(kept | {"data": kept["data"] | {"image_size": size}}, {}, "again") for size in (64, 96))
    assert (other.data.train_sizes, same) == ([], sized)
    table = Task(sized.task).table.read_table(sized)
    data = FoldData(sized, table, np.arange(len(table.image_ids)) % 2)
    sizes = [tuple(data.batch(0, epoch)["image"].shape[-2:]) for epoch in range(5)]
    assert sizes == [(32, 32), (48, 64), (48, 64), (96, 96), (96, 96)]
    assert data.val_set[0]["image"].shape[-2:] == data.train_set[0]["image"].shape[-2:] == (96, 96)


def test_sizes_by_epoch_begin_with_the_first(config_file: Path) -> None:
    with pytest.raises(CompetitionError, match=r"data\.train_sizes: .*; image_size by epoch needs epochs that ascend"):
        load_config([config_file], ["data.image_size=[[2, 32], [5, 64]]"])
