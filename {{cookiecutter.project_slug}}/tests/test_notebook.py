"""A way in from a notebook: what the README shows runs as it stands there; a batch is drawn with its targets."""

import ast
import io
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from task_facts import facts_of
from tiny import PROJECT, tiny_words

from competition.config.loading import load_config
from competition.data.dataset import SeededIndex, normalised, pixels_of, ready, seeded
from competition.data.folds import make_folds
from competition.data.pictures import CLASS_COLORS, Drawn, sheet
from competition.notebook import OpenFold, open_fold, open_run
from competition.prediction.stored import Predictions
from competition.support.errors import CompetitionError
from competition.tasks.contract import Target, Task
from competition.training.trainer import build_trainer

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def fold(task: str, config_file: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenFold:
    return open_sample(config_file, sample, tmp_path, monkeypatch, "data.image_size=64")


def open_sample(
    config_file: Path, sample: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str
) -> OpenFold:
    monkeypatch.chdir(folder)
    given = [*tiny_words(config_file.stem), f"data.dir={sample}", f"data.folds={folder / 'folds.csv'}", *words]
    make_folds(load_config([config_file], given))
    return open_fold(str(config_file), *given, "fold=1")


def test_the_lines_of_the_readme_run_as_they_stand_there(
    task: str, replayable: Path, sample: Path, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"\{\{[^{}]*task_type \}\}", task, readme)  # where the template was not rendered
    (lines,) = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "open_fold" in text]
    assert len([line for line in lines.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / task).symlink_to(replayable / "t")
    (tmp_path / "configs").mkdir()
    trained = load_config([replayable / "t" / "fold0" / "config.yaml"]).model_dump(mode="json")
    (tmp_path / "configs" / f"{task}.yaml").write_text(yaml.safe_dump(trained))
    *statements, last = ast.parse(lines).body
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {}
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    with Image.open(io.BytesIO(shown._repr_png_())) as picture:
        assert min(picture.size) > 200
    assert names["sample"]["image"].shape == (3, *trained["data"]["image_size"])
    assert names["losses"].isfinite().all()
    assert not names["network"].training
    stored = Predictions(replayable / "t" / "fold0" / "oof.npz")
    assert sorted(names["answers"]) == sorted(stored.image_ids)
    for one in names["run"].predict(names["fold"].val_set, fold=0):
        row = stored.places[one.image_id]
        assert Task(task).decode.difference(one.prediction, stored[row]) < 1e-3
        assert (one.height, one.width) == stored.sizes[row]


def test_a_training_that_is_not_there_is_told_with_those_that_are(
    replayable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(replayable.parent)
    with pytest.raises(CompetitionError, match=r"fold 4 was not trained; trained are fold0, fold1$"):
        open_run("t").network(fold=4)
    with pytest.raises(CompetitionError, match="fold 0 of seed 9 was not trained"):
        open_run("t").network(seed=9)


# -- a batch


def test_a_batch_is_that_of_the_loader_and_changes_no_generator(fold: OpenFold) -> None:
    states = random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()
    batch = fold.batch(1)
    assert (random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()) == states
    _, second, *_ = fold.data.train_dataloader()
    assert batch["image_id"] == second["image_id"]
    assert torch.equal(batch["image"], ready(second, fold.config, torch.float32)["image"])
    assert not torch.equal(fold.batch(1, epoch=1)["image"], batch["image"])
    with pytest.raises(CompetitionError, match=r"^epoch 0 has batches 0 to \d+; found 99$"):
        fold.batch(99)


def test_data_that_was_looked_at_alone_is_shared_out_anew_in_a_trainer(fold: OpenFold) -> None:
    assert len(fold.batch()["image"]) == 4
    planned = fold.data.plan()
    fold.data.trainer = build_trainer(
        fold.config.model_copy(update={"trainer": {**fold.config.trainer, "accumulate_grad_batches": 2}}), []
    )
    assert len(fold.batch()["image"]) == 2
    assert fold.data.plan()[0].batches == 2 * planned[0].batches
    assert fold.data.plan()[0].steps == planned[0].steps


def test_a_batchs_targets_are_those_that_were_made_tensors_of(fold: OpenFold, task: str) -> None:
    samples, expected = [], []
    for row in range(4):
        image = fold.train_set.read(row)
        target = fold.train_set.target(row, *image.shape[:2])
        expected.append(fold.train_set.augmentation(image, target, 7)[1])
        samples.append(fold.train_set[SeededIndex(row, 7)])
    found = Task(task).dataset.batch_targets(fold.train_set.collate(samples))
    for one, other in zip(found, expected, strict=True):
        assert one.keys() <= other.keys()  # what is known of whole images beside is no part of a batch
        for key in one:
            np.testing.assert_allclose(one[key], np.asarray(other[key]).reshape(np.shape(one[key])), atol=1e-4)


def test_mixed_targets_hold_what_is_in_either_image(
    task: str, config_file: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Task(task).dataset
    plain = open_sample(config_file, sample, tmp_path, monkeypatch, *facts_of(task).mixing)
    draws = next(plain.data.batches().draws(0))
    batch = plain.train_set.collate([plain.train_set[draw] for draw in draws])
    before, after = dataset.batch_targets(batch), dataset.batch_targets(plain.batch())
    assert len(after) == len(before)

    def classes(targets: list[Target]) -> set[int]:
        caption = Task(task).picture.caption
        return {
            number
            for number, name in enumerate(plain.table.classes)
            for target in targets
            if name in caption(target, plain.table.classes)
        }

    assert classes(after) == classes(before)
    assert any(pickle.dumps(one) != pickle.dumps(other) for one, other in zip(before, after, strict=True))


# -- its picture


def covered(target: Target, size: int, grown: int) -> np.ndarray:
    """Return (size, size) bool: where the masks, boxes or points of a target are, and `grown` pixels around them."""
    where = np.zeros((size, size), dtype=np.uint8)
    if "mask" in target:
        where = np.ascontiguousarray(target["mask"].max(axis=2))
    for left, top, right, bottom in target.get("bboxes", []):
        where[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 1
    for x, y in target.get("keypoints", []):
        where[min(int(y), size - 1), min(int(x), size - 1)] = 1
    kernel = np.ones((2 * grown + 1,) * 2)
    padded = np.pad(where, grown)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return windows.max(axis=(2, 3)) > 0


def test_masks_boxes_and_points_are_drawn_where_they_are(
    task: str, fold: OpenFold, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: list[list[np.ndarray]] = []

    def keep(pictures: list[Drawn], legend: Any) -> Image.Image:
        panels.append([picture.pixels for picture in pictures])
        return sheet(pictures, legend)

    monkeypatch.setattr("competition.training.preview.sheet", keep)
    monkeypatch.setattr("competition.data.pictures.SIDE", 4 * 64)  # pixels of the network are whole numbers of these
    batch, module = fold.batch(), Task(task).dataset
    whole = np.asarray(fold.picture(batch))
    monkeypatch.setattr(Task(task).picture, "draw", lambda *_: None)
    fold.picture(batch)
    num_drawn = 0
    for drawn, bare, target in zip(*panels, module.batch_targets(batch), strict=True):
        changed = (drawn != bare).any(axis=2).reshape(64, 4, 64, 4).any(axis=(1, 3))
        assert not (changed & ~covered(target, 64, grown=2)).any()
        if facts_of(task).is_drawn and covered(target, 64, grown=0).any():
            num_drawn += 1
            assert (changed & covered(target, 64, grown=1)).any()
            assert any((drawn == color).all(axis=2).any() for color in CLASS_COLORS)
        else:
            assert not changed.any()
        found = np.lib.stride_tricks.sliding_window_view(whole[:, :, 0], drawn.shape[:2])
        rows, columns = np.nonzero((found[:, :, 5, 5] == drawn[5, 5, 0]) & (found[:, :, -5, -5] == drawn[-5, -5, 0]))
        assert any(
            np.array_equal(whole[y : y + drawn.shape[0], x : x + drawn.shape[1]], drawn)
            for y, x in zip(rows, columns, strict=True)
        )
    assert (num_drawn > 0) == facts_of(task).is_drawn


def test_a_batch_of_a_loader_is_drawn_as_one_that_is_trained_on(fold: OpenFold) -> None:
    """It may hold 8 bit, or be normalised."""
    draws = next(fold.data.batches().draws(0))
    with seeded(0):
        batch = fold.train_set.collate([fold.train_set[draw] for draw in draws])
    assert fold.picture(batch).tobytes() == fold.picture(ready(batch, fold.config, torch.float32)).tobytes()


def test_pixels_are_those_of_the_file_again(
    task: str, config_file: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = open_sample(config_file, sample, tmp_path, monkeypatch).val_set.read(0).shape[:2]
    fold = open_sample(config_file, sample, tmp_path, monkeypatch, f"data.image_size={list(size)}")
    image = normalised(fold.val_set[0]["image"], fold.config).numpy()
    assert np.array_equal(pixels_of(image, fold.config.data, is_8_bit=True), fold.val_set.read(0))


def test_a_preview_draws_the_first_batch_beside_the_epochs(
    task: str, words: list[str], command: Command, data_dir: Path
) -> None:
    make_folds(load_config([Path(words[0])], words[1:]))
    mixed = [*words, *facts_of(task).mixing]
    done = command("train", "--preview", *mixed)
    assert done.returncode == 0, done.stderr
    *_, epochs, batch = done.stdout.splitlines()
    name = load_config([Path(words[0])], words[1:]).fold_folder
    assert epochs == f"drawn in {name / 'preview.png'}: epochs"
    assert batch == f"drawn in {name / 'preview_batch.png'}: a batch with its targets"
    with Image.open(name / "preview_batch.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(open_fold(*mixed).picture()))
    (name / "preview_batch.png").unlink()
    for path in (data_dir / "train_images").iterdir():
        path.unlink()
    done = command("train", "--preview", *words)
    assert done.returncode == 0
    assert "\nno batch is drawn: " in done.stdout
    assert not (name / "preview_batch.png").exists()
