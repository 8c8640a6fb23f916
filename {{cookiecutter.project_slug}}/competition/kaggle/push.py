"""`competition push RUN`: a run's bundle to Kaggle, as a private data set and the notebook that uses it. No torch.

Kaggle's two files of metadata lie in the bundle. An `id`, or a data set in the notebook's `dataset_sources`, without
an owner before it gets the account's name when it is sent: the bundle is made where nobody is signed in.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from competition.kaggle.api import KaggleService
from competition.runs.folder import BUNDLE
from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError
from competition.support.on_kaggle import DATASET, KERNEL, T4
from competition.support.paths import here

SECRET_NAMES = {  # .gitignore has them, too
    "kaggle.json",
    "access_token",
    "access_token.txt",
    "credentials.json",
    ".env",
    ".netrc",
}
LARGEST_SEARCHED = 1 << 22  # bytes; weights and images are larger, or are no text


def push(run: str, message: str | None = None, accelerator: str | None = None) -> list[str]:
    """Send outputs/RUN/bundle/ and start its notebook on an accelerator; return lines that say where both are."""
    bundle = _find_bundle(run)
    dataset, notebook = _read(bundle / DATASET, "id", "title", "licenses"), _read(bundle / KERNEL, "id", "code_file")
    service = KaggleService()
    _refuse_secrets(bundle, service)
    owned_dataset = {**dataset, "id": _owned(dataset["id"], service.user)}
    sources = [_owned(source, service.user) for source in notebook.get("dataset_sources", [])]
    owned_notebook = {
        **notebook,
        "id": _owned(notebook["id"], service.user),
        "dataset_sources": sources,
        "machine_shape": accelerator or notebook.get("machine_shape", T4),
    }
    if owned_dataset["id"] not in sources:
        raise CompetitionError(
            f"{bundle / KERNEL}: dataset_sources: found {sources}; expected {owned_dataset['id']!r} among them, as "
            f"{DATASET} names it"
        )
    _write(bundle / DATASET, dataset, owned_dataset)
    _write(bundle / KERNEL, notebook, owned_notebook)
    address = service.push_dataset(owned_dataset["id"], bundle, message or f"run {Path(run).name}")
    return [f"data set: {address}", f"notebook: {service.push_notebook(owned_notebook['id'], bundle)}"]


def _find_bundle(run: str) -> Path:
    folders = [here().outputs / run, Path(run)]
    for folder in folders:
        if (folder / BUNDLE).is_dir():
            return folder / BUNDLE
    raise CompetitionError(f"{folders[0] / BUNDLE}: no bundle there: a folder with {DATASET} and {KERNEL}")


def _read(path: Path, *needed: str) -> dict[str, Any]:
    """Read a file of metadata, which must have some keys."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CompetitionError(
            f"{path}: cannot be read ({error.strerror}); make the bundle again with `competition bundle`"
        ) from None
    except ValueError as error:
        raise CompetitionError(f"{path}: not a JSON file: {error}") from None
    absent = [key for key in needed if not isinstance(values, dict) or not values.get(key)]
    if absent:
        raise CompetitionError(f"{path}: {absent[0]} is missing; make the bundle again")
    return values


def _owned(name: str, owner: str) -> str:
    return name if "/" in name else f"{owner}/{name}"


def _write(path: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    if before != after:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(after, indent=2) + "\n", encoding="utf-8")


def _refuse_secrets(bundle: Path, service: KaggleService) -> None:
    """Stop before credentials that came into the bundle become part of a data set."""
    refuse_secrets((file for file in bundle.rglob("*") if file.is_file()), service)


def refuse_secrets(files: Iterable[Path], service: KaggleService) -> None:
    """Stop before credentials that are in one of the files leave this machine."""
    for path in sorted(files):
        is_searched = path.stat().st_size <= LARGEST_SEARCHED
        if path.name in SECRET_NAMES or (is_searched and service.holds_credentials(path.read_bytes())):
            raise CompetitionError(f"{path}: holds credentials; delete it and push again")
