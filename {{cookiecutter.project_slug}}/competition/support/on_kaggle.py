"""What a bundle and a training are called on Kaggle, and what a notebook says of itself. Only the standard library."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

DATASET, KERNEL = "dataset-metadata.json", "kernel-metadata.json"  # files of metadata
T4 = "NvidiaTeslaT4"  # two of them; a notebook that only asks for a GPU may get a P100, which torch no longer knows


def name_on_kaggle(*given: str) -> str:
    """Return 6 to 50 letters, digits and hyphens that are other ones for every other competition or run."""
    parts = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in given]
    name = "-".join(parts)
    if parts == list(given) and 6 <= len(name) <= 40:
        return name
    # What was changed or is cut off still tells two runs apart.
    told_apart = hashlib.sha256("\0".join(given).encode()).hexdigest()[:6]
    return "-".join(filter(None, (parts[0][:12].strip("-"), parts[1][:20].strip("-"), told_apart)))


def notebook_metadata(
    name: str,
    code_file: str,
    *,
    has_internet: bool,
    accelerator: str = T4,
    datasets: Sequence[str] = (),
    competitions: Sequence[str] = (),
    notebooks: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what KERNEL says of a private notebook, which may bear its owner's name, on a GPU, and of its inputs."""
    return {
        "id": name,
        "title": name.rpartition("/")[2],
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": "true",
        "enable_gpu": "true",  # what clients before 2.0 know
        "machine_shape": accelerator,
        "enable_internet": "true" if has_internet else "false",
        "dataset_sources": list(datasets),
        "competition_sources": list(competitions),
        "kernel_sources": list(notebooks),
    }
