"""Classes that are typing errors, most often. No torch."""

import difflib

import numpy as np

from competition.config.settings import Config
from competition.files.csv_file import read_header
from competition.files.joined_tables import has_table
from competition.tasks.contract import Table

FEW_IMAGES = 2  # that a typing error is in


def doubtful_classes(config: Config, table: Table, asked: set[str] | None) -> list[str]:
    """Warn of classes that are typing errors, most often: nobody listed them, and sample_submission.csv does not ask
    for them, or few images have one whose name is almost another's."""
    if config.data.classes is not None:
        return []
    has, lines = table.present(), []
    columns = {name.strip() for name in read_header(config.train_csv)} if has_table(config.train_csv) else set()
    common = [name for k, name in enumerate(table.classes) if has[:, k].sum() > FEW_IMAGES]
    for k, name in enumerate(table.classes):
        target, _, own = name.rpartition("/")  # of several targets, each with classes of its own
        others = [one for one in common if one.rpartition("/")[0] == target]
        is_known = name in common or own.isdecimal() or own in columns
        near = [] if is_known else difflib.get_close_matches(name, others, n=1, cutoff=0.8)
        reason = f"is spelt almost as {near[0]!r}" if near else ""
        if asked is not None and name not in asked:
            reason = f"has no row in {config.data.sample_submission}"
        if reason:
            rows = np.flatnonzero(has[:, k])
            lines.append(
                f"warning: {config.train_csv}: class {name!r} ({len(rows)} images, the first on line "
                f"{min(table.lines[rows].tolist(), default=0)}) {reason}; if it is a typing error, correct it; if not, "
                f"list it in {f'format.targets.{target}' if target else 'data'}.classes"
            )
    return lines
