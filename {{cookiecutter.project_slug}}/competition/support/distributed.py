"""Bringing together, by image id, what every process knows of its share of the images."""

import pickle
import zlib
from typing import Any, TypeVar

import numpy as np
import torch.distributed

Value = TypeVar("Value")


def gather_by_image(share: dict[str, dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Return the evidence of all images of all processes, sorted by image id; an image two ranks read counts once.

    Call it on every rank, once, at the end: a collective inside the loop hangs when ranks have unequal batches.
    """
    merged: dict[str, dict[str, np.ndarray]] = {}
    for one in reversed(of_all_processes(share)):
        merged |= one
    return [merged[image_id] for image_id in sorted(merged)]


def of_all_processes(value: Value) -> list[Value]:
    """Return what each process says, by rank; call it on every one of them."""
    values = [value] * num_processes()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def packed(value: object) -> np.ndarray:
    """Return any value as bytes, small enough that those of all images can be kept and gathered: masks compress."""
    return np.frombuffer(zlib.compress(pickle.dumps(value), 1), dtype=np.uint8)


def unpacked(content: np.ndarray) -> Any:
    """Return a value that this program packed."""
    return pickle.loads(zlib.decompress(content.tobytes()))


def num_processes() -> int:
    """Return how many processes train or predict together, on all machines."""
    return torch.distributed.get_world_size() if _is_one_of_several() else 1


def rank() -> int:
    """Return which of them this process is."""
    return torch.distributed.get_rank() if _is_one_of_several() else 0


def _is_one_of_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
