"""What a network is told beside the images of a batch: the one place that says how networks are called.

`numbers`, `texts`, `partners` and `own_share` are of `data.columns`, see columns.py; `group_sizes` of `model.join`, see
group_join.py.
"""

from typing import Any

BESIDE = ("numbers", "texts", "partners", "own_share", "group_sizes")


def beside(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network beside the images: `network(images, **beside(batch))`; of most none."""
    return {key: batch[key] for key in BESIDE if key in batch}
