"""Every known classification format, end to end: files of that format, one training step, a valid submission."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest

from competition.config.loading import format_presets, load_config, validate
from competition.config.settings import Config
from competition.support.atomic_files import write_csv
from competition.tasks.classification.formats.recognise import recognise
from competition.tasks.classification.score import lower_is_better
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SHAPES = ["disk", "ring", "square", "triangle"]
TINY = (
    "model.encoder=test_resnet",
    "model.pretrained=false",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "data.num_folds=2",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.accelerator=cpu",
    "name=run",
)


@dataclass(frozen=True)
class Image:
    """An image of the made-up competition: its file without .png, which it is, and the number of its shape."""

    stem: str
    number: int
    shape: int

    @property
    def patient(self) -> str:
        return f"p{self.number // 4}"

    @property
    def breast(self) -> str:
        return "LR"[self.number // 2 % 2]


Row = list[object]
Columns = list[str]


@dataclass(frozen=True)
class Layout:
    """The files of a competition: columns and rows of train.csv, and of the sample, for an image."""

    columns: Columns
    rows: Callable[[Image], list[Row]]
    asked: Columns
    sample: Callable[[Image], list[Row]]
    written: str  # what a row of the submission looks like
    more: tuple[str, ...] = ()


def one_hot(image: Image) -> Row:
    return [int(number == image.shape) for number in range(4)]


def with_png(image: Image) -> str:
    return f"{image.stem}.png"


PNG = "data.image_file='{image_id}.png'"
# The made-up images lie as `sample` writes them, not in the folders of each competition.
PLACES = (
    "data.train_csv=train.csv",
    "data.sample_submission=sample_submission.csv",
    "data.train_images=train_images",
    "data.test_images=test_images",
    "data.test_csv=null",
)
TYPES = {"any": (1, 2, 3), "ring": (1,), "sub_dural": (1, 2), "triangle": (3,)}
PARTS = ("consonant_diacritic", "grapheme_root", "vowel_diacritic")  # as Bengali.AI has its rows
PLANTS = ["healthy", "multiple_diseases", "rust", "scab"]
P = r"[-+.e\d]+"
LAYOUTS = {
    "sample": Layout(
        ["image_id", "label"],
        lambda i: [[with_png(i), SHAPES[i.shape]]],
        ["image_id", *SHAPES],
        lambda i: [[with_png(i), 0.25, 0.25, 0.25, 0.25]],
        rf"\w+\.png,{P},{P},{P},{P}",
    ),
    "cassava": Layout(
        ["image_id", "label"],
        lambda i: [[with_png(i), i.shape]],
        ["image_id", "label"],
        lambda i: [[with_png(i), 3]],
        r"\w+\.png,[0-3]",
    ),
    "melanoma": Layout(
        ["image_name", "patient_id", "sex", "target"],
        lambda i: [[i.stem, i.patient, "female", int(i.shape == 0)]],
        ["image_name", "target"],
        lambda i: [[i.stem, 0]],
        rf"\w+,{P}",
        (PNG,),
    ),
    "rsna_breast": Layout(
        ["site_id", "patient_id", "image_id", "laterality", "cancer"],
        lambda i: [[1, i.patient, i.stem, i.breast, int(i.number // 2 % 3 == 0)]],
        ["prediction_id", "cancer"],
        lambda i: [[f"{i.patient}_{i.breast}", 0.02]],
        r"p\d_[LR],[01]",
        (PNG,),
    ),
    "plant2020": Layout(
        ["image_id", *PLANTS],
        lambda i: [[i.stem, *one_hot(i)]],
        ["image_id", *PLANTS],
        lambda i: [[i.stem, 0.25, 0.25, 0.25, 0.25]],
        rf"\w+,{P},{P},{P},{P}",
        (PNG,),
    ),
    "rsna_hemorrhage": Layout(
        ["ID", "Label"],
        lambda i: [[f"{i.stem}_{name.replace('_', '')}", int(i.shape in those)] for name, those in TYPES.items()],
        ["ID", "Label"],
        # In another order than the classes have.
        lambda i: [[f"{i.stem}_{name}", 0.5] for name in ("triangle", "any", "subdural", "ring")],
        rf"\w+_(any|ring|subdural|triangle),{P}",
        (PNG, "loss.class_weights=[2,1,1,1]", "data.group_file=null"),
    ),
    "plant2021": Layout(
        ["image", "labels"],
        lambda i: [[with_png(i), ["healthy", "scab", "scab frog_eye_leaf_spot", "rust"][i.shape]]],
        ["image", "labels"],
        lambda i: [[with_png(i), "healthy"]],
        r"\w+\.png,(healthy|scab|frog_eye_leaf_spot|rust)( \w+)*",
    ),
    "hpa": Layout(
        ["Id", "Target"],
        lambda i: [[i.stem, ["16 0", "7 1 10", "7", "0"][i.shape]]],
        ["Id", "Predicted"],
        lambda i: [[i.stem, "0"]],
        r"\w+,\d+( \d+)*",
        (PNG, "data.files=null", "data.channels=3", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]"),
    ),
    "happywhale": Layout(
        ["image", "species", "individual_id"],
        lambda i: [[with_png(i), "beluga", f"{i.shape}{i.number % 2}{'abc'[i.number % 3]}"]],
        ["image", "predictions"],
        lambda i: [[with_png(i), "new_individual 00a 10a 20a 30a"]],
        r"\w+\.png,\w+( \w+){4}",
    ),
    "bengali": Layout(
        ["image_id", "grapheme_root", "vowel_diacritic", "consonant_diacritic", "grapheme"],
        lambda i: [[i.stem, 20 + i.shape, i.shape // 2, i.number % 3, "x"]],
        ["row_id", "target"],
        lambda i: [[f"{i.stem}_{part}", 0] for part in PARTS],
        r"\w+_(consonant_diacritic|grapheme_root|vowel_diacritic),\d+",
    ),
    "petfinder": Layout(
        ["Id", "Subject Focus", "Pawpularity"],
        lambda i: [[i.stem, 0, 10 + 25 * i.shape + i.number % 3]],
        ["Id", "Pawpularity"],
        lambda i: [[i.stem, 50]],
        rf"\w+,{P}",
        (PNG,),
    ),
}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up") / "data"
    write_sample("classification", folder, size=32)
    return folder


def images_of(path: Path) -> list[Image]:
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs = [(row["image_id"].removesuffix(".png"), SHAPES.index(row["label"])) for row in rows]
    return [Image(stem, number, shape) for number, (stem, shape) in enumerate(pairs)]


@pytest.fixture
def competition(request: pytest.FixtureRequest, made_up: Path, tmp_path: Path) -> tuple[str, Path]:
    """Return name and folder of the made-up competition in another format."""
    name, folder = str(request.param), tmp_path / "data"
    layout = LAYOUTS[name]
    folder.mkdir()
    for images in ("train_images", "test_images"):
        (folder / images).symlink_to(made_up / images)
    for file, source, columns, rows in (
        ("train.csv", "train.csv", layout.columns, layout.rows),
        ("solution.csv", "solution.csv", layout.columns, layout.rows),
        ("test.csv", "solution.csv", layout.columns, layout.rows),
        ("sample_submission.csv", "solution.csv", layout.asked, layout.sample),
    ):
        written = [row for image in images_of(made_up / source) for row in rows(image)]
        # A group of images has one row.
        write_csv(folder / file, columns, dict.fromkeys(tuple(row) for row in written))
    return name, folder


def words_of(name: str, folder: Path) -> list[str]:
    config = CONFIGS / ("classification.yaml" if name == "sample" else f"classification_{name}.yaml")
    return [str(config), *TINY, f"data.dir={folder}", *PLACES, *LAYOUTS[name].more]


def config_of(name: str, folder: Path) -> Config:
    first, *words = words_of(name, folder)
    return load_config([Path(first)], words)


def test_every_known_format_is_tested_and_has_a_config() -> None:
    assert set(LAYOUTS) <= set(format_presets("classification"))  # tests/config/test_known_competitions.py has all
    shipped = {"classification", *(f"classification_{name}" for name in LAYOUTS if name != "sample")}
    assert shipped <= {path.stem for path in CONFIGS.glob("classification*.yaml")}  # beside them lie the user's own


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_format_alone_has_metrics_that_can_score_it(name: str) -> None:
    values = {"name": "t", "task": "classification", "format": {"like": name}}
    config = validate(values, {}, "test")
    assert validate(values | {"metrics": config.metrics}, {}, "test") == config


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"sample"}))
def test_a_known_competition_takes_few_lines(name: str) -> None:
    assert len((CONFIGS / f"classification_{name}.yaml").read_text(encoding="utf-8").splitlines()) <= 15


@pytest.mark.slow
@pytest.mark.parametrize("competition", LAYOUTS, indirect=True)
def test_a_format_goes_all_the_way(
    competition: tuple[str, Path], command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    name, folder = competition
    words = words_of(name, folder)
    for verb in (("check", *words), ("folds", *words), ("train", *words), ("predict", "run"), ("submit", "run")):
        ended = command(*verb)
        assert ended.returncode == 0, (verb[0], ended.stderr)
    header, *lines = (tmp_path / "outputs" / "run" / "submission.csv").read_text(encoding="utf-8").splitlines()
    asked = (folder / "sample_submission.csv").read_text(encoding="utf-8").splitlines()
    assert header == asked[0]
    assert [line.split(",")[0] for line in lines] == [line.split(",")[0] for line in asked[1:]]
    assert all(re.fullmatch(LAYOUTS[name].written, line) for line in lines), lines


@pytest.mark.parametrize("competition", LAYOUTS, indirect=True)
def test_the_truth_handed_in_is_perfect(competition: tuple[str, Path]) -> None:
    name, folder = competition
    config, task = config_of(name, folder), Task("classification")
    classes = task.table.read_table(config).classes
    with_classes = config.model_copy(update={"data": config.data.model_copy(update={"classes": list(classes)})})
    solution = task.table.read_table(with_classes, folder / "solution.csv")
    truths = {image_id: solution.target(row, 9, 9) for row, image_id in enumerate(solution.image_ids)}
    asked = task.submission.read_test_ids(config, classes).tolist()
    answers = [(image_id, task.submission.perfect_answer(truths[image_id], len(classes))) for image_id in asked]
    task.submission.write_submission(folder / "s.csv", config, answers, classes)
    back = list(task.submission.read_submission(folder / "s.csv", config, classes, {}))
    assert [image_id for image_id, _ in back] == asked
    keys = task.submission.id_columns(config)
    written, sample = (pd.read_csv(folder / file, dtype=str) for file in ("s.csv", "sample_submission.csv"))
    assert written[keys].equals(sample[keys])
    assert list(written) == list(sample)
    found = [task.score.evidence(answer, truths[image_id], config.metrics) for image_id, answer in back]
    scores = task.score.scores(found, config.metrics, len(classes))
    worst = {metric: abs(value - (0 if lower_is_better(metric) else 1)) for metric, value in scores.items()}
    # macro F1 of several labels counts classes that do not occur as 0; an area of one class alone is 1/2.
    absent = {"macro_f1", "roc_auc"}
    assert all(value < 1e-6 for metric, value in worst.items() if metric not in absent), scores


@pytest.mark.parametrize("competition", LAYOUTS, indirect=True)
def test_a_known_format_is_recognised_by_its_files(competition: tuple[str, Path]) -> None:
    name, folder = competition
    train, sample = (
        pd.read_csv(folder / file, dtype=str, keep_default_na=False) for file in ("train.csv", "sample_submission.csv")
    )
    assert recognise(train, sample) == {"format": name}


@pytest.mark.parametrize("competition", ["melanoma", "rsna_breast"], indirect=True)
def test_images_of_a_patient_stay_together(
    competition: tuple[str, Path], command: Callable[..., CompletedProcess[str]]
) -> None:
    name, folder = competition
    assert command("folds", *words_of(name, folder)).returncode == 0
    folds, train = pd.read_csv(folder / "folds.csv"), pd.read_csv(folder / "train.csv")
    assert pd.Series(folds["fold"].to_numpy()).groupby(train["patient_id"].to_numpy()).nunique().max() == 1
    assert np.unique(folds["fold"]).tolist() == [0, 1]
