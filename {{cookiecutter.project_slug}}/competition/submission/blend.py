"""Several runs as one: `competition submit RUN RUN ...` averages their predictions into a run of its own. No torch.

outputs/<name>/ then holds test.npz, an oof.npz a fold, the first run's config and blend.yaml, which names the sources:
`competition tune NAME` and `competition submit NAME` work on it as on any run.
"""

import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from competition.config.loading import dump_config, dump_yaml
from competition.config.settings import Config, RunName
from competition.prediction.averages import Ranks, Seeds, average_predictions
from competition.prediction.stored import Predictions
from competition.runs.blend_recipe import (
    BLEND,
    BY_FOLD,
    FILES,
    FIT,
    FOLDERS,
    STACK,
    Mean,
    beside,
    describe_stale_blend,
    fingerprints,
    read_recipe,
    unless_equal,
)
from competition.runs.folder import CONFIG, CV, OOF, POSTPROCESS, TEST, Run
from competition.runs.thresholds import is_decoded_by_hand
from competition.scoring.out_of_fold import describe_scores, folds_of_files, score_predictions
from competition.scoring.tune import GIVEN, OWN, honest_scores, is_tuned
from competition.submission.blend_weights import Weights, fit_weights, given_weights, weights_that_pay
from competition.submission.stack_table import describe_stack
from competition.support.atomic_files import marked, replacing
from competition.support.errors import CompetitionError
from competition.support.freshness import fingerprint
from competition.support.paths import here
from competition.tasks.contract import Task


def make_blend(
    runs: Sequence[Run],
    name: str,
    overrides: list[str],
    *,
    weights: Sequence[float] | Literal["fit"] | None,
    mean: Mean,
) -> Run:
    """Average the stored predictions of runs, on test images and out-of-fold, into the run outputs/<name>.

    `weights` are numbers, one a run, or found on out-of-fold images and kept where that pays. `mean` "rank" averages
    the ranks of class probabilities. `overrides` hold for the run that is returned, and for the score that tells
    whether weights pay, and are not kept. Raises CompetitionError where runs do not fit together.
    """
    check_name(name)
    first = Run.open(str(runs[0].folder))
    config, folder = first.config, here().outputs / name
    if any(run.folder.resolve() == folder.resolve() for run in runs):
        raise CompetitionError(f"--name {name}: is one of the runs that are blended; expected a name of its own")
    tests = [open_test(run) for run in runs]
    refuse_unlike(tests, same_order=True)
    folds = common_folds(runs)
    if mean == "rank":
        tests = [Ranks(source) for source in tests]
        folds = {fold: [Ranks(source) for source in sources] for fold, sources in folds.items()}
    found = _find_weights(runs[0], folds, mean) if weights == "fit" else given_weights(weights, len(runs))
    about = {"sources": [run.folder.name for run in runs], "weights": found.shares, "mean": mean}
    about[FOLDERS] = [beside(run.folder, folder) for run in runs]
    about[FILES] = {beside(run.folder, folder): fingerprints(run.folder) for run in runs}
    if found.by_fold:
        about[BY_FOLD] = found.by_fold
    if found.fit:
        about[FIT] = asdict(found.fit)
    start_blend(folder, about)
    _take_thresholds(first, folder, about)
    for fold, sources in folds.items():
        write_config(first, name, fold, folder)
        _write_average(sources, folder / fold / OOF, config, found.of_fold(fold))
    if not folds:  # all of them were trained on everything
        write_config(first, name, "foldall", folder)
    _write_average(tests, folder / TEST, config, found.shares)
    return Run.open(str(folder), overrides)


def refuse_untuned_ranks(run: Run) -> None:
    """Raise CompetitionError if a blend of ranks would be cut at thresholds that were meant for probabilities."""
    is_tuned = (run.folder / POSTPROCESS).is_file()
    if not is_tuned and _cuts_ranks(run.config, read_recipe(run.folder).get("mean", "mean")):
        name = run.folder.name
        raise CompetitionError(
            f"{run.folder}: averages ranks, and thresholds of probabilities do not fit those; find its own with "
            f"`competition tune {name}`, then `competition submit {name}`"
        )


def _cuts_ranks(config: Config, mean: Mean) -> bool:
    return mean == "rank" and Task(config.task).decode.hands_in_decisions(config)


def _find_weights(first: Run, folds: Mapping[str, Sequence[Predictions]], mean: Mean) -> Weights:
    """Find weights, scored by the first run's own thresholds; ranks that are still to be tuned have no score."""
    find = fit_weights if _cuts_ranks(first.untuned, mean) else weights_that_pay
    return find(first.untuned, folds)


def common_folds(runs: Sequence[Run]) -> dict[str, list[Predictions]]:
    """Return by fold the out-of-fold predictions of the runs, each averaged over its seeds.

    Raises CompetitionError where a fold of one run has other images than that of another.
    """
    by_run = [
        {files[0].parent.name.partition("_")[0]: files for files in folds_of_files(run.out_of_fold_files())}
        for run in runs
    ]
    common = [name for name in by_run[0] if all(name in files for files in by_run)]
    if not common and all(by_run):
        each = "; ".join(f"{run.folder.name} has {', '.join(files)}" for run, files in zip(runs, by_run, strict=True))
        raise CompetitionError(f"no fold of theirs is in all runs, by which a blend is scored ({each}); train one more")
    folds: dict[str, list[Predictions]] = {
        name: [Seeds(files[name], run.config) for files, run in zip(by_run, runs, strict=True)] for name in common
    }
    for sources in folds.values():
        refuse_unlike(sources, same_order=False)
    return folds


def open_test(run: Run) -> Predictions:
    """Open the predictions of test images; raise CompetitionError where there are none."""
    if not (run.folder / TEST).is_file():
        raise CompetitionError(
            f"{run.folder / TEST}: no such file; make it with `competition predict {run.folder.name}`"
        )
    return Predictions(run.folder / TEST)


def refuse_unlike(sources: Sequence[Predictions], *, same_order: bool) -> None:
    """Raise CompetitionError where files are of other classes or images, or saw these in other sizes, by whose pixels
    places are told."""
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
        _refuse_other_sizes(first, other)


def _refuse_other_sizes(first: Predictions, other: Predictions) -> None:
    if not len(first) or "boxes" not in first[0]:
        return
    for image_id, size in zip(first.image_ids, first.sizes, strict=True):
        if (seen := other.sizes[other.places[image_id]]) != size:
            raise CompetitionError(
                f"{other.path}: saw image {image_id!r} in {seen[0]} x {seen[1]} pixels, {first.path} in {size[0]} x "
                f"{size[1]}; runs that are blended need images of the same sizes, by whose pixels they tell places"
            )


def check_name(name: str) -> None:
    """Raise CompetitionError where a run cannot be called so."""
    try:
        TypeAdapter(RunName).validate_python(name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise CompetitionError(f"--name {name}: {reason}") from None


def start_blend(folder: Path, about: dict[str, Any]) -> None:
    """Delete what was made of other predictions, or by other weights; an earlier submission.csv is kept to compare."""
    path, before = folder / BLEND, read_recipe(folder)
    if dump_yaml(before) == dump_yaml(about):  # as text: a score that is no number equals nothing
        return
    if not before and folder.exists():
        raise CompetitionError(f"{folder}: is a run that was trained; give the blend another name with --name")
    for stale in folder.glob("fold*"):
        shutil.rmtree(stale)
    for name in (TEST, CV, POSTPROCESS):
        (folder / name).unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(dump_yaml(about), encoding="utf-8")


def _take_thresholds(first: Run, folder: Path, about: dict[str, Any]) -> None:
    """Take the thresholds of the first run, unless the blend was tuned itself, or averages ranks."""
    if (folder / CV).is_file():
        return
    (folder / POSTPROCESS).unlink(missing_ok=True)
    if about["mean"] != "rank" and (first.folder / POSTPROCESS).is_file():
        shutil.copy(first.folder / POSTPROCESS, folder / POSTPROCESS)


def _write_average(sources: Sequence[Predictions], path: Path, config: Config, weights: list[float]) -> None:
    """Write an average; one that is what stood there is as old as that, so that what was tuned on it still holds."""
    before = (fingerprint(path), path.stat()) if zipfile.is_zipfile(path) else None
    average_predictions(sources, path, config, unless_equal(weights))
    if before is not None and fingerprint(path) == before[0]:
        os.utime(path, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))


def write_config(first: Run, name: str, fold: str, folder: Path) -> None:
    """Write the first run's config, with the thresholds it was trained with: those of tuning are postprocess.yaml's."""
    number = fold.removeprefix("fold")
    update = {"name": name, "fold": int(number) if number.isdigit() else number, "folds": None, "seeds": None}
    path = folder / fold / CONFIG
    dumped = dump_config(first.untuned.model_copy(update=update))
    text = marked(dumped)
    if path.is_file() and path.read_text(encoding="utf-8") in (text, dumped):  # as earlier versions wrote it
        return  # what was tuned by it still holds
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def blend_notes(run: Run) -> list[str]:
    """Say what a blend is made of and how it does out of fold, and where that flatters; nothing of another run."""
    about = read_recipe(run.folder)
    if not about:
        return []
    if about["mean"] == STACK:
        return [*describe_stack(run.folder), *describe_stale_blend(run.folder)]
    lines = [f"weights:  {_shares(about, about['weights'])}", *_describe_fit(about)]
    by_fold = about.get(BY_FOLD, {})
    if files := run.out_of_fold_files():
        how, scores = _unflattered_scores(run, files)
        found = "; each fold by weights found on the others" if len(by_fold) > 1 else ""
        lines.append(f"out of fold:  {describe_scores(scores)}  ({how}{found})")
        lines += _handed_in(run, files) if _is_cut_by_others(run) else []
    if len(by_fold) == 1:
        flattered = f"the weights in {run.folder / BLEND} were found on the images they are scored on"
        lines.append(f"warning: {flattered}, which flatters")
    return [*lines, *describe_stale_blend(run.folder)]


def _describe_fit(about: Mapping[str, Any]) -> list[str]:
    """Say whether weights that were found on several folds paid."""
    if FIT in about:
        fit = about[FIT]
        first = about["sources"][fit["weights"].index(max(fit["weights"]))]
        kept = "those found" if fit["is_kept"] else f"{first} alone" if 1 in about["weights"] else "equal weights"
        found = f"{_shares(about, fit['weights'])}: {describe_scores({fit['metric']: fit['score']})}"
        alone = f"; {first} alone: {fit['score_alone']:.4f}" if "score_alone" in fit else ""  # blends made before
        return [f"weights found:  {found}; equal weights: {fit['score_of_equal']:.4f}{alone}; {kept} kept"]
    if len(about.get(BY_FOLD, {})) > 1:
        again = f"`competition submit {' '.join(about['sources'])} --name NAME`"
        return [f"warning: whether equal weights do better than those found was not looked at; compare with {again}"]
    return []


def _shares(about: Mapping[str, Any], weights: Sequence[float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in zip(about["sources"], weights, strict=True))


def _is_cut_by_others(run: Run) -> bool:
    """Return whether a blend is handed in by the thresholds that a run found which it is made of."""
    return run.config.decode != run.untuned.decode and not is_decoded_by_hand(run) and not is_tuned(run)


def _handed_in(run: Run, files: Sequence[Path]) -> list[str]:
    """Say how a blend does by another run's thresholds, which decide what is handed in: they may not fit it at all."""
    scores = score_predictions(run.config, Task(run.config.task).table.read_table(run.config), files)
    return [f"by the thresholds handed in:  {describe_scores(scores)}  (found on the same images: flatters)"]


def _unflattered_scores(run: Run, files: Sequence[Path]) -> tuple[str, dict[str, float]]:
    """Return how a blend is scored, and its scores: not by thresholds that were found on the same images, be it by a
    run that it is made of, where there are other folds. Stored scores are not those of thresholds given by hand."""
    if is_decoded_by_hand(run):
        tuned = " beside some found on the same images: flatters" * (run.config.decode != run.untuned.decode)
        how, config = f"{GIVEN}{tuned}", run.config
    elif run.config.decode != run.untuned.decode and is_tuned(run):
        return honest_scores(run)
    else:
        found = ", not by those handed in, which were found on the same images"
        how, config = OWN + found * _is_cut_by_others(run), run.untuned
    return how, score_predictions(config, Task(config.task).table.read_table(config), files)
