"""Localise, crop, classify: a run that sees only what another one found, from train.csv to what its bundle answers."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import PROJECT, TINY
from trainings import call
from warm import warm_python

from competition.bundle import infer_script
from competition.bundle.build import FIND
from competition.bundle.manifest import check_code, read_manifest, write_manifest
from competition.bundle.predictor import Predictor
from competition.bundle.stages import Finding, Stage, copy_stages
from competition.config.loading import task_names
from competition.files.crops import CROPS, crop_sources, uncropped
from competition.files.images import read_image
from competition.files.item_source import seen_of
from competition.runs.folder import Run
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.training.logger import MetricsPlot

Command = Callable[..., CompletedProcess[str]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not {"classification", "segmentation"} <= set(task_names()), reason="one finds, one classifies"),
]
SIDE, PATCH, TRAIN, TEST = 128, 32, 48, 24
STRIPES = ["across", "down"]  # too narrow to be told in an image that is resized to a quarter


def write_image(path: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Write a grey image that has a bright patch of stripes somewhere; return their direction and the patch as runs."""
    label = STRIPES[int(rng.integers(2))]
    stripes = np.where(np.arange(PATCH) % 4 < 2, 255.0, 120.0)
    image = 60 + rng.normal(0, 20, (SIDE, SIDE))
    top, left = rng.integers(4, SIDE - PATCH - 4, 2).tolist()
    image[top : top + PATCH, left : left + PATCH] = stripes[:, None] if label == "across" else stripes[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return label, " ".join(f"{column * SIDE + top + 1} {PATCH}" for column in range(left, left + PATCH))


def hand_out(folder: Path) -> None:
    """Write a competition of directions, with a table of where patches are, and beside it what is right of the test
    images."""
    rng = np.random.default_rng(0)
    names = {
        part: [f"{part}{number:02}.png" for number in range(count)]
        for part, count in (("train", TRAIN), ("test", TEST))
    }
    each = {part: [write_image(folder / f"{part}_images" / name, rng) for name in ids] for part, ids in names.items()}
    pd.DataFrame({"image_id": names["train"], "label": [label for label, _ in each["train"]]}).to_csv(
        folder / "train.csv", index=False
    )
    pd.DataFrame({"image_id": names["test"], **dict.fromkeys(STRIPES, 0.5)}).to_csv(
        folder / "sample_submission.csv", index=False
    )
    for name, ids, runs in (
        ("patches.csv", names["train"], [runs for _, runs in each["train"]]),
        ("patches_sample.csv", names["test"], ["1 1"] * TEST),
    ):
        pd.DataFrame({"image_id": ids, "class_id": "patch", "rle": runs}).to_csv(folder / name, index=False)
    pd.DataFrame({"image_id": names["test"], "label": [label for label, _ in each["test"]]}).to_csv(
        folder.parent / "truth.csv", index=False
    )


WORDS = [*TINY, "data.image_size=32", "data.batch_size=8", "data.num_folds=2", "data.augmentation={}"]
WORDS += ["model.pretrained=false", "optimizer.lr=0.01", "trainer.max_epochs=6"]

MAPS = ["data.maps={run: finder, classes: [patch]}", "data.channels=6"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a competition and three runs: one finds patches; one sees only these, and what the first
    says of their pixels; one sees all."""
    folder = tmp_path_factory.mktemp("stages")
    hand_out(folder / "data")
    tables = ["data.train_csv=patches.csv", "data.sample_submission=patches_sample.csv", "data.folds=patch_folds.csv"]
    classes = [PROJECT / "configs/classification.yaml", *WORDS]
    # Its dice is 0.9 on either fold, by whatever kernels.
    surely = ["optimizer.lr=0.003", "data.batch_size=4", "model.decoder_channels=64"]
    runs = {
        "finder": [PROJECT / "configs/segmentation.yaml", *WORDS, *tables, *surely],
        "looking": [*classes, "data.crop={run: finder}", *MAPS],
        "whole": classes,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "executable", warm_python())
        patch.setattr(MetricsPlot, "finish", lambda self: None)
        for name, words in runs.items():
            for verb in ("check", "folds") if name != "whole" else ():
                assert call(verb, *words) == 0
            for fold in (0, 1) if name != "whole" else (0,):
                assert call("train", *words, f"name={name}", f"fold={fold}") == 0
            for verb in ("tune", "predict", *(("crops", "maps", "bundle") if name == "finder" else ("submit",))):
                assert call(verb, name, *(["--no-wheels"] if verb == "bundle" else [])) == 0
        assert call("bundle", "looking", "--no-wheels") == 0
    return folder


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages be asked in processes that are warm."""
    monkeypatch.setattr(sys, "executable", warm_python())


def right(submission: Path, truth: dict[str, str]) -> float:
    said = pd.read_csv(submission).set_index("image_id")[STRIPES].idxmax(axis=1)
    return float(np.mean([said[image_id] == label for image_id, label in truth.items()]))


@pytest.mark.usefixtures("warm")
def test_who_sees_the_patch_alone_tells_its_stripes_and_a_bundle_hands_in_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    truth = dict(pd.read_csv(place / "truth.csv").itertuples(index=False))
    looking, whole = (place / "outputs" / name / "submission.csv" for name in ("looking", "whole"))
    assert right(looking, truth) > right(whole, truth) + 0.2
    monkeypatch.chdir(tmp_path)
    infer_script.infer(place / "outputs" / "looking" / "bundle", place / "data")
    assert Path("submission.csv").read_bytes() == looking.read_bytes()
    assert "finder: crops, maps of 24 images" in capfd.readouterr().out


@pytest.mark.usefixtures("warm")
def test_one_by_one_what_is_found_in_an_image_is_seen_of_it(place: Path) -> None:
    predictor = Predictor(place / "outputs" / "looking" / "bundle", place / "data")
    written = pd.read_csv(place / "outputs" / "looking" / "submission.csv").set_index("image_id")
    for image_id in written.index[:3]:
        pixels = read_image(place / "data" / "test_images" / image_id, 3)
        rows = pd.concat([predictor(image_id), predictor(image_id, pixels)])
        np.testing.assert_allclose(rows[STRIPES], [written.loc[image_id, STRIPES].astype(float)] * 2, atol=1e-4)
    with pytest.raises(CompetitionError, match=r"stages/finder: .*expected \(height, width, 3\)"):
        predictor("x", np.zeros((8, 8), np.uint8))


@pytest.mark.usefixtures("warm")
def test_a_stage_is_asked_once_about_an_image_and_not_about_pixels_that_it_would_read_otherwise(
    place: Path, tmp_path: Path
) -> None:
    stages = {"finder": Stage(place / "outputs/looking/bundle/stages/finder", place / "data")}
    finding = Finding(stages, {"finder": ["crops", "maps"]}, tmp_path)
    both = Run.open(str(place / "outputs" / "looking"), [f"data.dir={place / 'data'}"]).config
    pixels = read_image(place / "data" / "test_images" / "test00.png", 3)
    seen = [
        seen_of(finding.looking(one, "test00.png", pixels).data, "test00.png", pixels).shape
        for one in (both, uncropped(both))
    ]
    assert seen[1] == (SIDE, SIDE, 6)
    assert seen[0] < seen[1]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    for key, other in {"test_image_file": "{image_id}_other", "channels": 2, "test_images": "others"}.items():
        strange = both.model_copy(update={"data": both.data.model_copy(update={key: other})})
        with pytest.raises(
            CompetitionError, match=r"stages/finder: looks at images by data\..*; ask by image_id alone"
        ):
            finding.looking(strange, "test00.png", pixels)
        assert finding.looking(strange, "test00.png", None)


@pytest.mark.usefixtures("warm")
def test_runs_of_one_bundle_that_look_by_one_stage_ask_it_once(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    shutil.copytree(place / "outputs" / "looking", tmp_path / "other", ignore=shutil.ignore_patterns("bundle"))
    members = [Run.open("looking"), Run.open(str(tmp_path / "other"), ["data.crop=null"])]
    capfd.readouterr()
    lines = copy_stages(members, tmp_path / "new", {"looking": STRIPES, "other": STRIPES})
    assert capfd.readouterr().out.count(" images\n") == 1
    assert len(list((tmp_path / "new" / "stages").iterdir())) == 1
    assert [line.partition(" of ")[0] for line in lines] == ["finder: crops, maps", "finder: maps"]


def test_a_notebook_finds_the_bundle_and_not_the_stage_within(place: Path) -> None:
    found: dict[str, Path] = {}
    exec(FIND.replace("/kaggle/input", str(place / "outputs" / "looking")), found)
    assert found["BUNDLE"] == place / "outputs" / "looking" / "bundle"


def test_a_bundle_vouches_for_its_stage(place: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(place / "outputs" / "looking" / "bundle", tmp_path / "bundle"))
    (bundle / "stages/finder/runs/finder/fold0.safetensors").write_bytes(b"!")
    with pytest.raises(CompetitionError, match=r"finder/fold0\.safetensors: is not the file that manifest\.json"):
        read_manifest(bundle)
    (bundle / "stages/finder/yaml.py").write_text("")
    with pytest.raises(CompetitionError, match=r"stages/finder/yaml\.py: is in the bundle, though manifest\.json"):
        check_code(bundle)


def test_a_bundle_from_before_it_could_say_where_things_are_is_refused(place: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(place / "outputs" / "finder", tmp_path / "finder"))
    manifest = json.loads((other / "bundle" / "manifest.json").read_text())
    (other / "bundle/competition/bundle/found.py").unlink()
    write_manifest(other / "bundle", manifest["runs"], None)
    run = Run.open(str(place / "outputs" / "looking"), [f"data.crop.run={other}"])
    with pytest.raises(CompetitionError, match=r"finder/bundle: cannot say where .* an older version of the template"):
        copy_stages([run], tmp_path, {"looking": STRIPES})


def test_that_a_run_finds_something_else_now_is_told(place: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    finder, note = tmp_path / "outputs" / "finder", "warning: outputs/looking/fold0 was trained with another outputs/"
    assert "warning" not in command("submit", "looking").stdout
    assert "\nnot counted: finder, which a bundle asks first" in command("predict", "looking", "--estimate").stdout
    shutil.copy(finder / "fold0" / "oof.npz", finder / "test.npz")  # other predictions
    said = (
        f"outputs/finder/{CROPS}: is older than outputs/finder/test.npz; make it anew with `competition crops finder`"
    )
    assert f"warning: {said}" in command("submit", "looking").stdout
    done = command("predict", "looking")
    assert (done.returncode, done.stderr) == (1, f"{said}, in the project of that run\n")
    done = command("bundle", "looking", "--no-wheels")
    assert done.stderr == (
        "outputs/finder/bundle: is older than what it was made from; make it first with `competition bundle finder`\n"
    )
    assert "maps.csv: is older than" in command("train", PROJECT / "configs/classification.yaml", *WORDS, *MAPS).stderr
    found = pd.read_csv(finder / CROPS, dtype=str, keep_default_na=False)
    found.loc[0, ["left", "top", "right", "bottom"]] = ["0", "0", "1", "1"]
    found.to_csv(finder / CROPS, index=False)
    MadeFrom.now(finder / CROPS, crop_sources(finder)).note()
    assert f"{note}finder/{CROPS} than is there now" in command("submit", "looking").stdout
