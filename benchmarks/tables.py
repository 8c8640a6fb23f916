"""`sample`, `check` and `folds` on a csv file of 100,000 rows, and `folds` beside the least that has to be done.

    python benchmarks/tables.py [TASK]

Each is a process of its own. The yardstick reads the same csv file with pandas and splits with scikit-learn.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"
ROWS = 100_000
# Images that give about so many rows: four classes an image; a box and a half; a label.
IMAGES = {"segmentation": ROWS // 4, "detection": int(ROWS / 1.33), "classification": ROWS}
YARDSTICK = """
import pandas, sys
from sklearn.model_selection import StratifiedKFold
frame = pandas.read_csv(sys.argv[1])
labels = frame.groupby("image_id").first().iloc[:, -1].fillna("").astype(str).str.len()
for _ in StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels): pass
"""


def timed(*command: str | Path) -> tuple[float, float]:
    """Run a command; return wall and CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(word) for word in command], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def main(task: str, folder: Path) -> None:
    data = folder / "data"
    verb = [sys.executable, "-m", "competition"]
    config = [f"configs/{task}.yaml", f"data.dir={data}", "data.num_folds=5"]
    sample = timed(*verb, "sample", "--task", task, "--size", str(IMAGES[task]), "--dir", data)
    with (data / "train.csv").open() as file:
        rows = sum(1 for _ in file) - 1
    print(f"{task}: train.csv of {rows} rows, {IMAGES[task]} images; wall and CPU seconds of each process")
    print(f"sample     {sample[0]:6.1f} {sample[1]:6.1f}")
    check = timed(*verb, "check", *config)
    print(f"check      {check[0]:6.1f} {check[1]:6.1f}")
    folds, yardstick = [], []
    for _ in range(3):
        folds.append(timed(*verb, "folds", *config))
        yardstick.append(timed(sys.executable, "-c", YARDSTICK, data / "train.csv"))
    best = [min(cpu for _, cpu in side) for side in (folds, yardstick)]
    print(f"folds      {min(folds)[0]:6.1f} {best[0]:6.1f}")
    print(f"yardstick  {min(yardstick)[0]:6.1f} {best[1]:6.1f}   ratio {best[0] / best[1]:.2f} (CPU, best of 3)")


if __name__ == "__main__":
    workspace = Path(tempfile.mkdtemp())
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "segmentation", workspace)
    finally:
        shutil.rmtree(workspace)
