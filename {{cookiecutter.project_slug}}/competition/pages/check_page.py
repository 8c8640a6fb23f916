"""check.html: what the data of a competition look like, its distributions and worst rows. No torch."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from competition.checking.seen_images import Looks, Seen
from competition.config.settings import Config
from competition.pages.page import Grid, Picture, Section, number, plot, write_page
from competition.pages.training_pictures import TrainingAlbum
from competition.support.errors import CompetitionError
from competition.tasks.contract import Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes


CHECK_PAGE = "check.html"
NUM_DRAWN = 24  # training images, by chance
NUM_EMPTY, NUM_GROUPS, NUM_OF_GROUP = 4, 6, 3  # images without any class; groups of near-duplicates, images of each
MOST_SHOWN = 6  # classes whose images are counted fold by fold
USUAL = (1, 99)  # percentiles between which 98 % of the training images lie


def write_check_page(config: Config, seen: Seen, report: Sequence[str], faults: Sequence[str]) -> str:
    """Write check.html into the run's folder; return a line that says so, or why not."""
    path = config.run_folder / CHECK_PAGE
    album = TrainingAlbum(config, seen.table)
    sections = [
        Section("Report", [*(faults or ["No fault was found."]), *report]),
        _sample(config, seen, album),
        _classes(config, seen),
        _empty(seen, album),
        _parts(config, seen),
        _shift(seen),
        _duplicates(config, seen, album),
        _folds(config, seen),
        worst_rows(config, seen, album),
    ]
    facts = [
        ("task", config.task),
        ("training images", number(len(seen.table.image_ids))),
        ("test images", number(len(seen.test.heights))),
        ("classes", number(len(seen.table.classes))),
        ("faults", number(len(faults))),
    ]
    try:
        write_page(path, f"Data of {config.name}", facts, sections)
    except CompetitionError as error:  # no reason to call the data faulty
        return str(error)
    return f"images, distributions and worst rows: {path}"


def _sample(config: Config, seen: Seen, album: TrainingAlbum) -> Section:
    rows = np.sort(np.random.default_rng(config.seed).permutation(len(seen.table.image_ids))[:NUM_DRAWN])
    words = [f"{len(rows)} of {number(len(seen.table.image_ids))} images, drawn by chance (seed {config.seed})."]
    if config.data.channels > 3:
        words.append(f"Of {config.data.channels} channels the first three are shown as red, green and blue.")
    return Section("Training images", words, legend=album.legend(), pictures=album.pictures(rows.tolist()))


def _classes(config: Config, seen: Seen) -> Section:
    present, plots, words = seen.table.present(), list[Picture](), list[str]()
    if present.all():
        words.append("Every image has an answer for every class or column, so there is nothing to count.")
    else:
        plots.append(class_plot(seen.table.classes, present.sum(axis=0)))
    amount, amounts = seen.task.picture.amount_name(config), seen.amounts()
    if amount is not None and amounts is not None:
        lowest, median, highest = np.percentile(amounts, (0, 50, 100)).tolist()
        words.append(f"{amount.capitalize()} an image: {number(lowest)} to {number(highest)}, median {number(median)}.")
        plots.append(histogram(amounts, f"{amount} an image"))
    return Section("Classes", words, plots=plots)


def _empty(seen: Seen, album: TrainingAlbum) -> Section:
    rows = np.flatnonzero(~seen.table.present().any(axis=1))
    total = len(seen.table.image_ids)
    if not len(rows):
        return Section("Images without any class", ["There is none."])
    share = f"{number(len(rows))} of {number(total)} images, {100 * len(rows) / total:.1f} %; some of them:"
    return Section("Images without any class", [share], pictures=album.pictures(rows[:NUM_EMPTY].tolist()))


def _parts(config: Config, seen: Seen) -> Section:
    title, name = "Sizes", seen.task.picture.part_name()
    if name is None:
        return Section(title, ["Answers are of whole images, so they have no sizes."])
    parts = [part for image in seen.parts.values() for part in image]
    if not parts:
        return Section(title, [f"There are no {name}."])
    number_of = f"{number(len(parts))} {name} on {number(len(seen.parts))} images"
    words = [number_of + (", drawn by chance." if len(seen.parts) < len(seen.table.image_ids) else ".")]
    outside = sum(part.outside > 0 for part in parts)
    if outside:
        words.append(f"{number(outside)} of them reach out of their image, and are cut there.")
    sides = np.sqrt([part.area for part in parts])
    counts = np.bincount([part.class_number for part in parts], minlength=len(seen.table.classes))
    plots = [class_plot(seen.table.classes, counts, name)]
    if sides.any():  # points have no area
        plots.insert(0, histogram(sides, f"√area of {name} (of the image: 1)", limits=(0, 1)))
    if name != seen.task.picture.amount_name(config):  # which is drawn already
        plots.append(histogram(np.array([len(image) for image in seen.parts.values()]), f"{name} an image"))
    return Section(title, words, plots=plots)


def _shift(seen: Seen) -> Section:
    """Compare sizes and brightness of training and test images."""
    known = [(name, *(values[np.isfinite(values)] for values in pair)) for name, pair in _measures(seen).items()]
    known = [(name, train, test) for name, train, test in known if len(train)]
    if not len(seen.test.heights):
        return Section("Training and test images", ["There are no test images to compare with."])
    rows = []
    for name, train, test in known:
        low, high = np.percentile(train, USUAL)
        # What float32 rounds away must not count as unusual.
        margin = 1e-6 * max(abs(low), abs(high))
        outside = np.mean((test < low - margin) | (test > high + margin)) if len(test) else 0.0
        medians = [number(float(np.median(values))) if len(values) else "none" for values in (train, test)]
        rows.append([name, *medians, f"{100 * outside:.0f} %"])
    words = ["The last column says how many test images lie outside of where 98 % of the training images are."]
    grid = Grid(["", "median train", "median test", "unusual"], rows)
    return Section(
        "Training and test images",
        words,
        grids=[grid, *_sizes(seen)],
        plots=[histograms(train, test, name) for name, train, test in known if np.ptp([*train, *test]) > 0],
    )


def _measures(seen: Seen) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    def both(measure: str) -> tuple[np.ndarray, np.ndarray]:
        return getattr(seen.train, measure), getattr(seen.test, measure)

    names = {"height": "heights", "width": "widths", "brightness": "brightness", "contrast": "contrast"}
    return {name: both(measure) for name, measure in names.items()}


def _sizes(seen: Seen) -> list[Grid]:
    """List the commonest sizes."""
    counted = {}
    for place, looks in enumerate((seen.train, seen.test)):
        for size, times in zip(*_counted_sizes(looks), strict=True):
            counted.setdefault(tuple(size), [0, 0])[place] = times
    commonest = sorted(counted, key=lambda size: -sum(counted[size]))
    rows = [[f"{h:.0f} x {w:.0f}", *(number(times) for times in counted[h, w])] for h, w in commonest[:MOST_SHOWN]]
    more = f", the commonest {MOST_SHOWN} of {len(commonest)} sizes" if len(commonest) > MOST_SHOWN else ""
    return [Grid(["height x width", "train", "test"], rows, f"images by size{more}")]


def _counted_sizes(looks: Looks) -> tuple[list[list[float]], list[int]]:
    sizes = np.stack([looks.heights, looks.widths], axis=1)
    values, counts = np.unique(sizes[np.isfinite(sizes).all(axis=1)], axis=0, return_counts=True)
    return values.tolist(), counts.tolist()


def _duplicates(config: Config, seen: Seen, album: TrainingAlbum) -> Section:
    title = "Near-duplicates"
    if seen.groups is None:
        return Section(title, ["Not looked for, as data.near_duplicates is false."])
    members = [np.flatnonzero(seen.groups == group) for group in range(seen.groups.max(initial=-1) + 1)]
    if not members:
        return Section(title, ["None was found."])
    folds = seen.folds
    torn = [rows for rows in members if folds is not None and len(set(folds[rows])) > 1]
    words = [f"{number(sum(map(len, members)))} images in {number(len(members))} group{'s' * (len(members) != 1)}."]
    if folds is not None:
        words.append(f"{number(len(torn))} of them torn over folds.")
    shown = sorted(members, key=lambda rows: (not any(rows is other for other in torn), -len(rows)))[:NUM_GROUPS]
    sections = [
        Section(f"{len(rows)} images alike", pictures=album.pictures(rows[:NUM_OF_GROUP].tolist(), _in_fold(seen)))
        for rows in shown
    ]
    return Section(title, words, legend=album.legend(), sections=sections)


def _in_fold(seen: Seen) -> dict[int, str]:
    return {} if seen.folds is None else {row: f"fold {fold}" for row, fold in enumerate(seen.folds.tolist())}


def _folds(config: Config, seen: Seen) -> Section:
    if seen.folds is None:
        return Section("Folds", ["There are none yet. The command competition folds makes them."])
    table, present, amounts = seen.table, seen.table.present(), seen.amounts()
    shown = [] if present.all() else np.argsort(-present.sum(axis=0), kind="stable")[:MOST_SHOWN].tolist()
    amount = seen.task.picture.amount_name(config)
    inside = [seen.folds == fold for fold in range(config.data.num_folds)]
    measures: dict[str, Callable[[np.ndarray], float]] = {"images": np.sum}
    if amount is not None and amounts is not None:
        measures[f"mean {amount}"] = lambda rows: amounts[rows].mean()
    if shown:
        measures["without any"] = lambda rows: np.sum(~present[rows].any(axis=1))
        measures |= {f"with {table.classes[k]}": lambda rows, k=k: present[rows, k].sum() for k in shown}
    columns = ["", *(f"fold {fold}" for fold in range(len(inside)))]
    rows = [[name, *(number(float(measure(rows))) for rows in inside)] for name, measure in measures.items()]
    words = [f"As data.split says: {config.data.split}."]
    if 0 < len(shown) < len(table.classes):
        words.append(f"Of {len(table.classes)} classes the commonest {len(shown)} are listed.")
    return Section("Folds", words, grids=[Grid(columns, rows)])


MOST_BARS = 30
NUM_BINS = 30
TRAIN, TEST = "#4493f8", "#f0883e"


def class_plot(classes: Sequence[str], counts: np.ndarray, what: str = "images") -> Picture:
    """Draw a bar a class, the commonest ones where there are many."""
    order = np.argsort(-counts, kind="stable")[:MOST_BARS]
    more = f", the commonest {MOST_BARS} of {len(counts)} classes" if len(counts) > MOST_BARS else ""

    def draw(axes: "Axes") -> None:
        names = [_short(classes[k]) for k in order]
        bars = axes.barh(range(len(order)), counts[order], color=TRAIN)
        axes.bar_label(bars, padding=2, fontsize=8)
        axes.set(yticks=range(len(order)), yticklabels=names, title=f"{what} by class{more}")
        axes.locator_params("x", integer=True)
        axes.invert_yaxis()
        axes.margins(x=0.12)

    left = 0.3 + 0.075 * max(len(_short(classes[k])) for k in order)
    said = ", ".join(f"{classes[k]} {counts[k]}" for k in order[:6])
    return plot(draw, f"Bars: {what} by class{more}: {said}", height=1.0 + 0.2 * len(order), left=left)


def histogram(values: np.ndarray, name: str, limits: tuple[float, float] | None = None) -> Picture:
    """Draw the distribution of values (n,)."""
    return plot(lambda axes: _draw_histogram(axes, {"train": values}, name, limits), f"Histogram: {name}")


def histograms(train: np.ndarray, test: np.ndarray, name: str) -> Picture:
    """Draw the distributions of training and test images over each other, both with the same area."""
    values = {"train": train, "test": test} if len(test) else {"train": train}
    return plot(lambda axes: _draw_histogram(axes, values, name, None), f"Histograms of train and test: {name}")


def _draw_histogram(axes: "Axes", values: dict[str, np.ndarray], name: str, limits: tuple[float, float] | None) -> None:
    together = np.concatenate(list(values.values())).astype(np.float64)
    low, high = limits or (float(together.min()), float(together.max()))
    if limits is None and high - low < 1e-6 * max(abs(high), 1):  # all are the same
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    is_counted = bool((together == np.rint(together)).all()) and high - low <= NUM_BINS
    edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5 if is_counted else np.linspace(low, high, NUM_BINS + 1)
    for (label, some), color in zip(values.items(), (TRAIN, TEST), strict=False):
        shares = 100 * np.histogram(some, edges)[0] / len(some)
        axes.stairs(shares, edges, fill=True, label=label, color=color, alpha=0.55)
        axes.stairs(shares, edges, color=color)
    axes.set_title(name, loc="left" if len(values) > 1 else "center")
    axes.set_ylabel("%")
    if is_counted:
        axes.locator_params("x", integer=True)
    if len(values) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def _short(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


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
