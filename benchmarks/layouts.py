"""Tiny competitions in public layouts: which are recognised, by how many lines of YAML, and how they are scored.

    python benchmarks/layouts.py TOOL [ID...]

TOOL is a script that makes them: `TOOL OUT all` writes OUT/ID/ with answers.csv of the hidden truth beside the files
that are handed out, `TOOL --grade ID submission.csv answers.csv` scores as the host does. Prints a table: a competition
is recognised where `check data.dir=...` prints a config that passes `check`. The truth, written in the columns of the
sample submission, is scored by the host after the project has read it and written it anew. Then a submission with
faults (answers of every third image swapped with the next one's, masks moved by 7 pixels, boxes by 10, points by 14) is
scored by the project, by the metric of the printed config, and by the host.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

PROJECT = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"
# The host's metric, where the printed config has another: what a folder looks like does not tell it.
METRICS = {
    "inaturalist-2019-fgvc6": "error",
    "herbarium-2020-fgvc7": "macro_f1",
    "plant-seedlings-classification": "accuracy",
}
LIKE_TRAIN = ("kuzushiji-recognition", "vinbigdata-chest-xray-abnormalities-detection")  # the answers' columns
# What answers the other rows, as `submit RUN --join RUN` does; the score is the mean over the labels of both.
OTHER_ROWS = {"siim-covid19-detection": "configs/detection_siim_covid.yaml"}
THROUGH_US = """
import json, re, sys
from pathlib import Path
import numpy as np
from competition.config.loading import load_config
from competition.files.item_source import test_source
from competition.tasks.contract import Task

config_file, truth, answers, written, faulty, *words = sys.argv[1:]
config = load_config([Path(config_file)], words)
task, data = Task(config.task), config.data
MOVED = {"bboxes": 10, "keypoints": 14}
table = task.table.read_table(config)
classes, ids = table.classes, task.submission.read_test_ids(config, table.classes).tolist()
where = data.sample_submission.partition(" where ")
sizes = {one: test_source(config, one).read_size() for one in ids}

def read(path):
    return dict(task.submission.read_submission(Path(path + where[1] + where[2]), config, classes, sizes))

if truth != answers:
    told = read(truth).items()
else:  # in columns like those of train.csv
    table_of_answers = task.table.read_table(config, Path(answers))
    places = {one: place for place, one in enumerate(table_of_answers.image_ids)}
    true = {one: table_of_answers.target(places[one], *sizes[one]) for one in ids}
    told = [(one, task.submission.perfect_answer(answer, len(classes))) for one, answer in true.items()]
right = {one: answer | ({"top": answer["top"][answer["top"] > -2]} if "top" in answer else {}) for one, answer in
    told}  # of fewer than the best five, -2 stands for none
task.submission.write_submission(Path(written), config, [(one, right[one]) for one in ids], classes)
group = getattr(config.format, "group", None)
if group:
    from competition.tasks.classification.formats.groups import groups_of
    units = dict(zip(ids, groups_of(config, ids)))
else:
    units = {one: one for one in ids}
order = list(dict.fromkeys(units.values()))
first = {unit: one for one, unit in reversed(units.items())}

def fault(one):
    answer, place = dict(right[one]), order.index(units[one])
    if "mask" in answer:
        return {"mask": np.roll(answer["mask"], 7 * (place % 2 == 0), axis=1)}
    if "bboxes" in answer or "keypoints" in answer:
        key = "bboxes" if "bboxes" in answer else "keypoints"
        height, width = sizes[one]
        most = np.resize([width, height], answer[key].shape[1:])
        moved = answer[key] + MOVED[key] * (place % 2 == 0) * np.resize([1, 0], answer[key].shape[1:])
        return answer | {key: np.minimum(moved, most).astype(answer[key].dtype)}
    if place % 3 < 2 and (place % 3 == 1 or place + 1 < len(order)):
        answer = dict(right[first[order[place + 1 if place % 3 == 0 else place - 1]]])
    form = config.format.submission
    if "value" in answer or form.value == "decision" or form.layout not in ("columns", "rows", "boxes"):
        return answer
    doubt = place / (2 * len(order))  # so that no two are as sure, of which hosts think differently
    even = 1 / len(classes) if config.format.target == "single" else 0.5
    mixed = (1 - doubt) * answer["probabilities"] + doubt * even
    return {key: value for key, value in answer.items() if key not in ("choice", "labels")} | {"probabilities": mixed}

task.submission.write_submission(Path(faulty), config, [(one, fault(one)) for one in ids], classes)
said = read(faulty) if not where[1] else dict(task.submission.read_submission(Path(faulty), config, classes, sizes))
example = table.target(0, *next(iter(sizes.values()))) if config.task == "classification" else {}

def target(one):
    answer = right[one]
    if "mask" in answer:
        place = re.search(config.format.volume, one) if config.format.volume else None
        volume = {"volume": place[1] if place.groups() else place[0], "slice": one} if place else {}
        return {key: answer[key] for key in ("mask", "objects") if key in answer} | volume
    if truth == answers:
        return true[one]
    if config.task != "classification":
        return {key: value for key, value in answer.items() if key != "scores"}
    more = {key: example[key] for key in ("class_weights", "grades") if key in example}
    more |= {"group": units[one]} if group else {}
    if "value" in answer:
        return {"value": answer["value"], **more}
    if config.format.target == "multi":
        return {"labels": answer["probabilities"] >= 0.5, **more}
    return {"label": int(answer["top"][0]) if "top" in answer else int(answer["probabilities"].argmax()), **more}

evidence = [task.score.evidence(said[one], target(one), config.metrics) for one in ids]
name = config.metrics[0]
labels = len(classes) + (config.task == "detection")  # boxes' voc_map has a class of no box, too
print(json.dumps([name, task.score.scores(evidence, [name], len(classes))[name], labels]))
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


def grade(tool: Path, name: str, parts: list[Path], answers: Path) -> str:
    """Return the host's score of the rows of files together."""
    rows = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in parts])
    rows.to_csv(parts[0], index=False)
    status, score = said(tool, "--grade", name, parts[0], answers)
    return f"{float(score) + 0.0:.4f}" if status == 0 else "-"


class Part(NamedTuple):
    """What the project makes of the rows that one config answers."""

    metric: str
    score: float
    labels: int
    written: Path
    faulty: Path


def through_us(folder: Path, config: Path | str, truth: Path, answers: Path, words: list[str]) -> Part | None:
    """Write the truth anew and a submission with faults into a new folder, and score that; None where it fails."""
    folder.mkdir()
    files = [folder / "written.csv", folder / "faulty.csv"]
    status, ours = said("-c", THROUGH_US, config, truth, answers, *files, *words)
    return None if status else Part(*json.loads(ours.splitlines()[-1]), *files)


def line(tool: Path, folder: Path) -> list[str]:
    """Return the cells of a competition: its name, lines of YAML, recognised or not, scores."""
    name = folder.name
    answers = folder.with_name(f"{name}.answers.csv")
    said("-m", "competition", "unpack", folder)
    truth = truth_in_columns(folder)
    (folder / "answers.csv").rename(answers)
    truth = truth.rename(folder.with_name(f"{name}.truth.csv")) if name not in LIKE_TRAIN else answers
    (folder / "truth.csv").unlink(missing_ok=True)
    status, printed = said("-m", "competition", "check", f"data.dir={folder}")
    config = folder / "mine.yaml"
    config.write_text(printed)
    for base in PROJECT.glob("configs/*.yaml"):
        (folder / base.name).write_text(base.read_text())
    is_read = status == 0 and said("-m", "competition", "check", config, "data.near_duplicates=false")[0] == 0
    lines = [one for one in printed.splitlines() if one.strip() and not one.startswith("#")]
    cells = [name, str(len(lines)) if is_read else "-", "yes" if is_read else "no"]
    if not is_read:
        return [*cells, "-", "-", "-", "-"]
    configs = [config, *([OTHER_ROWS[name]] if name in OTHER_ROWS else [])]
    words = [f"data.dir={folder}", *([f"metrics=[{METRICS[name]}]"] if name in METRICS else [])]
    parts = [through_us(folder / str(number), one, truth, answers, words) for number, one in enumerate(configs)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return [*cells, "-", "-", "-", "-"]
    score = sum(part.score * part.labels for part in known) / sum(part.labels for part in known)
    host = [grade(tool, name, files, answers) for files in ([p.written for p in known], [p.faulty for p in known])]
    return [*cells, host[0], known[0].metric, f"{score:.4f}", host[1]]


def main(tool: Path, wanted: list[str], out: Path) -> None:
    """Make the competitions and print their table."""
    subprocess.run([sys.executable, str(tool), str(out), *(wanted or ["all"])], check=True, stdout=subprocess.DEVNULL)
    print(
        "| competition | lines of YAML | recognised | the truth, read and written | our metric | with faults: ours "
        "| the host's |",
        "|---|---|---|---|---|---|---|",
        sep="\n",
        flush=True,
    )
    rows = []
    for folder in sorted(one for one in out.iterdir() if one.is_dir()):
        rows.append(line(tool, folder))
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    print(f"\n{sum(cells[2] == 'yes' for cells in rows)} of {len(rows)} recognised")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as workspace:
        main(Path(sys.argv[1]).resolve(), sys.argv[2:], Path(workspace))
