"""Images that are answered as one, such as all views of a breast: `format.group`. No torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config.section import names_in
from competition.files.csv_file import read_csv, row_faults, second_rows
from competition.files.csv_keys import split_keys
from competition.files.joined_tables import has_table
from competition.files.series import group_names
from competition.support.errors import CompetitionError
from competition.tasks.classification.settings import TaskConfig


def read_groups(config: TaskConfig, path: Path) -> pd.Series:
    """Return the group of every image of a csv file by image id, in its order; raise CompetitionError on a fault."""
    form = config.format
    assert form.group is not None
    keys = [key for key in form.train.keys if "{image_id}" in form.train.keys[key]]
    frame = read_csv(path, list(dict.fromkeys([*keys, *names_in(form.group)])))
    ids, _ = split_keys(frame, {key: form.train.keys[key] for key in keys}, path)
    names = group_names(frame, form.group)
    faults = [
        *second_rows(path, ids),
        *row_faults(path, np.flatnonzero(ids == ""), ids, "the image's id is empty", show_found=False),
    ]
    if faults:
        raise CompetitionError("\n".join(faults))
    return pd.Series(names, index=ids.to_numpy(dtype=object))


def groups_of_test(config: TaskConfig) -> pd.Series:
    """Return the group of every test image by image id, in the order of `format.test_csv`."""
    return read_groups(config, config.data.dir / config.format.test_csv)


def groups_of(config: TaskConfig, image_ids: Sequence[str]) -> list[str]:
    """Return the group of each image, which may be of training or test."""
    known = groups_of_test(config).to_dict() if has_table(config.data.dir / config.format.test_csv) else {}
    if not all(image_id in known for image_id in image_ids):
        known |= read_groups(config, config.train_csv).to_dict()
    missing = next((image_id for image_id in image_ids if image_id not in known), None)
    if missing is not None:
        raise CompetitionError(
            f"{config.data.dir}: neither {config.data.train_csv} nor {config.format.test_csv} has image {missing!r}, "
            f"so its group is not known"
        )
    return [known[image_id] for image_id in image_ids]


def images_by_group(config: TaskConfig) -> dict[str, list[str]]:
    """Return the test images of each group."""
    images: dict[str, list[str]] = {}
    for image_id, group in groups_of_test(config).items():
        images.setdefault(group, []).append(str(image_id))
    return images


def images_of_groups(config: TaskConfig, groups: pd.Series) -> np.ndarray:
    """Return the images of the groups in their order; both files must name the same groups."""
    images, test_csv = images_by_group(config), config.data.dir / config.format.test_csv
    faults = row_faults(
        config.sample_submission, np.flatnonzero(~groups.isin(list(images))), groups, f"{test_csv} has no image of it"
    )
    left = set(images) - set(groups)
    if left:
        faults.append(f"{test_csv}: {len(left)} groups, as {min(left)!r}, have no row in {config.sample_submission}")
    if faults:
        raise CompetitionError("\n".join(faults))
    return np.array([image for group in groups for image in images[group]], dtype=object)


def table_of_groups(table: Any, join: str) -> Any:
    """Return the table whose entries are the groups of another one, in order of first appearance.

    A group has the largest label of its images, and every label that one of them has; of numbers the mean, or by
    `format.join` the largest; of probabilities the mean. `of_images` is the table it was made of.
    """
    codes, names = pd.factorize(table.groups)
    first = np.unique(codes, return_index=True)[1]

    def joined(key: str, values: np.ndarray) -> np.ndarray:
        each = [values[codes == code] for code in range(len(names))]
        is_mean = key == "probabilities" or (values.dtype.kind == "f" and join == "mean")
        return np.stack([one.mean(axis=0) if is_mean else one.max(axis=0) for one in each])

    parts = {key: getattr(table, key, None) for key in ("labels", "values", "known", "probabilities")}
    known = {key: joined(key, values) for key, values in parts.items() if values is not None}
    if (soft := known.get("probabilities")) is not None:
        known["labels"] = soft.argmax(axis=1) if known["labels"].ndim == 1 else soft > 0.5
    return replace(table, image_ids=names, lines=table.lines[first], groups=None, of_images=table, **known)
