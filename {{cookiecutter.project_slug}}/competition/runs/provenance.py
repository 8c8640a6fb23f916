"""What a run was made of (code, data, folds, packages), and which run it is compared with. No torch.

A run's parent is the nearest of: the run of its own config file, where `name=...` gave it another name; the run of the
file that one names with `base:`, and so on; else the run that was begun before it. Where there is none, its config is
compared with the one that is shipped for the task.
"""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from competition.config.loading import config_differences, dump_config, load_config, read_yaml, with_bases
from competition.config.settings import Config
from competition.data.extra_sets import describe_older_pseudo, extra_files, extra_folders, learnt_files
from competition.data.folds import folds_path
from competition.files.joined_tables import table_files
from competition.files.maps import refuse_absent_stages
from competition.runs.blend_recipe import blend_sources
from competition.runs.folder import BEGUN_BY, ELSEWHERE, Run, is_among, is_finished
from competition.runs.ledger import Line
from competition.support.errors import CompetitionError
from competition.support.freshness import changed_sources
from competition.support.paths import PACKAGE, here

# Another version of these may predict other numbers.
PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "timm", "segmentation-models-pytorch"),
    *("albumentations", "opencv-python-headless", "numpy"),
)
DIGITS = 12  # of a fingerprint


def provenance(config: Config) -> dict[str, str]:
    """Return the columns of the ledger that tell what a run is made of, here and now."""
    commit, dirty = git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "data": data_fingerprint(config),
        "folds_csv": folds_fingerprint(config),
        "versions": package_versions(),
    }


def git_state(folder: Path = PACKAGE) -> tuple[str, str]:
    """Return the commit of the project's code and yes or no: whether it has changes; empty texts without git."""
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changes = _git(folder, "status", "--porcelain") if commit else None
    return (commit or "", "" if changes is None else "yes" if changes else "no")


def data_fingerprint(config: Config) -> str:
    """Return a checksum of train.csv and other tables of training images, of what a run that it learns from says, and
    of names and sizes of the images."""
    digest = hashlib.sha256()
    for path in (*table_files(config.train_csv), *extra_files(config)):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    folders = [config.data.dir / config.data.train_images, *extra_folders(config)]
    return _digits(digest, (text for folder in folders for text in sorted(_names_and_sizes(str(folder)))))


def test_images_fingerprint(config: Config) -> str:
    """Return a checksum of which test images there are: how they are named, and the names and sizes of their files;
    nothing where they are not here."""
    data = config.data
    if not (folder := data.dir / data.test_images).is_dir():
        return ""
    named = [str(data.test_images), str(data.test_image_file)]
    return _digits(hashlib.sha256(), [*named, *sorted(_names_and_sizes(str(folder)))])


def describe_other_tables(run: Run) -> list[str]:
    """Warn where trainings learnt from another train.csv, other folds or tables beside it, as crops of another run, or
    by another run, than are there now, or where these are older than what that run says now."""
    lines = list[str]()
    try:
        refuse_absent_stages(run.config.data)
    except CompetitionError as error:
        lines.append(f"warning: {error}")
    lines += describe_older_pseudo(run.config.data)
    tables, trained = learnt_files(run.config), dict[Path, list[Path]]()
    for folder in filter(is_finished, run.trainings()):
        if (begun := folder / BEGUN_BY).is_file():
            for table in changed_sources(begun, tables, by_contents=True)[:1]:
                trained.setdefault(table, []).append(folder)
    for table, (first, *others) in trained.items():
        more = f" (so were {len(others)} more)" if others else ""
        lines.append(
            f"warning: {first} was trained with another {table} than is there now{more}; train anew, under another name"
        )
    return lines


def folds_fingerprint(config: Config) -> str:
    """Return a checksum of the rows of folds.csv, in any order; nothing where there is none."""
    path = folds_path(config)
    if not path.is_file():
        return ""
    rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return _digits(hashlib.sha256(), sorted(row for row in rows if row))


def package_versions() -> str:
    """Return versions as `python 3.11.9; torch 2.8.0; ...`."""
    found = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)


def _names_and_sizes(folder: str, inside: str = "") -> Iterator[str]:
    """Yield a text a file; scandir knows much of it without another look at the disk."""
    if not os.path.isdir(folder):  # noqa: PTH112 (a path object for each of a million files takes longer than the disk)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _names_and_sizes(entry.path, f"{inside}{entry.name}/")
            else:
                yield f"{inside}{entry.name} {entry.stat().st_size if entry.is_file() else 0}"


def _digits(digest: "hashlib._Hash", lines: Iterable[str]) -> str:
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:DIGITS]


def _git(folder: Path, *words: str) -> str | None:
    # Without the lock: another process may be committing.
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def base_names(path: Path) -> list[str]:
    """Return the names of the runs of a config file and of those it inherits from, the nearest first."""
    return [str(read_yaml(one).get("name", one.stem)) for one in with_bases(path)]


def parent_of(config: Config, bases: Iterable[str], lines: Mapping[str, Line]) -> str:
    """Return the run that a new one is compared with; an empty text where there is none whose config is known."""
    for name in [*bases, *reversed(list(lines))]:
        is_blend = bool(blend_sources(here().outputs / name))
        parent = None if name == config.name or is_blend else _config_of(name)
        if parent is not None and parent.task == config.task:
            return name
    return ""


def difference(config: Config, parent: str) -> str | None:
    """Return how a config differs from its parent's, as text; None where that one's is no longer known."""
    shipped = Path("configs") / f"{config.task}.yaml"
    if parent:
        base = _config_of(parent)
    elif shipped.is_file():
        base = load_config([shipped])
    else:
        base = None
    return None if base is None else "; ".join(differences(base, config))


def differences(one: Config, other: Config) -> list[str]:
    """List `key: one -> other` where two configs differ in what is trained or made of it; where it computes is left
    out."""
    plain = [yaml.safe_load(dump_config(config)) for config in (one, other)]
    lines = config_differences(*plain)
    return [line for line in lines if not is_among(line, ("name", *ELSEWHERE))]


def _config_of(run: str) -> Config | None:
    try:
        return Run.open(run).untuned
    except CompetitionError:  # it was deleted, or has keys that are no longer known
        return None
