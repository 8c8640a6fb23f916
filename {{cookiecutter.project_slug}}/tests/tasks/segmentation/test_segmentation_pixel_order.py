"""In which order run lengths count pixels, which no row of a csv file says: told by masks and images, or said to be
assumed."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from competition.checking.check import check
from competition.checking.recognise_format import recognise_folder
from competition.config.loading import load_config
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
    rows, (y, x) = ["key,runs"], np.mgrid[: size[0], : size[1]]
    for number in range(NUM_IMAGES):
        middle, radius = rng.uniform(0, size[0]), rng.uniform(5, 9)
        mask = (y - middle) ** 2 + (x - (4 if number % 3 else size[1] - 3)) ** 2 <= radius**2
        pixels = rng.normal(70, 15, (*size, 3)) + shown * mask[..., None]
        for name in ["train_images/a{}.png", *(["test_images/b{}.png"] if number < 2 else [])]:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name.format(number))
        rows.append(f"a{number},{encode_rle(mask, form)}")
    (folder / "train.csv").write_text("\n".join([*rows, ""]))
    (folder / "sample_submission.csv").write_text("key,runs\nb0,1 1\nb1,1 1\n")


def printed(folder: Path) -> tuple[dict[str, object], list[str]]:
    """Return `format.rle` of the printed config, and the comments."""
    lines = recognise_folder([f"data.dir={folder}"])
    return yaml.safe_load("\n".join(lines))["format"]["rle"], [line for line in lines if line.startswith("#")]


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
