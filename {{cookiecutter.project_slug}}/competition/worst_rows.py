"""The worst rows of a competition's data, for check.html: what is smallest, largest and oddest. No torch."""

from collections.abc import Callable, Iterator

import numpy as np

from competition.album import TrainingAlbum
from competition.look import Looks, Seen
from competition.page import Section, number
from competition.settings import Config
from competition.task import Part

NUM_SHOWN = 4  # of a kind
Kind = tuple[str, list[int], dict[int, str]]  # a title, images by their numbers in the table, and a note to each


def worst_rows(config: Config, seen: Seen, album: TrainingAlbum) -> Section:
    """Show them by kind."""
    kinds = [*_of_parts(seen), *_of_amounts(config, seen), *_of_images(seen.train)]
    sections = [Section(title, pictures=album.pictures(rows, notes)) for title, rows, notes in kinds]
    words = [
        "Not faults as such: rows to look at, as answers are often wrong there. What is damaged stands in the report."
    ]
    return Section("Worst rows", words, legend=album.legend(), sections=[one for one in sections if one.pictures])


def _of_parts(seen: Seen) -> Iterator[Kind]:
    name, parts = seen.task.picture.part_name(), [(part, row) for row, image in seen.parts.items() for part in image]
    kinds: dict[str, tuple[Callable[[Part], float], Callable[[Part], str]]] = {
        f"Smallest {name}": (lambda part: part.area, _area),
        f"Largest {name}": (lambda part: -part.area, _area),
        f"Longest and thinnest {name}": (
            lambda part: -part.elongation,
            lambda part: f"{number(part.elongation)} times as long as wide",
        ),
    }
    if any(part.outside > 0 for part, _ in parts):
        kinds[f"Outermost {name}"] = (
            lambda part: -part.outside,
            lambda part: f"{100 * part.outside:.3g} % of the {seen.table.classes[part.class_number]} is outside",
        )
    for title, (badness, say) in kinds.items():
        notes: dict[int, str] = {}
        for part, row in sorted(parts, key=lambda one: badness(one[0])):
            if row not in notes and len(notes) < NUM_SHOWN and badness(part):
                notes[row] = f"{seen.table.classes[part.class_number]}: {say(part)}"
        yield title, list(notes), notes


def _area(part: Part) -> str:
    return f"{100 * part.area:.3g} % of the image"


def _of_amounts(config: Config, seen: Seen) -> Iterator[Kind]:
    """Return the images with the largest and smallest number, where answers have no parts that say more."""
    name, amounts = seen.task.picture.amount_name(config), seen.amounts()
    if name is None or amounts is None or any(seen.parts.values()):
        return
    order = np.argsort(amounts, kind="stable")
    notes = {row: f"{name} {number(value)}" for row, value in enumerate(amounts.tolist())}
    yield f"Most {name}" if name == "labels" else f"Largest {name}", order[::-1][:NUM_SHOWN].tolist(), notes
    if name != "labels":
        yield f"Smallest {name}", order[:NUM_SHOWN].tolist(), notes


def _of_images(looks: Looks) -> Iterator[Kind]:
    stretch = np.maximum(looks.heights, looks.widths) / np.minimum(looks.heights, looks.widths)
    area = looks.heights * looks.widths
    kinds: dict[str, tuple[np.ndarray, Callable[[float], str]]] = {
        "Darkest images": (looks.brightness, lambda value: f"brightness {value:.3g}"),
        "Brightest images": (-looks.brightness, lambda value: f"brightness {-value:.3g}"),
        "Images of the least contrast": (looks.contrast, lambda value: f"contrast {value:.3g}"),
        "Longest and thinnest images": (-stretch, lambda value: f"{-value:.3g} times as long as wide"),
        "Smallest images": (area, lambda value: f"{number(value)} pixels"),
    }
    for title, (values, say) in kinds.items():
        known = values[np.isfinite(values)]
        if not len(known) or known.min() == known.max():  # no image differs from the others
            continue
        rows = np.argsort(values, kind="stable")[:NUM_SHOWN].tolist()  # NaN comes last
        yield title, rows, {row: say(float(values[row])) for row in rows}
