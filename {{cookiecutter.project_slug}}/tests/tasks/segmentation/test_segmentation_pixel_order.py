"""In which order run lengths count pixels, which no row of a csv file says: told by masks and images, or said to be
assumed."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from competition.checking.check import check
from competition.checking.readings import Reading, settled, try_reading
from competition.checking.recognise_format import recognise_folder
from competition.config.loading import load_config
from competition.tasks.segmentation.formats.mask_contrast import clearer_mask
from competition.tasks.segmentation.formats.pixel_order import Runs
from competition.tasks.segmentation.formats.rle import encode_rle
from competition.tasks.segmentation.settings import RunLengths

FORMS = [
    (RunLengths(order="columns"), (40, 60)),
    (RunLengths(order="rows", base=0), (40, 60)),
    (RunLengths(order="rows"), (48, 48)),
]
NUM_IMAGES = 12


def discs(folder: Path, form: RunLengths, size: tuple[int, int], shown: int = 120) -> None:
    """Write a competition of discs, some at the borders, so much brighter than what is around them."""
    rng = np.random.default_rng(0)
    masks, (y, x) = [], np.mgrid[: size[0], : size[1]]
    for number in range(NUM_IMAGES):
        middle, radius = rng.uniform(0, size[0]), rng.uniform(5, 9)
        masks.append((y - middle) ** 2 + (x - (4 if number % 3 else size[1] - 3)) ** 2 <= radius**2)
    write_competition(folder, form, [(rng.normal(70, 15, size) + shown * mask, mask) for mask in masks])


def write_competition(folder: Path, form: RunLengths, items: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a competition of grey images (H, W) and their masks; the first two are test images, too."""
    rows = ["key,runs"]
    for number, (pixels, mask) in enumerate(items):
        for name in ["train_images/a{}.png", *(["test_images/b{}.png"] if number < 2 else [])]:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            grey = np.clip(pixels, 0, 255).astype(np.uint8)
            Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / name.format(number))
        rows.append(f"a{number},{encode_rle(mask, form)}")
    (folder / "train.csv").write_text("\n".join([*rows, ""]))
    (folder / "sample_submission.csv").write_text("key,runs\nb0,1 1\nb1,1 1\n")


def printed(folder: Path) -> tuple[dict[str, object], list[str]]:
    """Return `format.rle` of the printed config, and the comments."""
    lines = recognise_folder([f"data.dir={folder}"])
    return yaml.safe_load("\n".join(lines))["format"]["rle"], [line for line in lines if line.startswith("#")]


def read_as_columns(folder: Path) -> Reading:
    """Return a reading that counts pixels down the columns, with what masks and images tell otherwise."""
    rows = {"keys": {"key": "{image_id}"}, "mask": "runs"}
    form = {"train": rows, "submission": rows, "rle": {"order": "columns", "base": 1}}
    data = {"dir": str(folder), "image_file": "{image_id}.png"}
    return settled(try_reading("segmentation", {"data": data, "format": form}))


@pytest.mark.parametrize(("form", "size"), FORMS, ids=["columns", "rows from 0", "rows of squares"])
def test_the_order_is_told_by_the_masks_or_their_images(
    tmp_path: Path, form: RunLengths, size: tuple[int, int]
) -> None:
    discs(tmp_path, form, size)
    found, comments = printed(tmp_path)
    assert (found["order"], found["base"]) == (form.order, form.base)
    assert not [line for line in comments if "assumed" in line]


def test_an_order_that_nothing_tells_is_said_to_be_assumed(tmp_path: Path) -> None:
    discs(tmp_path, RunLengths(), (48, 48), shown=0)
    found, comments = printed(tmp_path)
    assert found["order"] == "columns"
    (line,) = [line for line in comments if "assumed" in line]
    assert "format.rle.order: columns" in line
    assert "--preview" in line


def test_a_faint_mask_in_a_smooth_part_is_not_taken_for_one_in_the_textured_part(tmp_path: Path) -> None:
    """Smoke in the sky: in the other order it lies on the ground, where any line changes more than a sky does."""
    rng, (y, x), items = np.random.default_rng(0), np.mgrid[:64, :64], []
    for _ in range(NUM_IMAGES):
        mask = ((y - rng.uniform(12, 20)) / 6) ** 2 + ((x - rng.uniform(42, 52)) / 8) ** 2 <= 1
        pixels = 190 + rng.normal(0, 3, (64, 64)) - 25 * mask
        pixels[32:] = rng.choice([50, 150], (32, 64))
        items.append((pixels, mask))
    write_competition(tmp_path, RunLengths(order="columns"), items)
    found, comments = printed(tmp_path)
    assert found["order"] == "columns"
    (line,) = [line for line in comments if "the images tell the order" in line]
    assert "format.rle.base: 1 is assumed" in line


def test_runs_that_are_longer_than_a_line_do_not_tell_the_order(tmp_path: Path) -> None:
    """Bands over the full width: a single run goes on in itself whatever is counted, in short lines more often."""
    rng, items = np.random.default_rng(0), []
    for top in rng.integers(3, 26, NUM_IMAGES):
        mask = np.zeros((32, 128), dtype=bool)
        mask[[top, top + 1, top + 3]] = True
        items.append((rng.normal(90, 10, mask.shape) + 80 * mask, mask))
    write_competition(tmp_path, RunLengths(order="rows"), items)
    reading = read_as_columns(tmp_path)
    assert reading.part["format"]["rle"]["order"] == "rows"
    assert any("the images tell" in line for line in reading.said or ())


def test_masks_that_stop_short_of_a_border_do_not_tell_the_first_pixel(tmp_path: Path) -> None:
    rng, items = np.random.default_rng(0), []
    for top, left in rng.integers(1, 20, (NUM_IMAGES, 2)):
        mask = np.zeros((40, 60), dtype=bool)
        mask[top : len(mask) - 1, left : left + 12] = True
        items.append((rng.normal(90, 10, mask.shape) + 80 * mask, mask))
    write_competition(tmp_path, RunLengths(order="columns", base=1), items)
    found, comments = printed(tmp_path)
    assert (found["order"], found["base"]) == ("columns", 1)
    assert any("the masks tell the order, but format.rle.base: 1 is assumed" in line for line in comments)


def test_images_are_read_once_to_tell_the_order_and_no_more_than_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    vote = Runs.vote
    monkeypatch.setattr(Runs, "vote", lambda runs: (asked.append(str(runs.source)), vote(runs))[1])
    discs(tmp_path, RunLengths(order="columns"), (48, 48))
    reading = read_as_columns(tmp_path)
    assert sum("images tell" in line for line in reading.said or ()) == 1
    assert settled(reading) is reading
    assert 0 < len(asked) == len(set(asked)) <= NUM_IMAGES


def test_a_large_image_is_compared_at_a_smaller_size() -> None:
    mask = np.zeros((1500, 2100), dtype=bool)
    mask[300:700, 500:1100] = True
    pixels = np.random.default_rng(0).integers(0, 30, (*mask.shape, 1), dtype=np.uint8) + 90 * mask[..., None]
    turned = mask[::-1, ::-1].copy()
    for channels in (1, 5):
        many = np.repeat(pixels.astype(np.uint8), channels, axis=2)
        assert (clearer_mask(many, mask, turned), clearer_mask(many, turned, mask)) == (1, -1)


def test_a_config_against_what_the_masks_tell_is_warned_of(tmp_path: Path, project: Path) -> None:
    discs(tmp_path, RunLengths(order="rows", base=0), (40, 60))
    words = ["format={train: {keys: {key: '{image_id}'}, mask: runs}}", f"data.dir={tmp_path}"]
    words += ["data.image_file={image_id}.png", "data.near_duplicates=false"]
    path = project / "configs" / "segmentation.yaml"
    warnings = [line for line in check(load_config([path], [*words, "format.rle.base=0"])) if "format.rle" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: ")
    assert "format.rle.order: rows" in warnings[0]
    (line,) = [
        line
        for line in check(load_config([path], [*words, "format.rle={order: rows, base: 0}"]))
        if "format.rle" in line
    ]
    assert not line.startswith("warning")
