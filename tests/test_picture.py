"""The picture in the README comes from a script that draws what is there."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pandas as pd
import pytest
from baking import REPOSITORY, environment, run
from competition.tasks.made_up_images import write_sample

DRAWN = ("segmentation", "detection", "classification")  # as the script takes their repos


def hand_in_the_solution(repo: Path, task: str) -> None:
    """Write a submission that is right, as `competition submit` would after a training that has learnt all."""
    answers = pd.read_csv(repo / "data" / "solution.csv", dtype=str, keep_default_na=False)
    if task == "detection":
        boxes = answers["class_id"] + " 0.9 " + answers[["x", "y", "w", "h"]].agg(" ".join, axis=1)
        strings = (
            boxes.where(answers["class_id"] != "", "")
            .groupby(answers["image_id"], sort=False)
            .agg(" ".join)
            .str.strip()
        )
        answers = strings.rename("PredictionString").reset_index()
    if task == "classification":
        asked = pd.read_csv(repo / "data" / "sample_submission.csv", nrows=0).columns[1:]
        answers = answers[["image_id"]].assign(**{name: (answers["label"] == name) * 1 for name in asked})
    folder = repo / "outputs" / task
    folder.mkdir(parents=True)
    answers.to_csv(folder / "submission.csv", index=False)


@pytest.mark.slow
def test_the_picture_has_every_room_of_a_rendered_repo(bake_once: Callable[[str], Path], tmp_path: Path) -> None:
    repos = {task: shutil.copytree(bake_once(task), tmp_path / task) for task in DRAWN}
    for task, repo in repos.items():
        write_sample(task, repo / "data", 20)
        hand_in_the_solution(repo, task)
    first = repos["segmentation"]
    shutil.rmtree(first / "competition" / "pages")  # so that no list of the script's own would do

    picture = tmp_path / "picture.png"
    script = REPOSITORY / "docs" / "draw_picture.py"
    done = run(sys.executable, script, *repos.values(), picture, cwd=tmp_path, env=environment(first))
    assert done.returncode == 0, done.stderr
    package = first / "competition"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    drawn = [line.removeprefix("│   ├── ") for line in done.stdout.splitlines() if line.startswith("│   ├── ")]
    assert sorted(line.partition("/")[0] for line in drawn) == sorted(rooms)
    assert all(line.partition("/")[2].strip() for line in drawn), done.stdout
    pixels = cv2.imread(str(picture))
    assert pixels is not None
    assert pixels.std() > 20
