"""Points from train.csv to the submission of their bundle: learnt and tuned.

That a stopped training ends like an unbroken one is test_exact_resume.py's, of every task.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from tiny import PROJECT
from trainings import run_here

from competition.pipeline import run as run_module
from competition.prediction.stored import Predictions
from competition.runs.folder import Run
from competition.submission.submit import make_submission
from competition.support.optional_rooms import has_room
from competition.tasks.made_up_images import write_sample

pytestmark = pytest.mark.slow
WORDS = (
    *("name=t", "data.dir=data", "data.image_size=64", "data.batch_size=8", "data.num_workers=0", "fold=0"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=8", "optimizer.lr=4e-3"),
    *("model.encoder=test_resnet", "model.decoder_channels=64"),
    *("mix.mosaic=0.1", "loss.sigma=3", "matching.distance=6", "tta=[hflip]"),
)


def test_from_train_csv_to_the_submission_of_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample("points", tmp_path / "data", 120)
    words = [str(PROJECT / "configs" / "points.yaml"), *WORDS]
    monkeypatch.setattr(run_module, "has_room", lambda name: name == "bundle" and has_room(name))  # pages take longest
    done = run_here(tmp_path, words)
    assert done.returncode == 0, done.stdout
    run = tmp_path / "outputs" / "t"
    monkeypatch.chdir(tmp_path)
    scores = make_submission(Run.open("t")).test_scores
    assert scores is not None
    assert scores["f1"] > 0.5
    stored = Predictions(run / "test.npz")[0]["heatmap"]
    assert (stored.shape, stored.dtype) == ((4, 16, 16), "float16")

    if not has_room("bundle"):
        return
    from competition.bundle.offline import infer

    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "data" / "train_images")
    written = infer(run / "bundle", tmp_path / "data", tmp_path / "submission.csv")
    pd.testing.assert_frame_equal(pd.read_csv(written), pd.read_csv(run / "submission.csv"))
