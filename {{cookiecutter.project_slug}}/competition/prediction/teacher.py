"""What another run says of the images of a training (`loss.distil`): a row of numbers each, or a map of its pixels."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from competition.config.settings import Config
from competition.data.dataset import Batch
from competition.data.extra_sets import further_prefixes
from competition.prediction.averages import average_of
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.support.errors import CompetitionError
from competition.tasks.contract import Table, Target
from competition.training.fold_data import FoldData


class Said:
    """What stored predictions say of images, read when it is asked for; of several files it is the average."""

    def __init__(self, config: Config, table: Table) -> None:
        self._config, self._table = config, table
        self.places: dict[str, list[tuple[Predictions, int]]] = {}

    def add(self, files: Sequence[Path], image_ids: Sequence[str]) -> None:
        """Look for images in files; raise CompetitionError where none says anything of one."""
        found: dict[str, list[tuple[Predictions, int]]] = {image_id: [] for image_id in image_ids}
        for path in files:
            stored = Predictions(path)
            if stored.classes != tuple(self._table.classes):
                raise CompetitionError(
                    f"loss.distil.run: {path}: is of the classes {', '.join(stored.classes)}; expected "
                    f"{', '.join(self._table.classes)}"
                )
            for image_id in found.keys() & stored.places.keys():
                found[image_id].append((stored, stored.places[image_id]))
        if absent := [image_id for image_id, places in found.items() if not places]:
            more = f" and {len(absent) - 1} more" if absent[1:] else ""
            where = " and ".join(map(str, files)) or "the run's folds"
            raise CompetitionError(
                f"loss.distil.run: {where} say nothing of the image {absent[0]}{more}; train and predict all folds of "
                "that run, with `competition run`"
            )
        self.places |= found

    def __getitem__(self, image_id: str) -> np.ndarray:
        """Return what is said of an image: (n,), or a map (classes, h, w)."""
        each = [stored[place] for stored, place in self.places[image_id]]
        return next(iter(average_of(each, self._config).values()))


class RowTeacher:
    """Adds to a batch what was said of its images, before they are mixed: `teacher` (B, n) float32; NaN of one of which
    nothing was."""

    def __init__(self, said: Said) -> None:
        self._places = {image_id: place for place, image_id in enumerate(said.places)}
        rows = np.stack([said[image_id] for image_id in said.places]).astype(np.float32)
        self._said = torch.from_numpy(np.concatenate([rows, np.full_like(rows[:1], np.nan)]))

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with it, on the same device."""
        places = [self._places.get(image_id, -1) for image_id in batch["image_id"]]
        return batch | {"teacher": self._said[places].to(batch["image"].device)}


class MapTeacher:
    """Adds to an image's target what was said of its pixels, before it is augmented: `teacher` (height, width, classes)
    float32; nothing where nothing was."""

    def __init__(self, said: Said) -> None:
        self._said = said

    def __call__(self, image_id: str, height: int, width: int) -> Target:
        """Return it, at the size of the image as it was read."""
        if image_id not in self._said.places:
            return {}
        maps = self._said[image_id].astype(np.float32)
        return {"teacher": np.stack([cv2.resize(one, (width, height)) for one in maps], axis=-1)}


def teach(config: Config, table: Table, data: FoldData) -> None:
    """Let the training images have what the run of `loss.distil` says of them, if there is one.

    An image of train.csv has the answer of networks that have not seen it, a pseudo-label that of the fold's own
    networks, where `pseudo` has asked them, else of all; of several seeds it is the average. Those of `data.extra` it
    was not asked about. Raises CompetitionError where the run says nothing of another one.
    """
    distil = config.loss.distil
    if distil is None:
        return
    if distil.run == config.name:
        raise CompetitionError(f"loss.distil.run: found {distil.run}, this run itself; expected another one")
    run, said = Run.open(distil.run), Said(config, table)
    own = set(table.image_ids.tolist())
    wanted = [str(image_id) for image_id in data.train_set.image_ids]
    said.add(run.out_of_fold_files(), [one for one in wanted if one in own])
    if pseudo := [one for one in wanted if one not in own and not one.startswith(further_prefixes(config))]:
        of_fold = run.folder / f"fold{config.fold}" / TEST  # as `pseudo` left it
        if not of_fold.is_file() and config.fold != "all":
            all_networks = f"all networks of {distil.run}, which have trained on what fold {config.fold} validates"
            way_on = f"`competition pseudo {distil.run}` asks each fold's own"
            data.notes.append(
                f"warning: loss.distil: pseudo-labels are learnt from {all_networks}, and flatter its score; {way_on}"
            )
        said.add([of_fold if of_fold.is_file() else run.folder / TEST], pseudo)
    if said[next(iter(said.places))].ndim == 1:
        data.teacher = RowTeacher(said)
    else:
        data.train_set.teacher = MapTeacher(said)
