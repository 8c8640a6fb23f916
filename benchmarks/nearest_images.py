"""How long it takes to compare images with all that a network remembers, against the full matrix of distances.

    python benchmarks/nearest_images.py

1,000 embeddings of 512 numbers against 100,000 of 5,000 classes, a batch of 1,000 at once.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"))

from competition.tasks.classification.metric_head import MetricHead
from competition.tasks.classification.settings.model import ClassificationModel

QUERIES, KNOWN, CLASSES, SIZE = 1000, 100_000, 5000, 512


def seconds(call: Callable[[], object], times: int = 5) -> float:
    """Return the median of some calls."""
    each = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        each.append(time.perf_counter() - began)
    return statistics.median(each)


def peak_mb() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print seconds, their ratio and the memory that each needs beside what is remembered."""
    head = MetricHead(SIZE, CLASSES, ClassificationModel.model_validate({"head": "arcface"})).eval()
    labels = torch.randint(0, CLASSES, (KNOWN,))
    head.remember(functional.normalize(torch.randn(KNOWN, SIZE), dim=1).half(), labels)
    features = torch.randn(QUERIES, SIZE)

    def whole_matrix() -> torch.Tensor:
        assert head.embeddings is not None
        cosines = head.embedding(features) @ head.embeddings.float().T
        found = cosines.new_full((QUERIES, CLASSES), -1.0)
        return found.scatter_reduce_(1, labels.expand_as(cosines), cosines, "amax")

    with torch.no_grad():
        before = peak_mb()
        ours, memory = seconds(lambda: head(features)), peak_mb() - before
        before = peak_mb()
        whole, matrix = seconds(whole_matrix), peak_mb() - before
        same = torch.allclose(head(features) / head.scale, whole_matrix(), atol=1e-4)
    print(f"block by block: {ours:.2f} s, {memory:.0f} MB; the full matrix: {whole:.2f} s, {matrix:.0f} MB more")
    print(f"ratio {whole / ours:.2f}; the same answers: {same}")


if __name__ == "__main__":
    main()
