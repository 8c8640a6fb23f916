"""`competition replay RUN`: does a run's config still build, and its networks predict what they did?

The first images of every oof.npz are predicted again, in the batches of then: on the machine of then, with the same
versions, the numbers are the same to the last bit. Other hardware and versions round differently.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from torch import nn

from competition.config.views import views_of
from competition.data.series_dataset import open_dataset
from competition.prediction.ensemble import Ensemble, inference_precision, predict_stream
from competition.prediction.predict import load_network
from competition.prediction.stored import TOLERANCE, Predictions
from competition.runs.blend_recipe import BLEND, blend_sources
from competition.runs.folder import OOF, Run
from competition.runs.ledger import Line, ledger_path, read_ledger
from competition.runs.provenance import package_versions, provenance
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Table, Task
from competition.training.checkpoint import other_network, weights_to_use
from competition.training.devices import inference_device

CLOSE = 0.002  # on a CPU then and now, with the same versions, in full precision: only its make may differ
SAMPLE, MOST = 16, 64  # images of a training: whole batches of 16 images or more, but no more than 64 images
NAMES = {"git_commit": "git commit", "data": "data", "folds_csv": "folds.csv"}


def replay(name: str) -> list[str]:
    """Predict a sample of a run's out-of-fold images again and say how that went and what has changed since.

    Raises CompetitionError, which ends with what has changed, if the run no longer builds or predicts something else.
    """
    run = Run.open(name)
    if blend_sources(run.folder):
        raise CompetitionError(f"{run.folder}: is a blend and has no networks; replay the runs that {BLEND} names")
    line = read_ledger(ledger_path()).get(run.folder.name)
    changed = what_changed(line, run)
    since = f"changed since: {'; '.join(changed)}" if changed else "nothing known has changed since"
    if line is None:
        since = f"what has changed since is not known: {ledger_path()} has no line for it"
    table = Task(run.config.task).table.read_table(run.config)
    lines = []
    for folder in run.finished():
        try:
            lines.append(_replay_training(run, folder, table, _tolerance(run, line)))
        except CompetitionError as error:
            raise CompetitionError(f"{error} ({since})") from None
    return [*lines, since]


def what_changed(line: Line | None, run: Run) -> list[str]:
    """List what is not as it was when the run was trained: code, data, folds, versions of packages."""
    if line is None:
        return []
    now = provenance(run.untuned)
    changed = [
        f"{words} {getattr(line, column)} -> {now[column] or 'none'}"
        for column, words in NAMES.items()
        if getattr(line, column) and now[column] != getattr(line, column)
    ]
    if "yes" in (line.git_dirty, now["git_dirty"]):
        changed.append("code that is not committed" + (" (then)" if line.git_dirty == "yes" else " (now)"))
    before, after = (dict(_name_and_version(each)) for each in (line.versions, now["versions"]))
    changed += [f"{name} {was} -> {after.get(name, 'none')}" for name, was in before.items() if after.get(name) != was]
    return changed


def _tolerance(run: Run, line: Line | None) -> float:
    """Return how far predictions may be apart. GPUs choose their algorithms as they see fit."""
    precisions = {inference_precision(run.config), str(run.config.trainer.get("precision", "32"))}
    is_full = precisions <= {"32", "32-true"}
    were_on_cpu = line is not None and all("CPU" in device for device in line.device.split("; "))
    is_on_cpu = were_on_cpu and inference_device(run.config).type == "cpu"
    is_same = line is not None and line.versions == package_versions()
    return CLOSE if is_full and is_on_cpu and is_same else TOLERANCE


def _replay_training(run: Run, folder: Path, table: Table, tolerance: float) -> str:
    path = weights_to_use(folder, run.config.checkpoint)
    network, classes = _load(path)
    if list(table.classes) != list(classes):
        raise CompetitionError(
            f"{path}: was trained on the classes {', '.join(classes)}; {run.config.train_csv} has "
            f"{', '.join(table.classes)}"
        )
    if not (folder / OOF).is_file():
        return f"{folder.name}: builds and loads; trained on all images, it has nothing to compare with"
    gaps, are_same = [], True
    for image_id, before, now in _predict_again(run, network, table, folder / OOF):
        gaps.append(Task(run.config.task).decode.difference(now, before))
        are_same &= all(np.array_equal(now[key], values) for key, values in before.items())
        if not gaps[-1] <= tolerance:
            raise CompetitionError(
                f"{folder / OOF}: {image_id}: predicted again it differs by {gaps[-1]:.4f} from what is stored, and at "
                f"most {tolerance} is allowed: other weights, another image, other code or another version of a library"
            )
    same = "the same to the last bit" if are_same else f"at most {max(gaps):.2g} apart, {tolerance} is allowed"
    return f"{folder.name}: {len(gaps)} images predicted again, {same}"


def _load(path: Path) -> tuple[nn.Module, list[str]]:
    try:
        return load_network(path)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:  # code of the user's own
        raise other_network(path, error) from None


def _predict_again(
    run: Run, network: nn.Module, table: Table, path: Path
) -> Iterator[tuple[str, Prediction, Prediction]]:
    """Yield image id, the stored prediction and the one that is made now, of the first images of a file."""
    stored, size = Predictions(path), run.config.data.batch_size
    number = min(max(SAMPLE // size, 1) * size, MOST, len(stored))
    known = set(table.image_ids)
    for image_id in stored.image_ids[:number]:
        if image_id not in known:
            raise CompetitionError(f"{run.config.train_csv}: has no image {image_id!r} any more, which is in {path}")
    dataset = open_dataset(run.config, np.array(stored.image_ids[:number], dtype=object), table=table)
    ensemble = Ensemble(run.config, [network], views_of(stored.views))
    for index, (image_id, _, _, prediction) in enumerate(islice(predict_stream(ensemble, dataset), number)):
        yield image_id, stored[index], prediction


def _name_and_version(text: str) -> Iterator[tuple[str, str]]:
    for word in text.split("; "):
        name, _, number = word.partition(" ")
        if number:
            yield name, number
