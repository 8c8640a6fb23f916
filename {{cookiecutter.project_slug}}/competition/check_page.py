"""check.html: what the data of a competition look like, written by `competition check CONFIG`. No torch."""

from collections.abc import Callable, Sequence

import numpy as np

from competition.album import TrainingAlbum
from competition.check_plots import class_plot, histogram, histograms
from competition.look import Looks, Seen
from competition.page import Grid, Picture, Section, number, write_page
from competition.settings import Config
from competition.worst_rows import worst_rows

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
    except OSError as error:
        return f"{path}: cannot be written ({error.strerror})"
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
    plots = [
        histogram(sides, f"√area of {name} (of the image: 1)", limits=(0, 1)),
        class_plot(seen.table.classes, counts, name),
    ]
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
    words = [f"{number(sum(map(len, members)))} images in {number(len(members))} groups."]
    if folds is not None:
        words.append(f"{number(len(torn))} of the groups are torn over folds.")
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
