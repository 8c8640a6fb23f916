"""Rows of two runs in one submission: those of studies and those of images, as of SIIM's COVID-19 competition."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_dicom
from tiny import PROJECT, TINY, bundled
from warm import warm_python

from competition.config.loading import complete, load_config, task_names
from competition.config.settings import Config
from competition.files.csv_file import read_csv
from competition.submission.join import join_submissions
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

needs_both = pytest.mark.skipif(
    not {"classification", "detection"} <= set(task_names()), reason="studies are classified, and boxes found"
)
KINDS = ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"]
WORDS = ["negative", "typical", "indeterminate", "atypical"]
NONE, SIDE = "none 1 0 0 1 1", 64
Command = Callable[..., CompletedProcess[str]]


def hand_out(folder: Path) -> dict[str, str]:
    """Write a competition of 8 training and 4 test studies, the first of which has two images; return the truth."""
    rng, studies, images = np.random.default_rng(0), [], []
    for number in range(12):
        part, kind = ("train" if number < 8 else "test"), number % 4
        studies.append({"id": f"s{number}_study", **{name: int(k == kind) for k, name in enumerate(KINDS)}})
        for copy in range(1 + (number in (0, 8))):
            box = (10 + number, 12, 40, 44)
            pixels = rng.integers(0, 900, (SIDE, SIDE)).astype(np.uint16)
            pixels[box[1] : box[3], box[0] : box[2]] += np.uint16(2000 * (kind > 0))
            write_dicom(folder / part / f"s{number}" / f"r{copy}" / f"i{number}{copy}.dcm", pixels)
            x1, y1, x2, y2 = box
            boxes = f"[{{'x': {x1}.5, 'y': {y1}, 'width': {x2 - x1}, 'height': {y2 - y1}}}]" if kind else ""
            label = f"opacity 1 {x1 + 0.5} {y1} {x2 + 0.5} {y2}" if kind else NONE
            images.append(
                {"id": f"i{number}{copy}_image", "boxes": boxes, "label": label, "StudyInstanceUID": f"s{number}"}
            )
    pd.DataFrame(studies[:8]).to_csv(folder / "train_study_level.csv", index=False)
    pd.DataFrame(images[:9]).to_csv(folder / "train_image_level.csv", index=False)
    truth = {one["id"]: f"{WORDS[number % 4]} 1 0 0 1 1" for number, one in enumerate(studies) if number >= 8}
    truth |= {str(one["id"]): str(one["label"]) for one in images[9:]}
    sample = [{"id": one, "PredictionString": "negative 1 0 0 1 1" if "study" in one else NONE} for one in truth]
    pd.DataFrame(sample).to_csv(folder / "sample_submission.csv", index=False)
    return truth


def boxes_of(text: str) -> list[tuple[str, float, np.ndarray]]:
    words = text.split()
    return [(words[k], float(words[k + 1]), np.array(words[k + 2 : k + 6], float)) for k in range(0, len(words), 6)]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    inside = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inside / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inside))


def grade(said: dict[str, str], truth: dict[str, str]) -> float:
    """The host's: PASCAL VOC 2010's average precision at an IoU over .5 of each word, and the mean of all six; answers
    of one score are one step, in whatever order they stand."""
    each = []
    for word in sorted({box[0] for text in truth.values() for box in boxes_of(text)}):
        found, number = [], 0
        for one, text in truth.items():
            true = [box for name, _, box in boxes_of(text) if name == word]
            number, taken = number + len(true), set()
            for _, score, box in sorted((b for b in boxes_of(said[one]) if b[0] == word), key=lambda b: -b[1]):
                best = max(range(len(true)), key=lambda k: overlap(box, true[k]), default=None)
                hit = best is not None and best not in taken and overlap(box, true[best]) > 0.5
                taken |= {best} if hit else set()
                found.append((score, hit))
        found.sort(key=lambda pair: -pair[0])
        ends = [k for k, (score, _) in enumerate(found) if k + 1 == len(found) or found[k + 1][0] != score]
        right = np.cumsum([hit for _, hit in found])[ends]
        precision = right / (np.array(ends) + 1)
        each.append(sum(np.diff(right, prepend=0)[k] * precision[k:].max() for k in range(len(ends))) / number)
    return float(np.mean(each))


def own_score(config: Config, truth: dict[str, str], file: Path) -> float:
    """Score a run's rows by `voc_map` of its task, truth and answers read by the project."""
    task, classes = Task(config.task), Task(config.task).table.read_table(config).classes
    answers = dict(task.submission.read_submission(file, config, classes, Sizes()))
    rows = [one for one in truth if one.endswith("_study" if config.task == "classification" else "_image")]
    right = file.with_name("right.csv")
    pd.DataFrame({"id": rows, "PredictionString": [truth[one] for one in rows]}).to_csv(right, index=False)
    true = dict(task.submission.read_submission(right, config, classes, Sizes()))
    as_truth = (lambda one: {"label": one["probabilities"].argmax()}) if "study" in rows[0] else lambda one: one
    once = [one for one in true if not one.endswith("/r1/i81.dcm")]  # the second image of a study has its answer
    evidence = [task.score.evidence(answers[one], as_truth(true[one]), config.metrics) for one in once]
    return task.score.scores(evidence, ["voc_map"], len(classes))["voc_map"]


class Sizes(dict[str, tuple[int, int]]):
    def __missing__(self, key: str) -> tuple[int, int]:
        return SIDE, SIDE

    def __contains__(self, key: object) -> bool:
        return True


@needs_both
@pytest.mark.slow
def test_studies_and_images_are_handed_in_and_bundled_as_one(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    truth = hand_out(data)
    configs = {task: PROJECT / "configs" / f"{task}_siim_covid.yaml" for task in ("classification", "detection")}
    words = [*TINY, "model.pretrained=false", "data.num_folds=2", f"data.dir={data}", "trainer.limit_train_batches=1"]
    for task, config in configs.items():
        own = [config, *words, f"name={task}", *(["model.pyramid_channels=64"] if task == "detection" else [])]
        for verb in (("check", *own), ("folds", *own), ("train", *own), ("predict", task)):
            done = command(*verb)
            assert done.returncode == 0, (verb[0], done.stderr)
    done = command("submit", "detection", "--join", "classification")
    assert done.returncode == 0, done.stderr
    joined = dict(read_csv(Path("outputs/detection/joined.csv"), ["id", "PredictionString"]).itertuples(index=False))
    assert list(joined) == list(truth)
    each = [
        own_score(load_config([config], [f"data.dir={data}"]), truth, Path("outputs") / task / "submission.csv")
        for task, config in configs.items()
    ]
    assert grade(joined, truth) == pytest.approx((4 * each[0] + 2 * each[1]) / 6)
    assert grade(truth, truth) == pytest.approx(1)
    for run, *others in (("classification",), ("detection", "--join", "classification")):
        done = command("bundle", run, "--no-wheels", *others)
        assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "executable", warm_python())  # which starts the part that is of another task
    bundled("offline").infer(Path("outputs/detection/bundle"), data, Path("again.csv"))
    again = dict(read_csv(Path("again.csv"), ["id", "PredictionString"]).itertuples(index=False))
    assert list(again) == list(truth)
    assert grade(again, truth) == pytest.approx(grade(joined, truth))


PART = "sample_submission.csv where id=*_study"


def parts(folder: Path, **rows: str) -> list[Path]:
    """Write a sample of two studies and an image, and files with some of its rows."""
    (folder / "sample_submission.csv").write_text("id,said\na_study,x\nb_image,x\nc_study,x\n")
    for name, text in rows.items():
        (folder / f"{name}.csv").write_text(f"id,said\n{text}")
    return [folder / f"{name}.csv" for name in rows]


@needs_both
def test_rows_come_in_the_order_of_the_whole_sample(tmp_path: Path) -> None:
    files = parts(tmp_path, one="a_study,1\nc_study,3\n", two="b_image,2\n")
    form = {"keys": {"id": "{image_id}_study"}}
    config = complete(
        "classification",
        {"data": {"dir": str(tmp_path), "sample_submission": PART}, "format": {"submission": form}},
    )
    assert (
        join_submissions(files, config, tmp_path / "all.csv").read_text()
        == "id,said\na_study,1\nb_image,2\nc_study,3\n"
    )


@needs_both
@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"one": "a_study,1\nc_study,3\n"}, "1 of 3 rows, as b_image, are in none of"),
        ({"one": "a_study,1\nc_study,3\n", "two": "b_image,2\na_study,1\n"}, "two.csv: has the row a_study, which"),
        ({"one": "a_study,1\nc_study,3\n", "two": "b_image,2\nd_image,2\n"}, "d_image, for which .* does not ask"),
    ],
)
def test_rows_that_lack_or_stand_twice_are_told(tmp_path: Path, rows: dict[str, str], told: str) -> None:
    files = parts(tmp_path, **rows)
    form = {"keys": {"id": "{image_id}_study"}}
    config = complete(
        "classification",
        {"data": {"dir": str(tmp_path), "sample_submission": PART}, "format": {"submission": form}},
    )
    with pytest.raises(CompetitionError, match=told):
        join_submissions(files, config, tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()
