"""What a training was made of, beside its config: code, data, folds and packages. No torch."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from competition.folds import folds_path
from competition.settings import Config

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


def git_state(folder: Path = Path(__file__).parent) -> tuple[str, str]:
    """Return the commit of the project's code and yes or no: whether it has changes; empty texts without git."""
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changes = _git(folder, "status", "--porcelain") if commit else None
    return (commit or "", "" if changes is None else "yes" if changes else "no")


def data_fingerprint(config: Config) -> str:
    """Return a checksum of train.csv, of rows of pseudo-labels, and of names and sizes of the training images."""
    digest = hashlib.sha256()
    for path in (config.train_csv, config.data.pseudo):
        if path is not None and path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return _digits(digest, sorted(_names_and_sizes(str(config.data.dir / config.data.train_images))))


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
