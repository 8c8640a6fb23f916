"""Run pytest in several projects: python tests/forked_pytest.py PYTHON FOLDER WORD... -- FOLDER WORD...

Each is a fork of this process, which has imported the libraries: that takes as long as many a project's quick tests.
It may be one of warm.py's itself, which has most of them already; PYTHON is what tests are to start, which is not.
What hypothesis looks for in each module of a project it keeps beside this process's folder, as their modules are alike.
What each says goes to FOLDER/said, and its exit status to FOLDER/status. A project with a list of chosen tests runs
those alone.
"""

import gc
import os
import sys
import tempfile
import traceback
from pathlib import Path

import albumentations  # noqa: F401
import hypothesis  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import optuna  # noqa: F401
import pandas as pd  # noqa: F401
import peft  # noqa: F401
import pytest
import pytorch_lightning as pl  # noqa: F401
import requests  # noqa: F401
import segmentation_models_pytorch as smp  # noqa: F401
import sklearn.model_selection  # noqa: F401
import timm  # noqa: F401
import torchvision  # noqa: F401
from baking import CHOSEN


class Choice:
    """Deselects tests that are not in the list of those chosen."""

    def __init__(self, path: Path) -> None:
        self.names = set(path.read_text(encoding="utf-8").splitlines())

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if item.nodeid.partition("[")[0] not in self.names]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def live(folder: Path, words: list[str]) -> None:
    """Be the pytest of one project from here on, as `python -m pytest` in its folder would be."""
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(folder)
    sys.path[0] = os.environ["PYTHONPATH"] = str(folder)
    sys.modules.pop("leftovers", None)  # of the project that a warm Python is from
    try:
        chosen = [Choice(folder / CHOSEN)] if (folder / CHOSEN).is_file() else []
        status = int(pytest.main(words, plugins=chosen))
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    (folder / "status").write_text(str(status))
    os._exit(0)


if __name__ == "__main__":
    sys.executable, *words = sys.argv[1:]
    gc.freeze()  # or each fork would look through all that was imported, and copy it, for nothing
    with tempfile.TemporaryDirectory() as found:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = found
        while words:
            end = words.index("--") if "--" in words else len(words)
            (folder, *its), words = words[:end], words[end + 1 :]
            child = os.fork()
            if not child:
                live(Path(folder), its)
            os.waitpid(child, 0)
