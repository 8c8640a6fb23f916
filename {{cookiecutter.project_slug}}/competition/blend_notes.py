"""What to know of a blend before it is handed in: its weights, and its score out of fold. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from competition.blend_recipe import BLEND, BY_FOLD, FIT, describe_stale_blend, read_recipe
from competition.runs import Run
from competition.score import describe_scores, score_predictions
from competition.task import Task
from competition.tune import GIVEN, OWN, honest_scores, is_tuned


def blend_notes(run: Run) -> list[str]:
    """Say what a blend is made of and how it does out of fold, and where that flatters; nothing of another run."""
    about = read_recipe(run.folder)
    if not about:
        return []
    lines = [f"weights:  {_shares(about, about['weights'])}", *_describe_fit(about)]
    by_fold = about.get(BY_FOLD, {})
    if files := run.out_of_fold_files():
        how, scores = _unflattered_scores(run, files)
        found = "; each fold by weights found on the others" if len(by_fold) > 1 else ""
        lines.append(f"out of fold:  {describe_scores(scores)}  ({how}{found})")
    if len(by_fold) == 1:
        flattered = f"the weights in {run.folder / BLEND} were found on the images they are scored on"
        lines.append(f"warning: {flattered}, which flatters")
    return [*lines, *describe_stale_blend(run.folder)]


def _describe_fit(about: Mapping[str, Any]) -> list[str]:
    """Say whether weights that were found on several folds paid."""
    if FIT in about:
        fit, kept = about[FIT], "those found" if about[FIT]["is_kept"] else "equal weights"
        found = f"{_shares(about, fit['weights'])}: {describe_scores({fit['metric']: fit['score']})}"
        return [f"weights found:  {found}; equal weights: {fit['score_of_equal']:.4f}; {kept} kept"]
    if len(about.get(BY_FOLD, {})) > 1:
        again = f"`competition submit {' '.join(about['sources'])} --name NAME`"
        return [f"warning: whether equal weights do better than those found was not looked at; compare with {again}"]
    return []


def _shares(about: Mapping[str, Any], weights: Sequence[float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in zip(about["sources"], weights, strict=True))


def _unflattered_scores(run: Run, files: Sequence[Path]) -> tuple[str, dict[str, float]]:
    """Return how a blend is scored, and its scores: not by thresholds that were found on the same images, be it by a
    run that it is made of, where there are other folds. Stored scores are not those of thresholds given by hand."""
    if run.is_decoded_by_hand():
        tuned = " beside some found on the same images: flatters" * (run.config.decode != run.untuned.decode)
        how, config = f"{GIVEN}{tuned}", run.config
    elif run.config.decode != run.untuned.decode and is_tuned(run):
        return honest_scores(run)
    else:
        found = ", not by those handed in, which were found on the same images"
        how, config = OWN + found * (run.config.decode != run.untuned.decode), run.untuned
    return how, score_predictions(config, Task(config.task).table.read_table(config), files)
