"""What another run says of the images of a training (`loss.distil`), by image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from competition.config.settings import Config
from competition.data.dataset import Batch
from competition.data.extra_sets import further_prefixes
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Table, Task


class Teacher:
    """Adds to a batch what was said of its images, before they are mixed: `teacher` (B, n) float32; NaN of one of which
    nothing was."""

    def __init__(self, said: dict[str, np.ndarray], notes: Sequence[str] = ()) -> None:
        self.notes = notes  # what is to be said of it
        self._places = {image_id: place for place, image_id in enumerate(said)}
        rows = np.stack(list(said.values())).astype(np.float32)
        self._said = torch.from_numpy(np.concatenate([rows, np.full_like(rows[:1], np.nan)]))

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with it, on the same device."""
        places = [self._places.get(image_id, -1) for image_id in batch["image_id"]]
        return batch | {"teacher": self._said[places].to(batch["image"].device)}


def read_teacher(config: Config, table: Table, image_ids: Sequence[str] | np.ndarray) -> Teacher | None:
    """Return what the run of `loss.distil` says of the training images; None without one.

    An image of train.csv has the answer of networks that have not seen it, a pseudo-label that of the fold's own
    networks, where `pseudo` has asked them, else of all; of several seeds it is the average. Those of `data.extra` it
    was not asked about. Raises CompetitionError where the run says nothing of another one.
    """
    distil = config.loss.distil
    if distil is None:
        return None
    if distil.run == config.name:
        raise CompetitionError(f"loss.distil.run: found {distil.run}, this run itself; expected another one")
    run, notes = Run.open(distil.run), list[str]()
    own = set(table.image_ids.tolist())
    wanted = [str(image_id) for image_id in image_ids]
    said = _said(run.out_of_fold_files(), [one for one in wanted if one in own], config, table)
    if pseudo := [one for one in wanted if one not in own and not one.startswith(further_prefixes(config))]:
        of_fold = run.folder / f"fold{config.fold}" / TEST  # as `pseudo` left it
        if not of_fold.is_file() and config.fold != "all":
            all_networks = f"all networks of {distil.run}, which have trained on what fold {config.fold} validates"
            way_on = f"`competition pseudo {distil.run}` asks each fold's own"
            notes = [
                f"warning: loss.distil: pseudo-labels are learnt from {all_networks}, and flatter its score; {way_on}"
            ]
        said |= _said([of_fold if of_fold.is_file() else run.folder / TEST], pseudo, config, table)
    return Teacher(said, notes)


def _said(files: Sequence[Path], image_ids: Sequence[str], config: Config, table: Table) -> dict[str, np.ndarray]:
    """Return by image id what stored files say, on average; raise CompetitionError where none says anything."""
    each: dict[str, list[Prediction]] = {image_id: [] for image_id in image_ids}
    for path in files:
        stored = Predictions(path)
        if stored.classes != tuple(table.classes):
            raise CompetitionError(
                f"loss.distil.run: {path}: is of the classes {', '.join(stored.classes)}; expected "
                f"{', '.join(table.classes)}"
            )
        for image_id in each.keys() & stored.places.keys():
            each[image_id].append(stored[stored.places[image_id]])
    if absent := [image_id for image_id, found in each.items() if not found]:
        more = f" and {len(absent) - 1} more" if absent[1:] else ""
        where = " and ".join(map(str, files)) or "the run's folds"
        raise CompetitionError(
            f"loss.distil.run: {where} say nothing of the image {absent[0]}{more}; train and predict all folds of that "
            "run, with `competition run`"
        )
    average = Task(config.task).decode.average
    return {image_id: next(iter(average(found, config).values())) for image_id, found in each.items()}
