"""What each step of the path is worth on a real competition: thresholds, views, a second model; and what it costs.

    python benchmarks/real_competitions.py nuclei|bccd|digits DATA [FOLDER]

DATA is its folder (train.csv, images, sample_submission.csv, solution.csv); runs go into FOLDER, by default a temporary
one. Each step is a command as a user gives it. Views that do not pay out of fold are left out of the last step.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"


@dataclass(frozen=True)
class Competition:
    """How a competition is trained on a CPU in minutes."""

    task: str
    words: list[str]
    views: str
    second: list[str]  # what is different in the second model


COMPETITIONS = {
    "nuclei": Competition(
        "segmentation",
        ["data.image_size=128", "data.batch_size=8", "trainer.max_epochs=12"],
        "[hflip, vflip, rot180]",
        ["model.architecture=fpn", "seed=1"],
    ),
    "bccd": Competition(
        "detection",
        ["data.image_size=[144, 192]", "data.batch_size=8", "trainer.max_epochs=8"],
        "[hflip, vflip]",
        ["model.encoder=resnet10t", "seed=1"],
    ),
    "digits": Competition(
        "classification",
        [
            "data.image_size=64",
            "data.batch_size=32",
            "trainer.max_epochs=10",
            "data.augmentation.horizontal_flip=0",
            "data.augmentation.vertical_flip=0",
        ],
        "[scale1.5]",
        ["model.encoder=resnet10t", "seed=1"],
    ),
}


class Commands:
    """Runs verbs in a folder and adds up what they cost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, tuple[float, float]] = {}  # CPU and wall by step

    def __call__(self, step: str, *words: str) -> str:
        command = [sys.executable, "-m", "competition", *words]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        before, started = _cpu_seconds(), time.perf_counter()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"competition {' '.join(words)}:\n{done.stdout}{done.stderr}")
        cpu, wall = self.seconds.get(step, (0.0, 0.0))
        self.seconds[step] = cpu + _cpu_seconds() - before, wall + time.perf_counter() - started
        return done.stdout


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def score(text: str, where: str) -> float:
    """Return the first metric of a line of a verb's report."""
    found = re.search(rf"^{where}: +\S+ (-?[\d.]+)", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def main() -> None:
    name, data = sys.argv[1], Path(sys.argv[2]).resolve()
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="competition-"))
    folder.mkdir(parents=True, exist_ok=True)
    asked, competition = COMPETITIONS[name], Commands(folder)
    preset = [str(PROJECT / "configs" / f"{asked.task}.yaml"), str(PROJECT / "configs" / "trainer" / "cpu.yaml")]
    words = [*preset, f"data.dir={data}", "data.folds=folds.csv", *asked.words]
    run = folder / "outputs" / name
    rows = {}

    competition("train and predict", "run", *words, f"name={name}")
    way = way_of(competition("tune", "tune", name))
    kept = (run / "postprocess.yaml").read_text()
    (run / "postprocess.yaml").unlink()
    rows["as the config has it"] = tuned_row(run, "", competition("submit", "submit", name))
    (run / "postprocess.yaml").write_text(kept)
    rows["tuned"] = tuned_row(run, way, competition("submit", "submit", name))

    views = f"tta={asked.views}"
    competition("views", "predict", name, views)
    way = way_of(competition("views", "tune", name, views))
    rows[f"and views {asked.views}"] = tuned_row(run, way, competition("submit", "submit", name, views))
    if rows[f"and views {asked.views}"][0] <= rows["tuned"][0]:
        views = "tta=[]"  # as one would who has seen that they do not pay out of fold
        competition("views", "predict", name, views)

    other = f"{name}2"
    competition("second model", "run", *words, *asked.second, f"name={other}")
    competition("second model", "predict", other, views)
    # Boxes are no numbers to fit: both runs count the same.
    weights = [] if asked.task == "detection" else ["--weights", "fit"]
    competition("ensemble", "submit", name, other, views, "--name", f"{name}_blend", *weights)
    way = way_of(competition("ensemble", "tune", f"{name}_blend"))
    blended = competition("ensemble", "submit", f"{name}_blend")
    rows[f"and a second model, {views}"] = tuned_row(folder / "outputs" / f"{name}_blend", way, blended)

    print(f"| {name} | out of fold | spread of folds | test | test - out of fold |\n|---|---|---|---|---|")
    for step, (inside, spread, test) in rows.items():
        print(f"| {step} | {inside:.4f} | {spread:.4f} | {test:.4f} | {test - inside:+.4f} |")
    print("seconds of CPU (wall): " + ", ".join(f"{s} {c:.0f} ({w:.0f})" for s, (c, w) in competition.seconds.items()))


def way_of(tuning: str) -> str:
    """Return the ending of cv.csv's columns that tell how good the thresholds are that were kept."""
    return "" if "does not pay" in tuning else "_cross_fitted"


def tuned_row(run: Path, way: str, submitted: str) -> tuple[float, float, float]:
    """Return out-of-fold score, difference of the folds' scores (largest - smallest), and test score."""
    lines = [line.split(",") for line in (run / "cv.csv").read_text().splitlines()]
    column = lines[0].index(lines[0][1] + way)
    values = {line[0]: float(line[column]) for line in lines[1:]}
    folds = [value for fold, value in values.items() if fold.startswith("fold")]
    return values["pooled"], max(folds) - min(folds), score(submitted, "test images")


if __name__ == "__main__":
    main()
