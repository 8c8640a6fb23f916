"""Masks as files: with and without train.csv, a file an image or one a class, and what is wrong with them."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from competition.checking.check import check
from competition.config.loading import validate
from competition.support.errors import CompetitionError
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.segmentation.table import SegmentationTable, read_table

LABELS = np.array([[0, 1, 2], [2, 2, 0]], dtype=np.uint8)


def read(folder: Path, files: str, *, keys: dict[str, str] | None = None, **data: Any) -> SegmentationTable:
    form = {"train": {"keys": keys, "files": files}, "submission": {"keys": {"image_id": "{image_id}"}}}
    values = {"name": "t", "task": "segmentation", "data": {"dir": str(folder), **data}, "format": form}
    return read_table(validate(values, {}, "test"))


def competition(folder: Path, *images: str) -> Path:
    for name in ("train_images", "masks"):
        (folder / name).mkdir(parents=True)
    for image in images:
        (folder / "train_images" / image).touch()
    return folder / "masks"


def save(path: Path, labels: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_whatever_is_not_zero_is_the_one_class(tmp_path: Path, suffix: str, dtype: type) -> None:
    save(competition(tmp_path, "a.png", "b.png") / f"a.png{suffix}", LABELS.astype(dtype))
    table = read(tmp_path, f"masks/{{image_id}}{suffix}")
    assert table.image_ids.tolist() == ["a.png"]  # b has no mask file
    assert table.classes == ("object",)
    np.testing.assert_array_equal(table.target(0, 2, 3)["mask"][:, :, 0], LABELS > 0)
    assert table.amounts().tolist() == [4]
    assert table.lines.tolist() == [0]


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_pixel_values_are_the_classes_in_their_order(tmp_path: Path, suffix: str) -> None:
    save(competition(tmp_path, "a.png") / f"a{suffix}", LABELS)
    table = read(tmp_path, f"masks/{{image_id}}{suffix}", image_file="{image_id}.png", classes=["cat", "dog"])
    mask = table.target(0, 2, 3)["mask"]
    np.testing.assert_array_equal(mask[:, :, 0], LABELS == 1)
    np.testing.assert_array_equal(mask[:, :, 1], LABELS == 2)
    assert table.summary() == ["masks: cat 1, dog 1", "images without any mask: 0 of 1"]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_tif_is_read_by_its_numbers_whatever_packs_it(tmp_path: Path, mode: str, compression: str) -> None:
    image = Image.fromarray(LABELS, mode="L")
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.save(competition(tmp_path, "a") / "a.tif", compression=compression)
    mask = read(tmp_path, "masks/{image_id}.tif", classes=["cat", "dog"]).target(0, 2, 3)["mask"]
    np.testing.assert_array_equal(mask @ [1, 2], LABELS)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_a_mask_may_be_as_large_as_its_image_and_one_bound_holds_for_both(tmp_path: Path, suffix: str) -> None:
    """Pillow has a bound of its own, at 179 million pixels, that no key moves."""
    assert Image.MAX_IMAGE_PIXELS is None
    path = competition(tmp_path, "a") / f"a{suffix}"
    save(path, LABELS)
    with pytest.raises(CompetitionError, match=r"a\.\w+: has 2 x 3 pixels, more than data\.max_pixels 5; set data"):
        read(tmp_path, f"masks/{{image_id}}{suffix}", max_pixels=5).target(0, 2, 3)
    assert read(tmp_path, f"masks/{{image_id}}{suffix}", max_pixels=6).target(0, 2, 3)["mask"].sum() == 4


def test_a_palette_is_read_by_its_numbers_not_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS, mode="P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.save(competition(tmp_path, "a") / "a.png")
    mask = read(tmp_path, "masks/{image_id}.png", classes=["cat", "dog"]).target(0, 2, 3)["mask"]
    np.testing.assert_array_equal(mask @ [1, 2], LABELS)


def test_a_file_a_class_may_be_missing(tmp_path: Path) -> None:
    masks = competition(tmp_path, "a", "b", "c")
    save(masks / "a_cat.png", np.uint8(255) * (LABELS == 1))
    save(masks / "b_dog.png", np.uint8(255) * (LABELS == 2))
    table = read(tmp_path, "masks/{image_id}_{class_id}.png", classes=["cat", "dog"], absent_images="empty")
    assert table.image_ids.tolist() == ["a", "b", "c"]
    assert table.present().tolist() == [[True, False], [False, True], [False, False]]
    assert table.target(2, 5, 4)["mask"].shape == (5, 4, 2)
    left = read(tmp_path, "masks/{image_id}_{class_id}.png", classes=["cat", "dog"])
    assert left.image_ids.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a_cat", "a_dog", "b_cat", "b_dog"], ["1 of 3 images have no mask file, as {}/c_cat.png: taken as empty"]),
        (["a_cat", "b_cat", "c_cat", "a_dog", "b_dog", "c_dog"], []),
        (["a_cat", "b_cat", "c_cat", "b_dog"], ["masks: 2 of 3 images have no file of dog, taken as empty"]),
        (["a_dog", "b_cat", "c_dog"], ["masks: 2 of 3 images have no file of cat, 1 of dog, taken as empty"]),
    ],
)
def test_how_many_images_lack_the_file_of_a_class_is_told(tmp_path: Path, names: list[str], told: list[str]) -> None:
    masks = competition(tmp_path, "a", "b", "c")
    for name in names:
        save(masks / f"{name}.png", LABELS > 0)
    table = read(tmp_path, "masks/{image_id}_{class_id}.png", classes=["cat", "dog"], absent_images="empty")
    assert table.summary()[2:] == [line.format(masks) for line in told]


def read_shaded(folder: Path, suffix: str, classes: list[str], **layout: Any) -> SegmentationTable:
    """Read a mask of one half inside, and one that is empty."""
    masks = competition(folder, "a", "b")
    mask = np.zeros((40, 60), np.uint8)
    for name, shift in (("a", 11), ("b", 60)):
        mask[:, :] = np.where(np.add.outer(np.arange(40), np.arange(60)) > 40 + shift, 255, 0) * (name == "a")
        for one in ["", *(f"_{one}" for one in classes)]:
            save(masks / f"{name}{one}{suffix}", mask)
    pattern = f"masks/{{image_id}}{'_{class_id}' if classes else ''}{suffix}"
    form = {"train": {"keys": None, "files": pattern, **layout}, "submission": {"keys": {"image_id": "{image_id}"}}}
    data = {"dir": str(folder)} | ({"classes": classes} if classes else {})
    return read_table(validate({"name": "t", "task": "segmentation", "data": data, "format": form}, {}, "test"))


@pytest.mark.parametrize("classes", [[], ["cat", "dog"]])
def test_traces_of_jpeg_in_masks_are_told_and_cut_off_by_a_threshold(tmp_path: Path, classes: list[str]) -> None:
    clean, lossy, cut = (
        read_shaded(tmp_path / str(number), suffix, classes, **layout)
        for number, (suffix, layout) in enumerate([(".png", {}), (".jpg", {}), (".jpg", {"threshold": 127})])
    )
    told = [[line for line in table.summary() if "pixel values" in line] for table in (clean, lossy, cut)]
    assert told[0] == told[2] == []
    first = tmp_path / "1" / "masks" / ("a_cat.jpg" if classes else "a.jpg")
    assert told[1][0].startswith(f"warning: masks of 1 images have pixel values beside 0 and one other, as {first}: ")
    assert "% of all pixels, which count as inside" in told[1][0]
    expected, with_traces, found = (table.target(0, 40, 60)["mask"] for table in (clean, lossy, cut))
    assert with_traces.sum() > expected.sum()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("layout", "classes", "message"),
    [
        ({"threshold": 127, "colors": {"cat": [1, 2, 3]}}, None, "format.train.threshold is of mask files"),
        ({"threshold": 127, "files": None}, None, "format.train.threshold is of mask files"),
        ({"threshold": 127}, ["cat", "dog"], "format.train.threshold: found 127 beside 2 classes in a file"),
    ],
)
def test_a_threshold_that_cuts_nothing_is_refused(
    tmp_path: Path, layout: dict[str, Any], classes: list[str] | None, message: str
) -> None:
    save(competition(tmp_path, "a") / "a.png", LABELS)
    train = {"files": "masks/{image_id}.png", "keys": {"id": "{image_id}"} if layout.get("files", "") is None else None}
    form = {"train": train | layout, "submission": {"keys": {"image_id": "{image_id}"}}}
    values = {"name": "t", "task": "segmentation", "data": {"dir": str(tmp_path), "classes": classes}, "format": form}
    with pytest.raises(CompetitionError, match=re.escape(message)):
        read_table(validate(values, {}, "test"))


def test_an_image_that_train_csv_names_twice_is_refused_beside_mask_files(tmp_path: Path) -> None:
    save(competition(tmp_path) / "b.png", LABELS)
    (tmp_path / "train.csv").write_text("id,patient\nb,1\na,2\nb,3\n")
    with pytest.raises(CompetitionError, match=r"train\.csv: line 4: .*'b'.*second row of this image; expected one"):
        read(tmp_path, "masks/{image_id}.png", keys={"id": "{image_id}"})


def test_train_csv_may_name_the_images_whose_masks_are_files(tmp_path: Path) -> None:
    save(competition(tmp_path) / "b.png", LABELS)
    (tmp_path / "train.csv").write_text("id,patient\nb,1\na,2\n")
    table = read(tmp_path, "masks/{image_id}.png", keys={"id": "{image_id}"})
    assert table.image_ids.tolist() == ["b", "a"]
    assert table.lines.tolist() == [2, 3]
    assert table.present().tolist() == [[True], [False]]
    path = tmp_path / "masks" / "a.png"
    assert f"1 of 2 images have no mask file, as {path}: taken as empty" in table.summary()
    with pytest.raises(CompetitionError, match=r"\.tif: no such mask file of any of 2 images, as \S+b\.tif;"):
        read(tmp_path, "masks/{image_id}.tif", keys={"id": "{image_id}"})


def test_images_and_masks_may_lie_in_a_folder_each(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / "train_images" / name).mkdir(parents=True)
        (tmp_path / "train_images" / name / "image.png").touch()
        save(tmp_path / "train_images" / name / "mask.npy", LABELS[:, :, None])
    table = read(tmp_path, "train_images/{image_id}/mask.npy", image_file="{image_id}/image.png")
    assert table.image_ids.tolist() == ["x", "y"]
    assert table.target(1, 2, 3)["mask"].sum() == 4


@pytest.mark.parametrize(
    ("name", "content", "data", "message"),
    [
        ("a.png", b"no image", {}, "a.png: truncated or no mask"),
        ("a.png", LABELS, {"classes": ["cat"]}, None),
        (
            "a.npy",
            LABELS + 1,
            {"classes": ["cat", "dog"]},
            "a.npy: found pixel value 3; expected 0 for none, and 1 to 2",
        ),
        ("a.npy", np.arange(18).reshape(2, 3, 3), {}, r"a.npy: expected a mask height x width, found shape (2, 3, 3)"),
        ("a.png", LABELS[:, :2], {}, "a.png: mask of 2 x 2 pixels; its image has 2 x 3"),
        ("b.png", LABELS, {}, "masks/{image_id}.png: no such mask file of any of 1 images, as "),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, name: str, content: Any, data: dict[str, Any], message: str | None
) -> None:
    path = competition(tmp_path, "a") / name
    path.write_bytes(content) if isinstance(content, bytes) else save(path, content)
    files = f"masks/{{image_id}}{path.suffix}"
    if message is None:
        assert read(tmp_path, files, **data).target(0, 2, 3)["mask"].sum() == 4
        return
    with pytest.raises(CompetitionError, match=re.escape(message)):
        read(tmp_path, files, **data).target(0, 2, 3)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"train": {"keys": None}}, "needs format.train.files"),
        ({"train": {"keys": None, "files": "m/{image_id}.png"}}, "needs format.submission.keys"),
        ({"train": {"files": "m/mask.png"}}, "needs {image_id}"),
        ({"train": {"keys": {"id": "{class_id}"}}}, "expected {image_id} once"),
        ({"rle": {"order": "diagonal"}}, "format.rle.order"),
        ("cloud", "did you mean 'clouds'"),
    ],
)
def test_a_format_that_cannot_be_is_refused(form: Any, message: str) -> None:
    form = {"like": form} if isinstance(form, str) else form
    with pytest.raises(CompetitionError, match=re.escape(message)):
        validate({"name": "t", "task": "segmentation", "format": form}, {}, "test")


def with_train_csv(folder: Path, *ids: str, masks: str) -> TaskConfig:
    """Write images and their masks of 2 x 3 pixels, and return a config that finds them by train.csv."""
    competition(folder, *ids)
    for name in ids:
        for path in (folder / "train_images" / name, folder / masks.format(image_id=name)):
            Image.fromarray(LABELS).save(path, "png")
    (folder / "train.csv").write_text("\n".join(["id", *ids, ""]))
    (folder / "sample_submission.csv").write_text("id,rle\nt,\n")
    (folder / "test_images").mkdir()
    Image.fromarray(LABELS).save(folder / "test_images" / "t", "png")
    form = {"train": {"keys": {"id": "{image_id}"}, "files": masks}}
    values = {"name": "t", "task": "segmentation", "data": {"dir": str(folder)}, "format": form}
    config = validate(values, {}, "test")
    assert isinstance(config, TaskConfig)
    return config


def test_check_tells_every_mask_file_at_fault_with_its_line_beside_other_faults(tmp_path: Path) -> None:
    config = with_train_csv(tmp_path, "d", "c", "b", "a", masks="masks/{image_id}.png")
    (tmp_path / "masks" / "d.png").write_bytes(b"no mask")
    (tmp_path / "train_images" / "c").write_bytes(b"no image")
    save(tmp_path / "masks" / "b.png", LABELS[:1])
    (tmp_path / "masks" / "a.png").write_bytes(b"")
    (tmp_path / "test_images" / "t").unlink()
    with pytest.raises(CompetitionError) as raised:
        check(config)
    found = str(raised.value).splitlines()
    starts = ["masks/d.png: truncated", "train_images/c: truncated", "masks/b.png: mask of 1 x 3", "masks/a.png: trunc"]
    assert len(found) == 5
    for line, start, number in zip(found, starts, range(2, 6), strict=False):
        assert line.startswith(f"{tmp_path}/{start}")
        assert line.endswith(f"(train.csv line {number})")
    assert found[4].startswith(f"{tmp_path}/test_images/t: no such image file")


def test_large_masks_of_many_values_are_cut_exactly(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 301, (40, 50)).astype(np.uint16)
    save(competition(tmp_path, "a") / "a.png", labels)
    mask = read(tmp_path, "masks/{image_id}.png", classes=list(map(str, range(300)))).target(0, 40, 50)["mask"]
    np.testing.assert_array_equal(mask.argmax(2) + mask.any(2), labels)
    assert cv2.countNonZero(mask.max(2)) == np.count_nonzero(labels)
