"""What a training notebook on Kaggle does with what was pushed, and what it leaves for `fetch`. No torch.

It is started as `python -m competition.kaggle.session` in the folder of the code, before what Kaggle's image lacks is
installed: only the standard library is imported.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from competition.support import paths as places
from competition.support.paths import here

JOB = "job.json"  # in the folder of the code
LISTING = "training.json"  # beside outputs/
FOLDS = "folds*.csv"  # there, too: folds.csv, or folds_TABLE.csv of another table than train.csv


@dataclass(frozen=True)
class Job:
    """What was pushed: the run, the words of its `competition run`, and the notebook that it goes on from, if any."""

    run: str
    words: list[str]
    data_dir: str = "data"  # of the machine that pushed
    git_commit: str = ""
    git_dirty: str = ""
    former: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a session left. Kaggle neither keeps times of files nor, for certain, those whose names begin with a dot."""

    job: Job
    status: int  # of `competition run`: 0, or 3 where its time was over
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # size, time in ns, sha256
    notes: dict[str, str] = field(default_factory=dict)  # what files were made from: their texts


def main() -> None:
    """Train. Only what comes before the training fails: of a notebook that failed Kaggle may keep nothing."""
    job = Job(**json.loads(Path(JOB).read_text(encoding="utf-8")))
    outputs = here().outputs
    if job.former is not None:
        take_up(job.former, outputs.parent)
    for folds in Path().glob(FOLDS):
        if not (outputs.parent / folds).is_file():
            shutil.copyfile(folds, outputs.parent / folds)
    if lacking := list(what_lacks(Path("pyproject.toml"))):
        print(f"== install: {', '.join(lacking)}", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *lacking], check=True)
    status = subprocess.run([sys.executable, "-m", "competition", "run", *job.words], check=False).returncode
    write_listing(outputs.parent, job, status)
    told = {0: "it is finished", 3: "its time was over; push it again, and it goes on"}
    print(
        f"\n== {job.run}: {told.get(status, f'it failed (exit {status})')}; `competition fetch {job.run}`", flush=True
    )


def what_lacks(pyproject: Path) -> Iterator[str]:
    """Yield the requirements of the project that are not met here; all others stay as the image has them."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    for text in project.get("dependencies", []):
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            is_met = wanted.specifier.contains(version(wanted.name), prereleases=True)
        except PackageNotFoundError:
            is_met = False
        if not is_met:
            yield text


def take_up(notebook: str, working: Path) -> None:
    """Copy what the session before this one left, which Kaggle has mounted read-only, to where it goes on."""
    root, slug = places.KAGGLE / "input", notebook.rpartition("/")[2]
    # Kaggle has put the output of a notebook one and three folders deep.
    found = [one for depth in ("", "*/", "*/*/") for one in root.glob(f"{depth}{slug}/{LISTING}")]
    found = found or [one for depth in ("", "*/", "*/*/") for one in root.glob(f"{depth}{slug}/outputs")]
    if not found:
        sys.exit(f"{root}: the output of {notebook}, from which this goes on, is not there; add it as an input")
    left = found[0].parent
    for source in (left / "outputs", left / LISTING, *left.glob(FOLDS)):
        if source.is_dir():
            shutil.copytree(source, working / source.name, copy_function=shutil.copyfile, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, working / source.name)
    restore(working)
    (working / LISTING).unlink(missing_ok=True)


def write_listing(working: Path, job: Job, status: int) -> None:
    """List all files of a run with their checksums, and the texts of those whose names begin with a dot."""
    run = working / "outputs" / job.run
    paths = [path for path in sorted(run.rglob("*")) if path.is_file()]
    paths += [path for path in (working / "outputs" / "runs.csv", *sorted(working.glob(FOLDS))) if path.is_file()]
    names = {path.relative_to(working).as_posix(): path for path in paths}
    is_dotted = {name: any(part.startswith(".") for part in Path(name).parts) for name in names}
    files = {name: _described(path) for name, path in names.items() if not is_dotted[name]}
    notes = {name: path.read_text(encoding="utf-8") for name, path in names.items() if path.name.endswith(".sources")}
    text = json.dumps(asdict(Listing(job, status, files, notes)), indent=1)
    (working / LISTING).write_text(f"{text}\n", encoding="utf-8")


def _described(path: Path) -> tuple[int, int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, path.stat().st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()


def read_listing(working: Path) -> Listing | None:
    """Read the list of files; None where the session was ended before it had written one, or half of it."""
    try:
        values: dict[str, Any] = json.loads((working / LISTING).read_text(encoding="utf-8"))
        files = {name: (int(size), int(time), str(sha256)) for name, (size, time, sha256) in values["files"].items()}
        return Listing(Job(**values["job"]), int(values["status"]), files, dict(values["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def restore(working: Path) -> None:
    """Give files that came from a session the times they had, and the notes of what they were made from."""
    listing = read_listing(working)
    if listing is None:
        return
    for name, (size, time, _) in listing.files.items():
        path = working / name
        if path.is_file() and path.stat().st_size == size:
            os.utime(path, ns=(time, time))
    for name, text in listing.notes.items():
        if (working / name).parent.is_dir():
            (working / name).write_text(text, encoding="utf-8")


def damaged(working: Path, files: Mapping[str, tuple[int, int, str]]) -> list[str]:
    """Name the files that are not as they were listed."""
    return [
        name
        for name, (size, _, sha256) in files.items()
        if not (working / name).is_file() or _described(working / name)[::2] != (size, sha256)
    ]


if __name__ == "__main__":
    main()
