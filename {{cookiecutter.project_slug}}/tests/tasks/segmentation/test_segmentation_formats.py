"""Every known competition's files are read, trained on and handed in by its config alone; recognised by their rows."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from PIL import Image

from competition.config.loading import format_presets, load_config
from competition.files.csv_file import read_header
from competition.files.images import read_image
from competition.tasks.contract import Target
from competition.tasks.made_up_images import write_sample
from competition.tasks.segmentation.formats.recognise import recognise
from competition.tasks.segmentation.objects import objects_from
from competition.tasks.segmentation.resize import resize_mask
from competition.tasks.segmentation.settings import TaskConfig
from competition.tasks.segmentation.submission import (
    id_columns,
    perfect_answer,
    read_submission,
    read_test_ids,
    rows,
    write_submission,
)
from competition.tasks.segmentation.table import read_table

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SMALL = (
    "model.encoder=test_resnet",
    "model.decoder_channels=32",
    "model.pretrained=false",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_folds=2",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.accelerator=cpu",
)
CLASSES = ("disk", "ring", "square", "triangle")
Images = dict[str, dict[str, np.ndarray]]  # by image id and class: masks
Rows = Iterator[list[str]]


def run_lengths(
    mask: np.ndarray, order: Literal["F", "C"] = "F", base: int = 1, relative: bool = False, empty: str = ""
) -> str:
    """Encode by the definition, to compare with: edges of the pixels in a row."""
    edges = np.flatnonzero(np.diff(np.pad(mask.flatten(order).astype(int), 1)))
    starts, ends = edges[::2], edges[1::2]
    first = starts - np.concatenate([[0], ends[:-1]]) if relative else starts + base
    return " ".join(f"{a} {b}" for a, b in zip(first, ends - starts, strict=True)) or empty


def united(masks: dict[str, np.ndarray]) -> np.ndarray:
    return np.max(list(masks.values()), axis=0)


def long(images: Images, **form: Any) -> Rows:
    """A row an image and class."""
    return ([i, name, run_lengths(mask, **form)] for i, masks in images.items() for name, mask in masks.items())


def joined(images: Images) -> Rows:
    return ([f"{i}_{name}", rle] for i, name, rle in long(images))


def single(images: Images, **form: Any) -> Rows:
    return ([i, run_lengths(united(masks), **form)] for i, masks in images.items())


def several(images: Images) -> Rows:
    """Rows of one class: one for each mask of an image, or `-1`."""
    for i, masks in images.items():
        filled = [mask for mask in masks.values() if mask.any()]
        yield from ([i, run_lengths(mask, base=0, relative=True)] for mask in filled)
        if not filled:
            yield [i, "-1"]


def of_objects(images: Images, **form: Any) -> Rows:
    """A row an object, or an empty one; where shapes lie over one another, they touch."""
    for i, masks in images.items():
        filled = [mask for mask in masks.values() if mask.any()]
        yield from ([i, run_lengths(mask, **form)] for mask in filled)
        if not filled:
            yield [i, ""]


def positives(images: Images) -> Rows:
    return ([i, name, rle] for i, name, rle in long(images) if rle)


NO_OBJECT = "0 1 eNoLCAgIMAEABJkBdQ=="


def height_width(images: Images) -> Rows:
    return ([i, *map(str, united(masks).shape), NO_OBJECT] for i, masks in images.items())


def width_height(images: Images) -> Rows:
    return ([i, *map(str, united(masks).shape[::-1]), NO_OBJECT] for i, masks in images.items())


def write_label_images(images: Images, folder: Path) -> None:
    (folder / "train_masks").mkdir()
    for name, masks in images.items():
        labels = np.max([masks[c] * (number + 1) for number, c in enumerate(CLASSES)], axis=0)
        Image.fromarray(labels.astype(np.uint8)).save(folder / "train_masks" / f"{name}.png")


def write_mask_arrays(images: Images, folder: Path) -> None:
    for name, masks in images.items():
        (folder / "train" / name).mkdir(parents=True)
        np.save(folder / "train" / name / "human_pixel_masks.npy", united(masks)[:, :, None].astype(np.int32))


def write_polygons(images: Images, folder: Path) -> None:
    """Write the outlines of every connected part, and of its holes."""
    with (folder / "polygons.jsonl").open("w", encoding="utf-8") as file:
        for name, masks in images.items():
            mask = np.ascontiguousarray(united(masks))
            outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            parts = [] if tree is None else np.flatnonzero(tree[0, :, 3] < 0)
            rings = [[outlines[k] for k in range(len(outlines)) if part in (k, tree[0, k, 3])] for part in parts]
            coordinates = [[ring[:, 0].tolist() for ring in part] for part in rings]
            cells = [{"type": "blood_vessel", "coordinates": part} for part in coordinates]
            other = [{"type": "unsure", "coordinates": [[[0, 0], [9, 0], [9, 9]]]}]  # not among data.classes
            file.write(json.dumps({"id": name, "annotations": cells + other}) + "\n")


@dataclass(frozen=True)
class Format:
    """How a competition's files are made."""

    suffix: str  # of an image's file
    header: str
    train: Callable[[Images], Rows] | None
    asked: str  # header of the submission
    sample: Callable[[Images], Rows]
    in_id: bool = False  # whether the suffix is part of the id
    num_classes: int = 4
    folders: tuple[str, str] = ("train_images", "test_images")
    masks: Callable[[Images, Path], None] | None = None  # writes masks beside train.csv, or instead of it
    words: tuple[str, ...] = ()
    files: tuple[str, str] = ("train.csv", "sample_submission.csv")
    image: str = "{}"  # an image's file without its suffix


FORMATS = {
    "sample": Format(".png", "image_id,class_id,rle", long, "image_id,class_id,rle", long, in_id=True),
    "clouds": Format(".jpg", "Image_Label,EncodedPixels", joined, "Image_Label,EncodedPixels", joined, in_id=True),
    "severstal": Format(
        ".jpg", "ImageId,ClassId,EncodedPixels", positives, "ImageId_ClassId,EncodedPixels", joined, in_id=True
    ),
    "hubmap": Format(
        ".tiff",
        "id,encoding",
        single,
        "id,predicted",
        single,
        num_classes=1,
        folders=("train", "test"),
        words=("data.group_file=null",),  # each image is made up by itself
    ),
    "contrails": Format(
        ".npy",
        "",
        None,
        "record_id,encoded_pixels",
        lambda i: single(i, empty="-"),
        num_classes=1,
        masks=write_mask_arrays,
        folders=("train_images", "test_images"),
        words=(
            *("data.train_images=train_images", "data.test_images=test_images", "data.image_file={image_id}.npy"),
            *("data.files=null", "data.mean=[0.4,0.4,0.4]", "data.std=[0.2,0.2,0.2]"),
        ),
    ),
    "siim": Format(
        ".png",
        "ImageId, EncodedPixels",
        several,
        "ImageId, EncodedPixels",
        several,
        num_classes=1,
        folders=("dicom-images-train", "stage_2_images"),
        words=("data.image_file={image_id}.png",),
        files=("stage_2_train.csv", "stage_2_sample_submission.csv"),
    ),
    "uw_madison": Format(
        ".png",
        "id,class,segmentation",
        lambda i: long(i, order="C"),
        "id,class,predicted",
        lambda i: long(i, order="C"),
        folders=("train", "test"),
        words=("data.group_pattern=.+", "format.volume=.+", "data.id_parts=null", "data.image_file={image_id}.png"),
    ),
    "sennet": Format(
        ".tif",
        "id,rle",
        lambda i: single(i, order="C", empty="1 0"),
        "id,rle",
        lambda i: single(i, order="C", empty="1 0"),
        num_classes=1,
        folders=("train", "test"),
        words=("data.group_pattern=.+", "data.image_file={image_id}.tif"),
        files=("train_rles.csv", "sample_submission.csv"),
    ),
    "hubmap2023": Format(
        ".tif",
        "",
        None,
        "id,height,width,prediction_string",
        height_width,
        num_classes=1,
        folders=("train", "test"),
        masks=write_polygons,
        words=("data.group_file=null",),
    ),
    "hpa": Format(
        ".png",
        "ID,Label",
        lambda images: ([name, "0|16"] for name in images),
        "ID,ImageWidth,ImageHeight,PredictionString",
        width_height,
        folders=("train", "test"),
        masks=write_label_images,
        words=(
            *("data.files=null", "data.image_file={image_id}.png", f"data.classes=[{','.join(CLASSES)}]"),
            *("data.channels=3", "data.mean=[0,0,0]", "data.std=[1,1,1]"),
        ),
    ),
    "dsb2018": Format(
        ".png",
        "ImageId,EncodedPixels",
        of_objects,
        "ImageId,EncodedPixels",
        of_objects,
        num_classes=1,
        folders=("stage1_train", "stage1_test"),
        files=("stage1_train_labels.csv", "stage1_sample_submission.csv"),
        image="{0}/images/{0}",
    ),
    "tgs": Format(
        ".png", "id,rle_mask", single, "id,rle_mask", single, num_classes=1, folders=("train/images", "test/images")
    ),
    "airbus": Format(
        ".jpg",
        "ImageId,EncodedPixels",
        of_objects,
        "ImageId,EncodedPixels",
        of_objects,
        in_id=True,
        num_classes=1,
        folders=("train_v2", "test_v2"),
        files=("train_ship_segmentations_v2.csv", "sample_submission_v2.csv"),
    ),
    "sartorius": Format(
        ".png",
        "id,annotation,cell_type",
        lambda images: ([*row, "cort"] for row in of_objects(images, order="C")),
        "id,predicted",
        lambda images: of_objects(images, order="C"),
        num_classes=1,
        folders=("train", "test"),
    ),
}


def write_rows(path: Path, header: str, rows: Iterable[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header.split(","), *rows])


def masks_of(path: Path, images: Path) -> Images:
    """Read our sample format by the definition."""
    found: Images = {}
    for image_id, name, rle in list(csv.reader(path.open(encoding="utf-8")))[1:]:
        height, width = read_image(images / image_id, 3).shape[:2]
        pixels = np.zeros(height * width, np.uint8)
        numbers = list(map(int, rle.split()))
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            pixels[start - 1 : start - 1 + length] = 1
        found.setdefault(image_id, {})[name] = pixels.reshape(width, height).T
    return found


def write_image(source: Path, path: Path) -> None:
    pixels = read_image(source, 3)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix.startswith(".tif"):
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def convert(source: Path, folder: Path, made: Format) -> dict[str, Images]:
    """Write the competition in `source` in another format; return the masks of train and test images."""
    found = {}
    for part, answers, images in (("train", "train.csv", made.folders[0]), ("test", "solution.csv", made.folders[1])):
        (folder / images).mkdir(parents=True)
        found[part] = {}
        for image_id, masks in masks_of(source / answers, source / f"{part}_images").items():
            name = image_id.removesuffix(".png")
            file = folder / images / f"{made.image.format(name)}{made.suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_image(source / f"{part}_images" / image_id, file)
            found[part][f"{name}{made.suffix}" if made.in_id else name] = masks
    if made.masks is not None:
        made.masks(found["train"], folder)
    if made.train is not None:
        write_rows(folder / made.files[0], made.header, made.train(found["train"]))
    if made.sample not in (height_width, width_height):
        # Of rows with positives only it could not be told which images without a row are test images.
        solution = made.sample if made.train is None else long if made.train is positives else made.train
        write_rows(folder / "solution.csv", made.header or made.asked, solution(found["test"]))
    nothing = {name: {c: np.zeros_like(mask) for c, mask in masks.items()} for name, masks in found["test"].items()}
    write_rows(folder / made.files[1], made.asked, made.sample(nothing))
    return found


@dataclass(frozen=True)
class Competition:
    """A made-up competition in a known format."""

    name: str
    folder: Path
    images: dict[str, Images]

    @property
    def words(self) -> list[str]:
        file = "segmentation.yaml" if self.name == "sample" else f"segmentation_{self.name}.yaml"
        return [str(CONFIGS / file), *SMALL, *FORMATS[self.name].words, f"data.dir={self.folder}", f"name={self.name}"]

    @property
    def config(self) -> TaskConfig:
        config = load_config([Path(self.words[0])], self.words[1:])
        assert isinstance(config, TaskConfig)
        return config

    def answer(self, image_id: str) -> Target:
        """Return the truth of a test image, with its objects where rows are such."""
        mask, masks = self.truth("test", image_id), self.images["test"][image_id].values()
        if self.config.format.rows == "masks":
            return {"mask": mask}
        return {
            "mask": mask,
            "objects": objects_from([(0, np.flatnonzero(one)) for one in masks if one.any()], *mask.shape[:2]),
        }

    def truth(self, part: str, image_id: str) -> np.ndarray:
        masks = self.images[part][image_id]
        one = FORMATS[self.name].num_classes == 1
        return united(masks)[:, :, None] if one else np.stack([masks[name] for name in CLASSES], axis=-1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample("segmentation", folder, size=24)
    return folder


@pytest.fixture(scope="module", params=FORMATS)
def competition(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Competition:
    folder = tmp_path_factory.mktemp(request.param) / "data"
    return Competition(request.param, folder, convert(source, folder, FORMATS[request.param]))


def test_every_known_format_is_tested_and_has_a_short_config() -> None:
    assert set(format_presets("segmentation")) - {"vesuvius"} == set(FORMATS)  # of two fragments, in layers
    for name in set(FORMATS) - {"sample"}:  # beside them lie the user's own
        text = (CONFIGS / f"segmentation_{name}.yaml").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 15
        assert yaml.safe_load(text)["format"] == name


def test_masks_are_read_as_they_were_written(competition: Competition) -> None:
    table = read_table(competition.config)
    assert set(table.image_ids) == set(competition.images["train"])
    assert len(table.classes) == FORMATS[competition.name].num_classes
    for index, image_id in enumerate(table.image_ids):
        truth = competition.truth("train", image_id)
        np.testing.assert_array_equal(table.target(index, *truth.shape[:2])["mask"], truth)
        assert table.present()[index].tolist() == truth.any(axis=(0, 1)).tolist()
        assert table.amounts()[index] == truth.sum()


def test_the_truth_is_handed_in_and_read_back(competition: Competition, tmp_path: Path) -> None:
    config, made = competition.config, FORMATS[competition.name]
    classes = read_table(config).classes
    ids = read_test_ids(config, classes)
    truths = {image_id: competition.answer(image_id) for image_id in ids}
    answers = [(image_id, perfect_answer(truth, len(classes))) for image_id, truth in truths.items()]
    write_submission(tmp_path / "s.csv", config, answers, classes)
    assert read_header(tmp_path / "s.csv") == made.asked.split(",")
    sizes = {image_id: truth["mask"].shape[:2] for image_id, truth in truths.items()}
    for image_id, answer in read_submission(tmp_path / "s.csv", config, classes, sizes):
        expected = resize_mask(truths[image_id]["mask"], *config.answer_size(*sizes[image_id]))
        np.testing.assert_array_equal(answer["mask"], expected)
    if config.format.size is None and made.sample not in (
        several,
        height_width,
        width_height,
    ):  # rows that the host would write itself
        (tmp_path / "host.csv").write_text("")
        write_rows(tmp_path / "host.csv", made.asked, made.sample(competition.images["test"]))
        assert (tmp_path / "s.csv").read_text() == (tmp_path / "host.csv").read_text()
    columns, each = rows(config, answers, classes)
    assert columns[: len(id_columns(config))] == id_columns(config)
    written = set(map(tuple, csv.reader((tmp_path / "s.csv").open())))
    assert all(tuple(row) in written for row in each)


@pytest.mark.slow
def test_the_config_alone_leads_to_a_valid_submission(
    competition: Competition, command: Callable[..., CompletedProcess[str]]
) -> None:
    run = (f"data.folds={competition.folder / 'folds.csv'}",)
    for words in (
        ("check", *competition.words),
        ("folds", *competition.words, *run),
        ("train", *competition.words, *run, "fold=0"),
        ("predict", competition.name),
        ("submit", competition.name),
    ):
        ended = command(*words)
        assert ended.returncode == 0, ended.stderr
    assert f"({len(competition.images['test'])} images, checked)" in ended.stdout
    assert ("test images:" in ended.stdout) == (competition.folder / "solution.csv").is_file()
    header = read_header(Path("outputs") / competition.name / "submission.csv")
    assert header == FORMATS[competition.name].asked.split(",")


def first_rows(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, nrows=200) if path.is_file() else pd.DataFrame()


def test_the_format_is_recognised_by_the_files(competition: Competition) -> None:
    folder, files = competition.folder, FORMATS[competition.name].files
    found = recognise(first_rows(folder / files[0]), first_rows(folder / files[1]))
    assert found == {"format": competition.name}
