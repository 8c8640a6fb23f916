"""Several runs as one: `competition submit RUN RUN ...` averages their predictions into a run of its own. No torch.

outputs/<name>/ then holds test.npz, an oof.npz a fold, the first run's config and blend.yaml, which names the sources:
`competition tune NAME` and `competition submit NAME` work on it as on any run.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from competition.config import dump_config
from competition.errors import CompetitionError
from competition.files import replacing
from competition.out_of_fold import folds_of_files
from competition.predictions import Predictions, PredictionWriter
from competition.runs import CONFIG, OOF, POSTPROCESS, TEST, Run
from competition.settings import Config
from competition.task import Prediction, Task

BLEND = "blend.yaml"
Mean = Literal["mean", "rank"]


def refuse_blend(folder: Path) -> None:
    """Raise CompetitionError if a run is a blend, which has no networks of its own."""
    if (folder / BLEND).is_file():
        sources = yaml.safe_load((folder / BLEND).read_text(encoding="utf-8"))["sources"]
        raise CompetitionError(
            f"{folder}: is a blend of {', '.join(sources)} and has no networks; predict with those, then "
            f"`competition submit {' '.join(sources)} --name {folder.name}`"
        )


def make_blend(runs: Sequence[Run], name: str, *, weights: Sequence[float] | Literal["fit"] | None, mean: Mean) -> Run:
    """Average the stored predictions of runs, on test images and out-of-fold, into the run outputs/<name>.

    `weights` are numbers, one a run, or found on out-of-fold images. `mean` "rank" averages the ranks of class
    probabilities. Raises CompetitionError where runs do not fit together.
    """
    config, folder = runs[0].config, Path("outputs") / name
    if any(run.folder.resolve() == folder.resolve() for run in runs):
        raise CompetitionError(f"--name {name}: is one of the runs that are blended; expected a name of its own")
    tests = [_open_test(run) for run in runs]
    _refuse_unlike(tests, same_order=True)
    folds = _folds(runs)
    shares = fit_weights(runs, folds) if weights == "fit" else _check_weights(weights, len(runs))
    about = {"sources": [run.folder.name for run in runs], "weights": shares, "mean": mean}
    if mean == "rank":
        tests = [Ranks(source) for source in tests]
        folds = {fold: [Ranks(source) for source in sources] for fold, sources in folds.items()}
    used = shares if len(set(shares)) > 1 else None
    _take_thresholds(runs[0], folder, about)
    for fold, sources in folds.items():
        _write_config(runs[0], name, fold, folder)
        average_predictions(sources, folder / fold / OOF, config, used)
    if not folds:  # all of them were trained on everything
        _write_config(runs[0], name, "foldall", folder)
    average_predictions(tests, folder / TEST, config, used)
    return Run.open(str(folder))


def fit_weights(runs: Sequence[Run], folds: dict[str, list[Predictions]]) -> list[float]:
    """Return weights, with sum 1, by non-negative least squares of the out-of-fold truth on the runs' predictions.

    Lawson, Hanson, "Solving Least Squares Problems", 1974. Raises CompetitionError where predictions are no numbers
    that can be added up (boxes), or there are no out-of-fold predictions.
    """
    from scipy.optimize import nnls

    config, task = runs[0].config, Task(runs[0].config.task)
    table = task.table.read_table(config)
    position = {image_id: row for row, image_id in enumerate(table.image_ids)}
    inputs, outputs = [], []
    for sources in folds.values():
        for image_id, (height, width), each in _side_by_side(sources):
            truth = table.target(position[image_id], height, width)
            sample = task.tuning.regression_sample(each, truth, len(inputs))
            if sample is None:
                raise CompetitionError("--weights fit: these predictions cannot be fitted; give a number for each run")
            inputs.append(sample[0])
            outputs.append(sample[1])
    if not inputs:
        raise CompetitionError("--weights fit: the runs have no fold with out-of-fold predictions in common")
    found, _ = nnls(np.concatenate(inputs).astype(np.float64), np.concatenate(outputs).astype(np.float64))
    if found.sum() == 0:
        raise CompetitionError("--weights fit: no run says anything of the truth; give a number for each run")
    return (found / found.sum()).round(4).tolist()


def average_predictions(
    sources: Sequence[Predictions], path: Path, config: Config, weights: Sequence[float] | None = None
) -> None:
    """Write the average of several files of the same images, in the order of the first, image by image."""
    average = Task(config.task).decode.average
    if weights is not None:  # a model without weight must not be asked
        sources = [source for source, weight in zip(sources, weights, strict=True) if weight > 0]
        weights = [weight for weight in weights if weight > 0]
    views = sources[0].views if all(source.views == sources[0].views for source in sources) else []
    with PredictionWriter(path.parent) as writer:
        for image_id, (height, width), each in _side_by_side(sources):
            writer.add(image_id, height, width, average(each, config, weights))
        writer.finish(path, sources[0].classes, views)


class Ranks(Predictions):
    """Stored class probabilities as ranks from 0 to 1 among the images of the file, class by class."""

    def __init__(self, source: Predictions) -> None:
        super().__init__(source.path)
        first = source[0] if len(source) else {}
        if set(first) != {"probabilities"} or first["probabilities"].ndim != 1:
            raise CompetitionError(f"{source.path}: --mean rank is for the probabilities of classes")
        from scipy.stats import rankdata

        values = np.stack([source[index]["probabilities"] for index in range(len(source))])
        self._ranks = (rankdata(values, axis=0) / len(values)).astype(values.dtype)

    def __getitem__(self, index: int) -> Prediction:
        return {"probabilities": self._ranks[index]}


def _side_by_side(sources: Sequence[Predictions]) -> Iterator[tuple[str, tuple[int, int], list[Prediction]]]:
    """Yield image id, size and what each file says of the image, in the order of the first."""
    places = [{image_id: index for index, image_id in enumerate(source.image_ids)} for source in sources]
    for image_id, size in zip(sources[0].image_ids, sources[0].sizes, strict=True):
        yield image_id, size, [source[place[image_id]] for source, place in zip(sources, places, strict=True)]


class _Seeds(Predictions):
    """The average of several files of the same images in the same order."""

    def __init__(self, paths: Sequence[Path], config: Config) -> None:
        super().__init__(paths[0])
        self._config = config
        self._others = [Predictions(path) for path in paths[1:]]

    def __getitem__(self, index: int) -> Prediction:
        each = [super().__getitem__(index), *(other[index] for other in self._others)]
        return each[0] if len(each) == 1 else Task(self._config.task).decode.average(each, self._config)


def _folds(runs: Sequence[Run]) -> dict[str, list[Predictions]]:
    """Return by fold the out-of-fold predictions of the runs, each averaged over its seeds.

    Raises CompetitionError where a fold of one run has other images than that of another.
    """
    by_run = [
        {files[0].parent.name.partition("_")[0]: files for files in folds_of_files(run.out_of_fold_files())}
        for run in runs
    ]
    common = [name for name in by_run[0] if all(name in files for files in by_run)]
    folds: dict[str, list[Predictions]] = {
        name: [_Seeds(files[name], run.config) for files, run in zip(by_run, runs, strict=True)] for name in common
    }
    for sources in folds.values():
        _refuse_unlike(sources, same_order=False)
    return folds


def _open_test(run: Run) -> Predictions:
    if not (run.folder / TEST).is_file():
        raise CompetitionError(
            f"{run.folder / TEST}: no such file; make it with `competition predict {run.folder.name}`"
        )
    return Predictions(run.folder / TEST)


def _refuse_unlike(sources: Sequence[Predictions], *, same_order: bool) -> None:
    first = sources[0]
    for other in sources[1:]:
        if other.classes != first.classes:
            raise CompetitionError(
                f"{other.path}: has classes {', '.join(other.classes)}; {first.path} has {', '.join(first.classes)}; "
                f"runs that are blended need the same classes in the same order"
            )
        same = other.image_ids == first.image_ids
        if not same and (same_order or set(other.image_ids) != set(first.image_ids)):
            raise CompetitionError(
                f"{other.path}: holds other images than {first.path} ({len(other)} and {len(first)}); runs that are "
                f"blended need the same folds.csv and sample_submission.csv"
            )


def _check_weights(weights: Sequence[float] | None, number: int) -> list[float]:
    if weights is None:
        return [1 / number] * number
    if len(weights) != number or not all(np.isfinite(weights)) or min(weights) < 0 or sum(weights) <= 0:
        given = ",".join(f"{weight:g}" for weight in weights)
        raise CompetitionError(f"--weights {given}: expected {number} numbers of 0 or more, one a run, or fit")
    return (np.array(weights) / sum(weights)).tolist()


def _take_thresholds(first: Run, folder: Path, about: dict[str, Any]) -> None:
    """Start with the thresholds of the first run; those that were tuned on this very blend before are kept."""
    path = folder / BLEND
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if before == about:
        return
    if before is None and folder.exists():
        raise CompetitionError(f"{folder}: is a run that was trained; give the blend another name with --name")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if (first.folder / POSTPROCESS).is_file():
        shutil.copy(first.folder / POSTPROCESS, folder / POSTPROCESS)
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")


def _write_config(first: Run, name: str, fold: str, folder: Path) -> None:
    """Write the first run's config, with the thresholds it was trained with: those of tuning are postprocess.yaml's."""
    number = fold.removeprefix("fold")
    update = {"name": name, "fold": int(number) if number.isdigit() else number, "folds": None, "seeds": None}
    path = folder / fold / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(dump_config(first.untuned.model_copy(update=update)), encoding="utf-8")
