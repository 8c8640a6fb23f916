"""How each out-of-fold image was answered, and those answered best, worst and most wrongly, drawn. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.config.settings import Config
from competition.data.pictures import small_picture
from competition.pages.page import Picture, Section, as_picture, css_color
from competition.pages.training_pictures import read_training_image
from competition.scoring.out_of_fold import OutOfFold
from competition.support.progress import progress
from competition.tasks.contract import Outcome

# Images are looked at as long as their stored predictions have no more numbers than this, but always some.
MOST_NUMBERS, FEWEST, MOST = 200_000_000, 1000, 50_000
NUM_SAMPLED = 20  # images by which the numbers of a prediction are counted


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the images `rows` (m,) of all, in ascending order."""

    images: OutOfFold
    rows: np.ndarray
    each: list[Outcome]

    @property
    def is_sample(self) -> bool:
        """Whether there are images that were not looked at."""
        return len(self.rows) < len(self.images)


def look_at(config: Config, images: OutOfFold) -> Outcomes:
    """Decode the images' predictions once and compare them with the truth."""
    rows, task, num_classes = affordable(images, MOST_NUMBERS, FEWEST, MOST), images.task, len(images.table.classes)
    each = []
    for row in progress(rows.tolist(), "out-of-fold images"):
        prediction = images.prediction(row)
        answer = task.decode.decode(prediction, *images.size(row), config)
        each.append(task.outcome.outcome(prediction, answer, images.truth(row), num_classes))
    return Outcomes(images, rows, each)


def affordable(images: OutOfFold, most_numbers: int, fewest: int, most: int) -> np.ndarray:
    """Return (m,) numbers of all images, ascending, or of some by chance where predictions have too many numbers."""
    some = np.unique(np.linspace(0, len(images) - 1, NUM_SAMPLED).round().astype(int)).tolist()
    numbers = np.mean([sum(values.size for values in images.prediction(row).values()) for row in some])
    number = int(np.clip(most_numbers / max(numbers, 1), fewest, most))
    return np.sort(np.random.default_rng(0).permutation(len(images))[:number])


NUM_SHOWN = 6  # of a kind
TRUTH, ANSWER = (60, 220, 80), (255, 120, 20)
# Titles and sentences of what is predicted too much, and too little.
OF_CLASSES = (
    ("False positives", "Most is predicted that is not there."),
    ("False negatives", "Most is there that is not predicted."),
)
OF_NUMBERS = (("Too high", "Furthest over the truth."), ("Too low", "Furthest under the truth."))


def galleries(config: Config, outcomes: Outcomes) -> list[Section]:
    """Return a section a kind, with the sentence that tells what it holds."""
    too_much, too_little = OF_NUMBERS if _has_numbers(outcomes) else OF_CLASSES
    kinds = {
        "Best": (
            "The highest, of images with something to find if there are any.",
            _by_score(outcomes)[::-1][:NUM_SHOWN],
        ),
        "Median": ("The middle ones of these.", _middle(outcomes)),
        "Worst": ("The lowest of all.", np.argsort(_values(outcomes, "score"), kind="stable")[:NUM_SHOWN]),
        too_much[0]: (too_much[1], _largest(_values(outcomes, "too_much"))),
        too_little[0]: (too_little[1], _largest(_values(outcomes, "too_little"))),
    }
    shown = sorted({int(place) for _, places in kinds.values() for place in places})
    drawn = {place: picture_of(config, outcomes, place) for place in progress(shown, "drawing")}
    return [_section(title, words, [drawn[int(place)] for place in places]) for title, (words, places) in kinds.items()]


def legend(outcomes: Outcomes) -> list[tuple[str, str]]:
    """Return what the colors mean; none where nothing is drawn."""
    if outcomes.images.task.picture.part_name() is None:
        return []
    return [(css_color(TRUTH), "truth"), (css_color(ANSWER), "prediction, drawn over the truth")]


def _section(title: str, words: str, pictures: Sequence[Picture | None]) -> Section:
    there = [picture for picture in pictures if picture is not None]
    if there:
        return Section(title, [words], pictures=there)
    return Section(title, ["The images cannot be read." if pictures else "There is none."])


def picture_of(config: Config, outcomes: Outcomes, place: int) -> Picture | None:
    """Draw truth and prediction onto an image; the prediction is decoded again, as masks of all are not kept."""
    images, row = outcomes.images, int(outcomes.rows[place])
    image_id, task, classes = images.image_ids[row], images.task, images.table.classes
    pixels = read_training_image(config, image_id)
    if pixels is None:
        return None
    answer, truth, (height, width) = images.answer(row, config), images.truth(row), images.size(row)
    drawn = small_picture(pixels)
    task.picture.draw(drawn, truth, height, width, [TRUTH])
    task.picture.draw(drawn, answer, height, width, [ANSWER])
    true, said = task.picture.caption(truth, classes), task.picture.caption(answer, classes)
    score = f"{task.outcome.score_name(config)}: {outcomes.each[place].score:.3g}"
    lines = [image_id, f"truth: {true}", f"prediction: {said}", score]
    return as_picture(drawn, f"Image {image_id}, truth: {true}; prediction: {said}", lines)


def _has_numbers(outcomes: Outcomes) -> bool:
    pair = outcomes.each[0].pair
    return pair is not None and isinstance(pair[0], float)


def _values(outcomes: Outcomes, name: str) -> np.ndarray:
    return np.array([getattr(one, name) for one in outcomes.each])


def _by_score(outcomes: Outcomes) -> np.ndarray:
    """Return places, worst first, of images with something to find if there are any: empty ones are easily right."""
    order = np.argsort(_values(outcomes, "score"), kind="stable")
    has_truth = np.array([one.num_true.any() for one in outcomes.each])
    return order[has_truth[order]] if has_truth.any() else order


def _middle(outcomes: Outcomes) -> np.ndarray:
    order = _by_score(outcomes)
    first = max((len(order) - NUM_SHOWN) // 2, 0)
    return order[first : first + NUM_SHOWN]


def _largest(values: np.ndarray) -> np.ndarray:
    """Return the places of the largest values over zero."""
    order = np.argsort(-values, kind="stable")[:NUM_SHOWN]
    return order[values[order] > 0]
