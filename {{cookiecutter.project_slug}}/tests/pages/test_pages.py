"""check.html and report.html: one file each that asks nothing of a network, and says what there is and what is not."""

import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from browser import Browser

from competition.config.loading import task_names
from competition.data.pictures import LONGEST, SIDE, small_picture
from competition.files.images import read_image_size
from competition.pages import report
from competition.pages.report import is_reported, write_report
from competition.pages.report_plots import confusion_counts, precision_recall
from competition.runs.folder import Run
from competition.scoring.tune import tune

Command = Callable[..., CompletedProcess[str]]
MOST_BYTES = 5_000_000


class Page(HTMLParser):
    """What a page holds: headings, words and pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.headings: list[str] = []
        self.pictures: dict[str, str] = {}  # what each shows in words, and its data
        self.words: list[str] = []
        self._tag = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        if tag == "img":
            found = {name: value or "" for name, value in attrs}
            self.pictures[found["alt"]] = found["src"]

    def handle_data(self, data: str) -> None:
        if data.strip() and self._tag != "style":
            self.words.append(data.strip())
        if data.strip() and self._tag in ("h2", "h3"):
            self.headings.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def assert_self_contained(self) -> None:
        assert len(self.source) < MOST_BYTES
        assert not re.findall(r"<script|@import|url\(", self.source)
        links = re.findall(r'\b(?:src|href)="([^"]{0,40})', self.source)
        assert links
        assert all(link.startswith(("data:", "#")) for link in links)
        for name, source in self.pictures.items():
            kind, data = re.fullmatch(r"data:image/([a-z+]+);base64,(.+)", source, re.DOTALL).groups()  # ty: ignore
            content = b64decode(data)
            is_whole = b"</svg>" in content if kind == "svg+xml" else _decoded(content) is not None
            assert is_whole, name


def _decoded(content: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def images_of(page: Page) -> list[str]:
    return [name for name in page.pictures if name.startswith("Training image")]


# -- check.html


@pytest.mark.slow
def test_the_page_of_a_check_shows_images_distributions_and_worst_rows(
    words: list[str], command: Command, tmp_path: Path
) -> None:
    assert command("folds", *words).returncode == 0
    assert command("check", *words, "name=seen").returncode == 0
    page = Page(tmp_path / "outputs/seen/check.html")
    page.assert_self_contained()
    assert len(images_of(page)) == 24  # all there are
    assert "No fault was found." in page.words
    assert "Darkest images" in page.headings
    assert "There are none yet" not in page.text


@pytest.mark.slow
def test_a_check_that_finds_faults_has_them_on_its_page_without_the_broken_images(
    words: list[str], data_dir: Path, command: Command, tmp_path: Path
) -> None:
    broken = sorted((data_dir / "train_images").iterdir())[3]
    broken.write_bytes(b"no image")
    assert command("check", *words, "name=seen").returncode == 1
    page = Page(tmp_path / "outputs/seen/check.html")
    assert "No fault was found." not in page.words
    assert sum(str(broken) in word and "no image" in word for word in page.words) == 1
    assert len(images_of(page)) == 23
    assert not any(broken.name in name for name in page.pictures)


@pytest.mark.slow
def test_near_duplicates_stand_side_by_side_on_the_page(
    words: list[str], data_dir: Path, command: Command, tmp_path: Path
) -> None:
    images = sorted((data_dir / "train_images").iterdir())
    sizes = [read_image_size(path, 3) for path in images]
    twin = next(k for k in range(1, 24) if sizes[k] == sizes[0])
    shutil.copy(images[0], images[twin])
    command("check", *words, "name=seen")
    page = Page(tmp_path / "outputs/seen/check.html")
    assert "2 images in 1 group." in page.words
    assert "2 images alike" in page.headings


def test_without_a_page_nothing_is_written(words: list[str], command: Command, tmp_path: Path) -> None:
    assert command("check", "--no-page", *words).returncode == 0
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_images_of_four_channels_and_16_bit_are_shown(
    words: list[str], data_dir: Path, command: Command, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("train_images", "test_images"):
        for path in (data_dir / folder).iterdir():
            height, width = read_image_size(path, 3)
            tifffile.imwrite(path.with_suffix(".tif"), rng.integers(65536, size=(height, width, 4), dtype=np.uint16))
            path.unlink()
    for name in ("train.csv", "sample_submission.csv"):
        (data_dir / name).write_text((data_dir / name).read_text().replace(".png", ".tif"))
    four = ["data.channels=4", "data.mean=[0.5,0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2,0.2]", "name=seen"]
    done = command("check", *words, *four)
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "outputs/seen/check.html")
    page.assert_self_contained()
    assert "Of 4 channels the first three are shown as red, green and blue." in page.words
    assert len(images_of(page)) == 24


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 64), (256, 1600), (3000, 2000), (7, 2000)])
def test_a_picture_is_small_whatever_the_image(channels: int, height: int, width: int) -> None:
    for dtype in (np.uint8, np.float32):
        pixels = np.full((height, width, channels), 7, dtype=dtype)
        drawn = small_picture(pixels)
        assert drawn.dtype == np.uint8
        assert drawn.shape[2] == 3
        assert max(drawn.shape) <= LONGEST
        assert drawn.shape[0] * drawn.shape[1] <= SIDE * SIDE * 1.1 + LONGEST


def test_a_picture_of_floats_shows_them_all_though_some_are_no_numbers() -> None:
    pixels = np.linspace(-1000, 3000, 400 * 400, dtype=np.float32).reshape(400, 400, 1)
    pixels[0, 0] = np.nan
    drawn = small_picture(pixels)
    assert drawn.min() == 0
    assert drawn.max() == 255
    assert small_picture(np.full((8, 8, 1), np.nan, dtype=np.float32)).max() == 0


def test_a_page_needs_no_torch_and_no_plots_until_it_is_written(project: Path) -> None:
    code = "import sys, competition.pages.check_page, competition.pages.report; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "pytorch_lightning", "matplotlib", "jinja2"}


# -- report.html


@pytest.fixture
def run(untrained: Path, tmp_path: Path) -> Run:
    """Return a copy of the run of untrained networks: it has predictions, and neither scores nor curves."""
    shutil.copytree(untrained / "t", tmp_path / "outputs/t")
    return Run.open(str(tmp_path / "outputs/t"))


@pytest.mark.slow
def test_a_report_says_what_a_run_has_not(run: Run, command: Command) -> None:
    assert command("report", "t").returncode == 0
    page = Page(run.folder / "report.html")
    page.assert_self_contained()
    for missing in ("metrics.csv", "cv.csv", "tta.csv"):
        assert sum(f"There is no {missing}" in word for word in page.words) >= 1
    assert "24 of 24 images were looked at." in page.words
    assert page.headings[:2] == ["Learning curves", "Scores by fold"]
    assert sum(name.startswith("Image ") for name in page.pictures) >= 6


@pytest.fixture
def complete(run: Run, command: Command) -> Run:
    """Give the run all that a report tells of."""
    rows = "epoch,learning_rate,seconds,samples_per_second,memory_mb,train/loss,val/loss,val/score"
    for folder in run.trainings():
        (folder / "metrics.csv").write_text(f"{rows}\n1,.1,60,4,900,1,2,.5\n2,.1,60,6,950,.9,1.5,.6\n")
    (run.folder / "tta.csv").write_text(
        "view,alone,with_plain,cumulative,seconds_per_100_images\nplain,.1,.1,.1,2\nhflip,.2,.3,.3,2\n"
    )
    assert command("tune", "t").returncode == 0
    assert command("report", "t").returncode == 0
    return run


@pytest.mark.slow
def test_a_report_is_complete_once_the_run_is(complete: Run) -> None:
    page = Page(complete.folder / "report.html")
    assert "There is no " not in page.text
    assert any(name.startswith("Curves of loss by epoch, of fold0, fold1") for name in page.pictures)
    for cell in ("pooled", "2.0", "950", "hflip"):  # two epochs of 60 s are 2.0 minutes
        assert cell in page.words


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names()[:1], indirect=True)
def test_a_report_by_values_given_by_hand_has_no_score_and_is_not_the_one_that_run_makes(run: Run) -> None:
    tune(run)
    own = Run.open(str(run.folder))
    key = next(key for key, value in own.untuned.decode if isinstance(value, float))
    words = [f"decode.{key}={0.1 + getattr(own.untuned.decode, key) / 2}"]
    page = Page(write_report(Run.open(str(run.folder), words), words))
    assert {"given by hand", *words, "not known by thresholds that were given by hand"} <= set(page.words)
    assert not is_reported(own)
    page = Page(write_report(own))
    assert "given by hand" not in page.words
    assert any(word.startswith("score, ") for word in page.words)
    assert is_reported(own)


@pytest.mark.parametrize("task", task_names()[:1], indirect=True)
def test_a_report_shows_no_score_that_is_not_of_what_the_run_hands_in(
    run: Run, other_decode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "learning_plots", lambda _: [])
    tune(run)
    path = run.folder / "postprocess.yaml"
    found = path.read_text()
    path.write_text(yaml.safe_dump({"decode": other_decode}))
    assert ("score", "not known by thresholds that were given by hand") in shown_of(run)
    path.write_text(found)
    assert any(name.startswith("score, ") for name, _ in shown_of(run))
    labels = run.folder / "pseudo.csv"
    labels.touch()
    os.utime(labels, (1e9, 1e9))
    (run.folder / "fold0" / "oof.npz").touch()
    (said,) = [words for name, words in shown_of(run) if name == "score"]
    assert said == "not known: thresholds were found on other out-of-fold predictions than are there now"
    student = Run.open(str(run.folder), [f"data.pseudo={labels}"])
    assert any("pseudo.csv: is older than" in words for _, words in shown_of(student))


def shown_of(run: Run) -> list[tuple[str, str]]:
    """Return facts and what is said of learning."""
    opened = Run.open(str(run.folder))
    learning = report._learning(run, {"fold0": []})
    return [*report._facts(opened, opened, []), *((learning.title, words) for words in learning.words)]


@pytest.mark.slow
def test_a_blend_has_no_curves_and_names_its_sources(run: Run, command: Command, tmp_path: Path) -> None:
    for name in "ab":
        shutil.copytree(run.folder, tmp_path / "outputs" / name)
        shutil.copy(run.folder / "fold0/oof.npz", tmp_path / "outputs" / name / "test.npz")
    command("submit", "a", "b", "--name", "both")  # its predictions are not of the test images: only the blend is made
    assert command("report", "both").returncode == 0
    page = Page(tmp_path / "outputs/both/report.html")
    assert "This run is a blend of a, b and has trained nothing: see their reports." in page.words
    assert "24 of 24 images were looked at." in page.words


@pytest.mark.slow
def test_a_run_trained_on_all_images_has_a_report_without_them(run: Run, command: Command) -> None:
    shutil.move(run.folder / "fold0", run.folder / "foldall")
    shutil.rmtree(run.folder / "fold1")
    (run.folder / "foldall/oof.npz").unlink()
    done = command("report", "t")
    assert done.returncode == 0, done.stderr
    page = Page(run.folder / "report.html")
    assert page.words.count("There are no out-of-fold predictions: no training with validation images has ended.") == 4
    assert not page.pictures


def test_rows_of_a_confusion_matrix_are_the_truth() -> None:
    counts = confusion_counts(np.array([[0, 1], [0, 1], [2, 2]]), 3)
    assert counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_precision_and_recall_are_counted_from_the_surest_claim_down() -> None:
    recall, precision = precision_recall(np.array([0.1, 0.9, 0.5]), np.array([True, True, False]), 4)
    assert recall.tolist() == [1 / 4, 2 / 4]
    assert precision == pytest.approx([1, 2 / 3])


@pytest.mark.slow
def test_a_browser_shows_pages_of_incomplete_runs_whole(
    run: Run, words: list[str], data_dir: Path, command: Command, browser: Browser
) -> None:
    next((data_dir / "train_images").iterdir()).unlink()
    assert command("check", *words, "name=t").returncode == 1
    assert command("report", "t").returncode == 0
    for name in ("check.html", "report.html"):
        browser.look_at(run.folder / name, 380).assert_whole()


CHECKED = ("Report", "Training images", "Classes", "Images without any class", "Sizes", "Training and test images")
LEARNT = ("Learning curves", "Scores by fold", "Out-of-fold images", "Thresholds", "Right and wrong answers")
HEADINGS = {
    "check.html": [*CHECKED, "Near-duplicates", "Folds", "Worst rows"],
    "report.html": [*LEARNT, "Test-time views", "Time and memory"],
}


@pytest.mark.slow
def test_a_browser_shows_pages_of_complete_runs_whole_at_any_width(
    complete: Run, words: list[str], command: Command, browser: Browser
) -> None:
    assert command("folds", *words).returncode == 0
    assert command("check", *words, "name=t").returncode == 0
    for name, headings in HEADINGS.items():
        for width in (380, 1280):
            seen = browser.look_at(complete.folder / name, width)
            seen.assert_whole()
            assert seen.headings == headings
            assert len(seen.images) >= 20
