"""The smallest training there is, as words of a command line; where the project lies."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# A network of 0.5 million weights on small images: an epoch takes a second.
TINY = (
    "model.encoder=test_resnet",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)
