"""Labels in doubt: images whose out-of-fold answer contradicts their label, ranked, to look at and to leave out. No
torch.

The network that answers has not seen the label, so where it is surely of another opinion, the label may be wrong: that
is where confident learning begins (Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from competition.pages.gallery import NUM_SHOWN, Outcomes, picture_of
from competition.pages.page import Grid, Section, number
from competition.runs.folder import Run
from competition.support.atomic_files import write_csv
from competition.tasks.contract import Outcome

SUSPECTS = "suspects.csv"
COLUMNS = ("image_id", "weight", "score", "too_much", "too_little", "truth", "answer")
NUM_LISTED = 20
FAR = 3.0  # deviations, of a number's error
NORMAL = 1.4826  # a normal deviation through the median one
TITLE = "Labels in doubt"


def suspects(run: Run, outcomes: Outcomes | None) -> Section:
    """Write suspects.csv and return the section that shows its first rows; both without any where none is known."""
    path = run.folder / SUSPECTS
    if outcomes is None:
        path.unlink(missing_ok=True)
        return Section(TITLE, ["There are no out-of-fold predictions: nobody has answered images unseen."])
    ranked = ranking(outcomes.each)
    write_csv(path, COLUMNS, [_row(outcomes, place) for place in ranked])
    if not len(ranked):
        return Section(TITLE, ["No answer contradicts its label."])
    rows = [_row(outcomes, place) for place in ranked[:NUM_LISTED]]
    named = outcomes.images.task.outcome.score_name(run.config)
    grid = Grid(["image", named, "truth", "answer"], [[row[0], row[2], row[5], row[6]] for row in rows])
    drawn = [picture_of(run.config, outcomes, int(place)) for place in ranked[:NUM_SHOWN]]
    return Section(TITLE, _words(path, len(ranked)), grids=[grid], pictures=[one for one in drawn if one is not None])


def _words(path: Path, found: int) -> Sequence[str]:
    return [
        f"{number(found)} out-of-fold answers contradict their label, here from the most surely wrong on: hard images, "
        "or wrong labels.",
        f"All stand in {path}: cut it where labels begin to be right, and data.weights_csv={path} leaves out of "
        "training what it still names (weight 0; 0.5 counts half).",
    ]


def ranking(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Return the places of images whose answer says too much or too little, the lowest score first; of numbers those
    whose error is far from the usual one."""
    scores = np.array([one.score for one in outcomes])
    contradicts = np.array([max(one.too_much, one.too_little) > 0 for one in outcomes])
    if outcomes and outcomes[0].pair is not None and isinstance(outcomes[0].pair[0], float):
        spread = NORMAL * float(np.median(np.abs(scores - np.median(scores))))
        contradicts &= scores < np.median(scores) - FAR * spread
    places = np.flatnonzero(contradicts)
    return places[np.argsort(scores[places], kind="stable")]


def _row(outcomes: Outcomes, place: int) -> list[str]:
    one, classes = outcomes.each[place], outcomes.images.table.classes
    image_id = outcomes.images.image_ids[int(outcomes.rows[place])]
    pair = ("", "") if one.pair is None else tuple(_in_words(value, classes) for value in one.pair)
    return [image_id, "0", f"{one.score:.4f}", f"{one.too_much:.4f}", f"{one.too_little:.4f}", *pair]


def _in_words(value: int | float, classes: Sequence[str]) -> str:
    return classes[value] if isinstance(value, int) else f"{value:.4g}"
