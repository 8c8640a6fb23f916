"""`competition predict RUN`: the average of all folds' networks for every test image, streamed into test.npz.

Out-of-fold images follow: where `tta` or the precision is another than an oof.npz was predicted in, it is made again,
so that tuning sees what will be submitted.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn

from competition.config.settings import Config
from competition.config.views import View, views_of
from competition.data.dataset import Batch, ImageDataset
from competition.data.loaders import evaluation_loader
from competition.data.series_dataset import open_dataset
from competition.data.window_dataset import WholeImages
from competition.files.maps import stage_files
from competition.prediction.ensemble import Ensemble
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.blend_recipe import refuse_blend
from competition.runs.folder import TEST, Run, fold_of, weights_name
from competition.runs.provenance import test_images_fingerprint
from competition.support.atomic_files import OF_PREDICTION
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom, is_up_to_date
from competition.support.locks import holding
from competition.tasks.contract import Prediction, Task
from competition.training.checkpoint import explaining_other_network, load_checkpoint, network_state, weights_to_use
from competition.training.devices import refuse_gpus_without_kernels
from competition.training.lost_process import explaining_lost_process, watch_processes
from competition.training.module import CompetitionModule
from competition.training.stopping import EndAtSigterm
from competition.training.trainer import build_trainer


class PredictingModule(pl.LightningModule):
    """What a Trainer takes of an Ensemble; only predicts."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def predict_step(self, batch: Batch, batch_index: int) -> list[Prediction]:
        """Return one averaged prediction an image."""
        return self.ensemble(batch)


class WritePredictions(pl.Callback):
    """Hands every batch's predictions to a writer at once, so that they do not pile up in memory."""

    def __init__(self, writer: PredictionWriter, task: Task) -> None:
        self.writer = writer
        self.images = WholeImages(task)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch."""
        for image_id, height, width, prediction in self.images.add(batch, outputs):
            self.writer.add(image_id, height, width, prediction)


def load_network(path: Path) -> tuple[nn.Module, list[str]]:
    """Return the network of a checkpoint, in evaluation mode, and its classes. Nothing is fetched from the hub."""
    return network_of(load_checkpoint(path), path)


def network_of(checkpoint: Mapping[str, Any], path: Path) -> tuple[nn.Module, list[str]]:
    """Return the network of a checkpoint that was read from `path`, in evaluation mode, and its classes."""
    parameters = checkpoint["hyper_parameters"]
    values = parameters["config"]
    values = values | {"model": values["model"] | {"pretrained": False, "lora": None}}
    module = CompetitionModule(values, parameters["classes"])
    with explaining_other_network(path):
        module.load_state_dict(network_state(checkpoint))
    return module.network.eval(), parameters["classes"]


def predict_images(
    config: Config,
    networks: Sequence[nn.Module],
    dataset: ImageDataset,
    path: Path,
    classes: Sequence[str],
    views: Sequence[View] | None = None,
) -> None:
    """Predict every image of a dataset and write the file of predictions; under DDP each rank predicts its share.

    Images are seen plainly and in the views of `tta`, unless others are given.
    """
    views = views_of(config.tta) if views is None else views
    how = ([view.name for view in views if view != View()], config.prediction_precision)
    with PredictionWriter(path.parent) as writer:
        trainer = build_trainer(config, [WritePredictions(writer, Task(config.task)), EndAtSigterm()], training=False)
        watch_processes(trainer, "prediction")
        loader = evaluation_loader(dataset, trainer.global_rank, trainer.world_size)
        module = PredictingModule(Ensemble(config, networks, views))
        trainer.predict(module, loader, return_predictions=False)
        if trainer.world_size == 1:
            writer.finish(path, classes, *how)
            return
        writer.finish(_part(path, trainer.global_rank), classes, *how)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            _join(path, trainer.world_size, dataset)
        trainer.strategy.barrier()


@contextmanager
def predicting(run: Run) -> Generator[None]:
    """Hold a run's folder against a second prediction; a process of several that is lost is told in one line."""
    refuse_gpus_without_kernels(run.config)
    # Other verbs may write files of their own there meanwhile.
    with holding(run.folder, "prediction", OF_PREDICTION), explaining_lost_process("prediction"):
        yield


def predict_out_of_fold(run: Run) -> list[Path]:
    """Predict the validation images of every fold again where oof.npz is of other views than `tta`, or of another
    precision; return these."""
    config = run.config
    stale = [path for path in run.out_of_fold_files() if not Predictions(path).is_as_asked(config)]
    table = Task(config.task).table.read_table(config) if stale else None
    for path in stale:
        network, classes = load_network(weights_to_use(path.parent, config.checkpoint))
        dataset = open_dataset(config, np.array(Predictions(path).image_ids, dtype=object), table=table)
        with holding(path.parent, "training"):
            predict_images(config, [network], dataset, path, classes)
    return stale


def predict_test(run: Run) -> Path:
    """Predict the test images with every fold of a run; return the path of test.npz."""
    refuse_blend(run.folder)
    config, path = run.config, run.folder / TEST
    made_from = MadeFrom.now(path, run.test_sources(), test_images_fingerprint(config))
    loaded = [load_network(weights_to_use(folder, config.checkpoint)) for folder in run.finished()]
    classes = loaded[0][1]
    if any(other != classes for _, other in loaded):
        raise CompetitionError(f"{run.folder}: its folds were trained on different classes; train them again")
    task = Task(config.task)
    ids = task.submission.read_test_ids(config, classes)
    dataset = open_dataset(config, ids)
    predict_images(config, [network for network, _ in loaded], dataset, path, classes)
    rank_zero_only(made_from.note)()
    return path


def predict_test_by_fold(run: Run) -> dict[int, Path]:
    """Predict the test images by the networks of each fold alone; return by fold its test.npz.

    Folds whose weights are not here, as those of a blend, are left out; files that are up to date stay.
    """
    config, files = run.config, dict[int, Path]()
    images = test_images_fingerprint(config)
    folds: dict[str, list[Path]] = {}
    for folder in run.finished():
        if (folder / weights_name(folder, config.checkpoint)).is_file():
            folds.setdefault(fold_of(folder.name).removeprefix("fold"), []).append(folder)
    for fold, folders in folds.items():
        if not fold.isdigit():
            continue
        weights = [weights_to_use(folder, config.checkpoint) for folder in folders]
        path, sources = folders[0] / TEST, [config.sample_submission, *stage_files(config.data), *weights]
        files[int(fold)] = path
        if is_up_to_date(path, sources, images) and Predictions(path).is_as_asked(config):
            continue
        made_from = MadeFrom.now(path, sources, images)
        loaded = [load_network(file) for file in weights]
        ids = Task(config.task).submission.read_test_ids(config, loaded[0][1])
        networks = [network for network, _ in loaded]
        predict_images(config, networks, open_dataset(config, ids), path, loaded[0][1])
        rank_zero_only(made_from.note)()
    return files


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f".{path.stem}.rank{rank}.npz")


def _join(path: Path, world_size: int, dataset: ImageDataset) -> None:
    """Join the ranks' files in the order of the dataset: image i was read by rank i modulo the world size."""
    parts = [Predictions(_part(path, rank)) for rank in range(world_size)]
    with PredictionWriter(path.parent) as writer:
        for index, image_id in enumerate(dataset.image_ids):
            part, row = parts[index % world_size], index // world_size
            assert part.image_ids[row] == image_id
            writer.add(image_id, *part.sizes[row], part[row])
        writer.finish(path, parts[0].classes, parts[0].views, parts[0].precision)
    for rank in range(world_size):
        _part(path, rank).unlink()
