"""What lies where in a bundle, and whether it is whole. Only the standard library: it is read before anything else."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from competition.errors import CompetitionError

BUNDLE = "bundle"  # in a run's folder
MANIFEST = "manifest.json"
DATASET, KERNEL = "dataset-metadata.json", "kernel-metadata.json"  # for Kaggle
SCRIPT, NOTEBOOK = "infer.py", "infer.ipynb"
RECIPE = "blend.yaml"  # sources, weights and mean, where several runs predict
RUNS = "runs"  # <run>/config.yaml and a file of weights for each training
CHECK = "check"  # <run>/<training>.npz: stored predictions, and their images
IMAGES = "images"
UNSEEN = "unseen.npz"  # what stands for an image that cannot be read
WHEELS = "wheels"
CHANGED_LATER = {MANIFEST, DATASET, KERNEL}  # `push` writes the account's name into the last two


def write_manifest(
    folder: Path, runs: dict[str, dict[str, Any]], competition: str | None, overrides: Sequence[str] = ()
) -> None:
    """List the runs, the values that were given by hand, and the sha256 sum of every file."""
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(_files(folder))}
    values = {"competition": competition, "overrides": list(overrides), "runs": runs, "files": sums}
    (folder / MANIFEST).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return `competition` (its name on Kaggle, or None), `runs` by name (`classes`, `trainings`) and `files`.

    Raises CompetitionError if a file is missing or was changed.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sums: dict[str, str] = values["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompetitionError(f"{path}: cannot be read ({error}); is this the folder of a bundle?") from None
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise CompetitionError(f"{folder / name}: is missing, though {MANIFEST} names it; upload the bundle again")
        if _sha256(folder / name) != expected:
            raise CompetitionError(f"{folder / name}: is not the file that {MANIFEST} describes; upload it again")
    return values


def overrides_of(folder: Path) -> list[str] | None:
    """Return the values that were given by hand when a bundle was made; None where there is no bundle."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["overrides"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in CHANGED_LATER]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
