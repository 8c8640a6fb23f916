"""Every known competition's files, made from the made-up ones, go from `check` to a valid submission by YAML alone."""

import csv
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from competition.config.loading import format_presets, load_config
from competition.config.settings import Config
from competition.files.image_folder import train_image
from competition.files.images import read_image_size
from competition.support.atomic_files import write_csv
from competition.tasks.contract import Task
from competition.tasks.detection.formats.recognise import recognise
from competition.tasks.detection.settings import TaskConfig
from competition.tasks.detection.table import read_table
from competition.tasks.made_up_images import write_sample

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# Where a run answers some rows alone: tests/submission/test_join.py.
FORMATS = [name for name in format_presets("detection") if name != "siim_covid"]
SIZE = 24
CLASSES = ("disk", "square", "triangle", "ring")
Command = Callable[..., CompletedProcess[str]]
# A network of 0.5 million weights that takes one step on four small images, at a size that the strides of its levels
# do not divide; of one format in half precision, which takes many times as long where the CPU has no bf16.
SMALL = (
    "model={encoder: test_resnet, pretrained: false, pyramid_channels: 64}",
    "data={image_size: 100, batch_size: 4, num_workers: 0, num_folds: 2, folds: folds.csv}",
    "trainer={max_epochs: 1, accelerator: cpu, limit_train_batches: 1}",
)


class Image(NamedTuple):
    """An image of the made-up competition."""

    file: str
    number: int
    boxes: list[tuple[str, int, int, int, int]]  # class, x, y, w, h
    width: int
    height: int

    @property
    def stem(self) -> str:
        return self.file.partition(".")[0]


Rows = Iterable[Sequence[object]]


def images_of(answers: Path) -> list[Image]:
    found: dict[str, Image] = {}
    with answers.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            image = found.setdefault(
                row["image_id"], Image(row["image_id"], len(found), [], int(row["width"]), int(row["height"]))
            )
            if row["class_id"]:
                x, y, w, h = (int(row[key]) for key in "xywh")
                image.boxes.append((row["class_id"], x, y, w, h))
    return list(found.values())


def wheat(images: list[Image]) -> Iterator[Sequence[object]]:
    yield "image_id", "width", "height", "bbox", "source"
    for image in images:
        for _, *box in image.boxes:
            yield image.stem, image.width, image.height, str([float(number) for number in box]), "usask_1"


def rsna(images: list[Image]) -> Iterator[Sequence[object]]:
    yield "patientId", "x", "y", "width", "height", "Target"
    for image in images:
        yield from ([image.stem, *(float(number) for number in box), 1] for _, *box in image.boxes)
        if not image.boxes:
            yield [image.stem, *[""] * 4, 0]


def barrier_reef(images: list[Image]) -> Iterator[Sequence[object]]:
    yield "video_id", "sequence", "video_frame", "sequence_frame", "image_id", "annotations"
    for image in images:
        boxes = [dict(zip(("x", "y", "width", "height"), box, strict=True)) for _, *box in image.boxes]
        video, frame = image.number % 3, image.number
        yield video, 100 + image.number % 8, frame, frame, f"{video}-{frame}", str(boxes)


def vinbigdata(images: list[Image]) -> Iterator[Sequence[object]]:
    yield "image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"
    for image in images:
        for reader in range(2):
            for name, x, y, w, h in image.boxes:
                yield image.stem, name, CLASSES.index(name), f"R{reader}", x, y + reader, x + w, y + h
            if not image.boxes:
                yield [image.stem, "No finding", 14, f"R{reader}", *[""] * 4]


ROWS: dict[str, Callable[[list[Image]], Rows]] = {
    "wheat": wheat,
    "rsna": rsna,
    "barrier_reef": barrier_reef,
    "vinbigdata": vinbigdata,
}
PLACEHOLDERS = {
    "wheat": "1.0 0 0 50 50",
    "rsna": "0.5 0 0 100 100",
    "barrier_reef": "0.5 0 0 100 100",
    "vinbigdata": "14 1 0 0 1 1",
}


def train_id(name: str, image: Image) -> str:
    return f"video_{image.number % 3}/{image.number}" if name == "barrier_reef" else image.stem


def convert(name: str, made_up: Path, folder: Path) -> None:
    """Write the files of a competition under the names and in the format it handed them out."""
    if name == "sample":
        shutil.copytree(made_up, folder)
        return
    data = load_config([config_file(name)], places(name, folder)).data
    form = format_presets("detection")[name]["format"]["submission"]
    train, test = images_of(made_up / "train.csv"), images_of(made_up / "solution.csv")
    test_ids = [str(image.number) if name == "barrier_reef" else image.stem for image in test]
    header, *rows = ROWS[name](train)
    write_csv(folder / data.train_csv, map(str, header), rows)
    sample = ([image_id, PLACEHOLDERS[name]] for image_id in test_ids)
    write_csv(folder / data.sample_submission, (form["image_id"], form["boxes"]), sample)
    if name != "barrier_reef":  # its test images bear no names that train.csv's columns could tell
        header, *rows = ROWS[name](test)
        write_csv(folder / "solution.csv", map(str, header), rows)
    for source, target, images, ids in (
        ("train_images", data.train_images, train, [train_id(name, image) for image in train]),
        ("test_images", data.test_images, test, test_ids),
    ):
        for image, image_id in zip(images, ids, strict=True):
            path = folder / target / data.image_file.format(image_id=image_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(made_up / source / image.file, path)


def config_file(name: str) -> Path:
    return CONFIGS / ("detection.yaml" if name == "sample" else f"detection_{name}.yaml")


def places(name: str, folder: Path) -> list[str]:
    """Return words by which the made-up images are found, which are no DICOM."""
    is_dicom = name in ("rsna", "vinbigdata")
    return [f"data.dir={folder}", *(["data.image_file={image_id}.png"] if is_dicom else [])]


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up") / "data"
    write_sample("detection", folder, SIZE)
    return folder


@pytest.fixture(scope="session", params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def files(name: str, made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(name) / "data"
    convert(name, made_up, folder)
    return folder


@pytest.fixture
def config(name: str, files: Path) -> Config:
    return load_config([config_file(name)], places(name, files))


def test_every_known_format_has_a_config_of_few_lines(name: str) -> None:
    lines = config_file(name).read_text(encoding="utf-8").splitlines()
    assert name == "sample" or len(lines) <= 15


@pytest.mark.slow
def test_a_format_goes_from_check_to_a_valid_submission(name: str, files: Path, command: Command) -> None:
    words = [config_file(name), *SMALL, *places(name, files), "name=r"]
    words += ["trainer.precision=bf16-mixed"] if name == "sample" else []
    run = Path("outputs/r")
    for verb in (["check", *words], ["folds", *words], ["train", *words], ["predict", run], ["submit", run]):
        done = command(*verb)
        assert done.returncode == 0, f"{verb[0]}: {done.stderr}"
        assert "does not name" not in done.stdout
    config = load_config([config_file(name)], places(name, files))
    written, sample = (pd.read_csv(path, dtype=str) for path in (run / "submission.csv", config.sample_submission))
    assert list(written.columns) == list(sample.columns)
    assert written.iloc[:, 0].tolist() == sample.iloc[:, 0].tolist()
    assert ("test images:" in done.stdout) == (files / "solution.csv").is_file()


def test_the_table_holds_every_image_and_box_of_the_made_up_competition(
    name: str, config: Config, made_up: Path
) -> None:
    table = Task("detection").table.read_table(config)
    images = images_of(made_up / "train.csv")
    ids = [image.file if name == "sample" else train_id(name, image) for image in images]
    assert sorted(table.image_ids) == sorted(ids)
    position = {image_id: index for index, image_id in enumerate(table.image_ids)}
    for image, image_id in zip(images, ids, strict=True):
        target = table.target(position[image_id], image.height, image.width)
        corners = [[x, y, x + w, y + h] for _, x, y, w, h in image.boxes]
        found = target["bboxes"].tolist()
        assert found[: len(corners)] == corners
        assert len(found) == len(corners) * (2 if name == "vinbigdata" else 1)
        if name == "vinbigdata":
            assert [table.classes[label] for label in target["labels"][: len(corners)]] == [
                str(CLASSES.index(kind)) for kind, *_ in image.boxes
            ]
    assert len(table.classes) == (4 if name in ("sample", "vinbigdata") else 1)


def test_the_truth_as_a_submission_is_read_back_and_perfect(config: Config, tmp_path: Path) -> None:
    task = Task("detection")
    table = task.table.read_table(config)
    sizes = {image_id: read_image_size(train_image(config, image_id), 3) for image_id in table.image_ids}
    truth = {image_id: table.target(index, *sizes[image_id]) for index, image_id in enumerate(table.image_ids)}
    number = len(table.classes)
    answers = [(image_id, task.submission.perfect_answer(one, number)) for image_id, one in truth.items()]
    task.submission.write_submission(tmp_path / "s.csv", config, answers, table.classes)
    back = dict(task.submission.read_submission(tmp_path / "s.csv", config, table.classes, sizes))
    assert list(back) == list(truth)
    for image_id, answer in back.items():
        np.testing.assert_array_equal(answer["bboxes"], truth[image_id]["bboxes"])
        np.testing.assert_array_equal(answer["labels"], truth[image_id]["labels"])
    evidence = [task.score.evidence(back[image_id], truth[image_id], config.metrics) for image_id in truth]
    assert task.score.scores(evidence, config.metrics, number) == pytest.approx(dict.fromkeys(config.metrics, 1.0))
    columns, rows = task.submission.rows(config, answers, table.classes)
    assert [columns, *rows] == list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))


SUBMITTED = {
    "sample": ("disk 0.5 1.00 2.00 3.00 4.50", ""),
    "wheat": ("0.5 1.0 2.0 3.0 4.5", ""),
    "rsna": ("0.5 1.0 2.0 3.0 4.5", ""),
    "barrier_reef": ("0.5 1 2 3 5", ""),
    "vinbigdata": ("0 0.5 1 2 4 7", "14 1 0 0 1 1"),
}


def test_a_row_is_written_as_the_competition_wants_it(name: str, config: Config) -> None:
    task = Task("detection")
    classes = task.table.read_table(config).classes
    classes = CLASSES if name == "sample" else classes
    one = {"bboxes": np.array([[1, 2, 4, 6.5]]), "scores": np.array([0.5]), "labels": np.array([0])}
    none = {key: values[:0] for key, values in one.items()}
    columns, rows = task.submission.rows(config, [("a", one), ("b", none)], classes)
    assert tuple(row[1] for row in rows) == SUBMITTED[name]
    assert columns == list(pd.read_csv(config.sample_submission).columns)


def frames(files: Path, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    read: dict[str, Any] = {"dtype": str, "keep_default_na": False}
    return pd.read_csv(config.train_csv, **read), pd.read_csv(config.sample_submission, **read)


def test_a_known_format_is_recognised(name: str, files: Path, config: Config) -> None:
    assert recognise(*frames(files, config)) == {"format": name}


RENAMED = {
    "sample": ({"class_id": "category", "w": "box_w", "h": "box_h"}, {"image_id": "image_id"}),
    "wheat": ({"image_id": "img_id"}, {"image_id": "img_id"}),
    "rsna": ({"patientId": "uuid", "x": "left", "y": "top"}, {"patientId": "uuid", "PredictionString": "boxes"}),
    "barrier_reef": ({"annotations": "starfish"}, {"index": "image_id", "annotations": "answer"}),
    "vinbigdata": ({"class_id": "label", "x_min": "x1", "y_min": "y1", "x_max": "x2", "y_max": "y2"}, {}),
}


def test_a_format_under_other_names_is_told_by_its_keys(name: str, files: Path, config: Config, tmp_path: Path) -> None:
    train, sample = frames(files, config)
    in_train, in_sample = RENAMED[name]
    train, sample = train.rename(columns=in_train), sample.rename(columns=in_sample)
    found = recognise(train, sample)
    assert found is not None
    assert isinstance(found["format"], dict)
    train.to_csv(tmp_path / "train.csv", index=False)
    sample.to_csv(tmp_path / "sample_submission.csv", index=False)
    shutil.copytree(files / config.data.train_images, tmp_path / "train_images")
    (tmp_path / "found.yaml").write_text(yaml.safe_dump({"base": str(config_file("sample")), **found}))
    text = load_config([tmp_path / "found.yaml"], [f"data.dir={tmp_path}"])
    known, renamed = (read_table(one) for one in (config, text) if isinstance(one, TaskConfig))
    assert renamed.classes == known.classes
    assert renamed.amounts().sum() == known.amounts().sum()
    assert renamed.boxes.sum() == known.boxes.sum()
    ours, theirs = config.format.submission, text.format.submission
    assert (theirs.with_class, theirs.layout, theirs.none) == (ours.with_class, ours.layout, ours.none)
    assert len(Task("detection").submission.read_test_ids(text, renamed.classes)) == len(sample)


@pytest.mark.parametrize(
    ("train", "sample"),
    [
        ("image_id,label\na,1\nb,2", "image_id,label\nc,1"),
        ("image_id,class_id,rle\na,x,1 3\nb,x,", "image_id,class_id,rle\nc,x,"),
        ("Image_Label,EncodedPixels\na.jpg_Fish,1 3", "Image_Label,EncodedPixels\nb.jpg_Fish,1 3"),
        ("Id,Pawpularity,Eyes\na,63,1", "Id,Pawpularity\nb,10.5"),
        ("image_id,healthy,rust\na,1,0", "image_id,healthy,rust\nb,0.5,0.5"),
        ("image,labels\na,scab rust", "image,labels\nb,healthy"),
    ],
)
def test_files_without_boxes_are_not_recognised(train: str, sample: str) -> None:
    read = [pd.DataFrame([line.split(",") for line in text.split("\n")[1:]]) for text in (train, sample)]
    for frame, text in zip(read, (train, sample), strict=True):
        frame.columns = text.split("\n")[0].split(",")
    assert recognise(read[0], read[1]) is None
