"""`competition train CONFIG... [key=value ...]`: train one fold and predict its validation images."""

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from competition.comparison.update_ledger import begin, record
from competition.config.settings import Config
from competition.data.extra_sets import learnt_files, refuse_older_pseudo, taught_files
from competition.data.folds import read_folds
from competition.pipeline.find_batch_size import with_batch_size
from competition.prediction.predict import network_of, predict_images
from competition.prediction.teacher import teach
from competition.runs.folder import BEGUN_BY, OOF, has_begun, refuse_start
from competition.scoring.out_of_fold import describe_scores, score_predictions
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom, changed_sources
from competition.support.locks import holding
from competition.tasks.contract import Table, Task
from competition.tasks.host_metric import load_score
from competition.tasks.user_metrics import load_metric
from competition.training.averaging import choose_weights
from competition.training.checkpoint import LATEST, export_weights, exported_path, load_checkpoint, weights_to_use
from competition.training.devices import refuse_gpus_without_kernels
from competition.training.fit import export, fit
from competition.training.fold_data import FoldData
from competition.training.lost_process import explaining_lost_process


def train(config: Config, *, resume: bool = False, bases: Sequence[str] = ()) -> Path:
    """Train the fold `config.fold`; return its folder with checkpoints, metrics.csv and oof.npz.

    The predictions oof.npz come last: a fold that has them is done. In the ledger the run is compared with the first of
    the runs `bases` that is there.

    Raises CompetitionError for a user's mistake, StoppedError where it was asked to stop and can go on.
    """
    refuse_gpus_without_kernels(config)
    config = with_batch_size(config)
    folder = config.fold_folder
    with holding(folder, "training"):
        refuse_start(config, resume=resume)
        if config.host_metric is not None:
            load_score(config.host_metric.file)  # a wrong path should not be found after the training
        for metric in config.metric_files:
            load_metric(metric)
        note_tables(config)
        table = Task(config.task).table.read_table(config)
        data = FoldData(config, table, read_folds(config, table))
        teach(config, table, data)
        with explaining_lost_process("training"):
            fit(config, table, data, begun=lambda device: begin(config, bases, device))
            if len(data.val_set):
                choose_weights(config, table, data)
                _predict_out_of_fold(config, table, data)
            else:
                export(config, folder / LATEST)
        rank_zero_only(record)(config.run_folder)
    return folder


def _predict_out_of_fold(config: Config, table: Table, data: FoldData) -> None:
    """Predict the validation images with the weights that will be used, in a Trainer of its own.

    A Trainer that has fitted would predict with the weights it ended on, and without the exponential average.
    """
    path = config.fold_folder / OOF
    weights = weights_to_use(config.fold_folder, config.checkpoint)
    checkpoint = load_checkpoint(weights)
    network, classes = network_of(checkpoint, weights)
    # Before the predictions: a fold that has those counts as done.
    rank_zero_only(export_weights)(weights, checkpoint)
    del checkpoint  # the optimizer's state, too, is in it
    predict_images(config, [network], data.val_set, path, classes)
    _tell_score(config, table, path, weights)


def note_tables(config: Config) -> None:
    """Note by which tables a training begins, train.csv, folds.csv and others, as crops of another run; raise
    CompetitionError where it would go on by others: it would have learnt what it is scored on. None begins by
    pseudo-labels, or another run's word, that are old or others than the run's other trainings learnt by."""
    folder, tables = config.fold_folder, learnt_files(config)
    begun = folder / BEGUN_BY
    if not has_begun(folder):
        refuse_older_pseudo(config.data)
        _refuse_other_teacher(config)
        rank_zero_only(begun.touch)()
        rank_zero_only(MadeFrom.now(begun, tables).note)()
    elif begun.is_file() and (changed := changed_sources(begun, tables, by_contents=True)):
        raise CompetitionError(
            f"{changed[0]}: is another than when {folder} was begun, which would learn by both; put that one back, or "
            f"delete {folder} to start anew"
        )


def _refuse_other_teacher(config: Config) -> None:
    """Raise CompetitionError where another training of the run learnt by another teacher: they predict together, and
    are scored as one."""
    for begun in sorted(config.run_folder.glob(f"fold*/{BEGUN_BY}")):
        if has_begun(begun.parent) and (changed := changed_sources(begun, taught_files(config), by_contents=True)):
            raise CompetitionError(
                f"{changed[0]}: is another than when {begun.parent} was begun, which learnt by it (loss.distil); put "
                "that one back, or give this run another name (name=...)"
            )


@rank_zero_only
def _tell_score(config: Config, table: Table, path: Path, weights: Path) -> None:
    scores = describe_scores(score_predictions(config, table, [path]))
    print(f"fold {config.fold}: {scores} out of fold, with {exported_path(weights)}", flush=True)
