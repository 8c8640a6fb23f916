"""A step of segmentation with decoders of several widths (`model.decoder_channels`), beside that as published.

    python benchmarks/decoder_width.py [SIDE [ENCODER [WIDTH ...]]]

Forward, backward and step of a batch of 4 on the CPU, each width in turn, so that a machine whose speed drifts slows
all. A width is the channels of the decoder's widest stage.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))

from competition.config.loading import load_config  # noqa: E402
from competition.tasks.contract import Task  # noqa: E402

ROUNDS, BATCH_SIZE = 7, 4


def build(encoder: str, side: int, width: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a network and its optimizer."""
    words = [f"model.encoder={encoder}", f"data.image_size={side}", f"model.decoder_channels={width}"]
    config = load_config([PROJECT / "configs" / "segmentation.yaml"], words)
    network = Task(config.task).model.build_network(config, 1)
    return network, torch.optim.AdamW(network.parameters())


def main() -> None:
    side, encoder, *widths = [*sys.argv[1:], *["256", "resnet34"][len(sys.argv) - 1 :]]
    built = {width: build(encoder, int(side), width) for width in ("null", *(widths or ("128", "64")))}
    images = torch.randn(BATCH_SIZE, 3, int(side), int(side))
    seconds: dict[str, list[float]] = {width: [] for width in built}
    for _ in range(ROUNDS):
        for width, (network, optimizer) in built.items():
            began = time.perf_counter()
            optimizer.zero_grad()
            network(images).mean().backward()
            optimizer.step()
            seconds[width].append(time.perf_counter() - began)
    published = statistics.median(seconds["null"][1:])
    for width, (network, _) in built.items():
        number = sum(one.numel() for one in network.parameters())
        ratio = statistics.median(seconds[width][1:]) / published
        print(f"{width:>5}: {number / 1e6:.1f} million weights, {ratio:.2f} of the time")


if __name__ == "__main__":
    main()
