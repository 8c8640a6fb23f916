"""Tiny competitions in public layouts: which are recognised, by how many lines of YAML, and the truth's score.

    python benchmarks/layouts.py TOOL [ID...]

TOOL is a script that makes them: `TOOL OUT all` writes OUT/ID/ with answers.csv of the hidden truth beside the files
that are handed out, `TOOL --grade ID submission.csv answers.csv` scores as the host does. Prints a table: a competition
is recognised where `check data.dir=...` prints a config that passes `check`. The truth, written in the columns of the
sample submission, is scored by the host; and again after the project has read it and written it anew.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

PROJECT = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"
THROUGH_US = """
import sys
from pathlib import Path
from competition.config.loading import load_config
from competition.files.image_folder import test_image
from competition.files.images import read_image_size
from competition.tasks.contract import Task
config = load_config([Path(sys.argv[1])], [])
task, data = Task(config.task), config.data
classes = task.table.read_table(config).classes
ids = task.submission.read_test_ids(config, classes)
sizes = {one: read_image_size(test_image(config, one), data.channels, data.max_pixels) for one in ids}
answers = dict(task.submission.read_submission(Path(sys.argv[2]), config, classes, sizes))
task.submission.write_submission(Path(sys.argv[3]), config, [(one, answers[one]) for one in ids], classes)
"""


def said(*words: object) -> tuple[int, str]:
    """Run Python with these words in the project; return exit status and what it printed."""
    done = subprocess.run([sys.executable, *map(str, words)], check=False, cwd=PROJECT, capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


def truth_in_columns(folder: Path) -> Path:
    """Write the answers in the columns of the sample submission."""
    (sample,) = sorted(folder.glob("*sample*submission*.csv"))[:1]
    columns = list(pd.read_csv(sample, nrows=0).columns)
    answers = pd.read_csv(folder / "answers.csv", dtype=str, keep_default_na=False)
    path = folder / "truth.csv"
    answers[[name for name in columns if name in answers]].to_csv(path, index=False)
    return path


def line(tool: Path, folder: Path) -> list[str]:
    """Return the cells of a competition: its name, lines of YAML, recognised or not, the host's scores."""
    name = folder.name
    answers = folder.with_name(f"{name}.answers.csv")
    said("-m", "competition", "unpack", folder)
    status, printed = said("-m", "competition", "check", f"data.dir={folder}")
    config = folder / "mine.yaml"
    config.write_text(printed)
    for base in ("classification", "detection", "segmentation"):
        (folder / f"{base}.yaml").write_text((PROJECT / "configs" / f"{base}.yaml").read_text())
    is_read = status == 0 and said("-m", "competition", "check", config, "data.near_duplicates=false")[0] == 0
    lines = [one for one in printed.splitlines() if one.strip() and not one.startswith("#")]
    truth = truth_in_columns(folder)
    (folder / "answers.csv").rename(answers)
    host = said(tool, "--grade", name, truth, answers)
    written = folder / "written.csv"
    ours = (1, "")
    if is_read and said("-c", THROUGH_US, config, truth, written)[0] == 0:
        ours = said(tool, "--grade", name, written, answers)
    cells = [f"{float(score):.3f}" if status == 0 else "-" for status, score in (host, ours)]
    return [name, str(len(lines)) if is_read else "-", "yes" if is_read else "no", *cells]


def main(tool: Path, wanted: list[str], out: Path) -> None:
    """Make the competitions and print their table."""
    subprocess.run([sys.executable, str(tool), str(out), *(wanted or ["all"])], check=True, stdout=subprocess.DEVNULL)
    print(
        "| competition | lines of YAML | recognised | the truth's score | read and written by us |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    folders = sorted(one for one in out.iterdir() if one.is_dir())
    rows = [line(tool, folder) for folder in folders]
    for cells in rows:
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{sum(cells[2] == 'yes' for cells in rows)} of {len(rows)} recognised")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as workspace:
        main(Path(sys.argv[1]).resolve(), sys.argv[2:], Path(workspace))
