"""Where data is read and results are written: in the project's folder, or where a Kaggle notebook has them. No torch.

A notebook finds a competition's files in `/kaggle/input/NAME` (read-only) and keeps what lies in `/kaggle/working`.
So the same config works in both, and a run that was trained there is opened here.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from competition.support.errors import CompetitionError

PACKAGE = Path(__file__).parents[1]  # competition/
KAGGLE = Path(os.environ.get("COMPETITION_KAGGLE", "/kaggle"))  # a test has a folder of its own
NOTEBOOK = "KAGGLE_KERNEL_RUN_TYPE"  # set in every Kaggle notebook: Interactive or Batch
ADDRESS = "https://www.kaggle.com/competitions/"


@dataclass(frozen=True)
class Places:
    """The folders of one machine; `kaggle` is a notebook's root folder, or None elsewhere."""

    kaggle: Path | None

    @property
    def outputs(self) -> Path:
        """Folder of all runs."""
        return Path("outputs") if self.kaggle is None else self.kaggle / "working" / "outputs"

    def data(self, given: Path) -> Path:
        """Return the folder of the competition's files: `given`, unless it is not there and is the other machine's.

        In a notebook that is any folder outside of /kaggle, and the files are in /kaggle/input; elsewhere it is one in
        /kaggle, and the files are in data/. Raises CompetitionError if several data sets there hold
        a sample submission and none bears the competition's name.
        """
        if self.kaggle is None:
            return Path("data") if given.is_relative_to(KAGGLE) and not given.exists() else given
        if given.is_relative_to(self.kaggle) or given.exists():
            return given
        mounted = self._mounted()
        named = [folder for folder in mounted if folder.name == competition_in(Path("pyproject.toml"))]
        if not named and len(mounted) > 1:
            found = ", ".join(map(str, mounted))
            raise CompetitionError(
                f"data.dir: {given} is not there, and several of the notebook's inputs could be: {found}; name one "
                "with data.dir=FOLDER"
            )
        return next(iter([*named, *mounted]), given)

    def as_given(self, folder: Path) -> Path:
        """Undo `data`, for configs that are kept: what stands for `data` here is elsewhere `data`, too."""
        default = Path("data")
        return default if folder == self.data(default) else folder

    def folds(self, data: Path) -> Path:
        """Return where folds.csv stands: beside train.csv, or with a notebook's results where it has none."""
        beside = data / "folds.csv"
        is_read_only = self.kaggle is not None and data.is_relative_to(self.kaggle / "input")
        return self.outputs.parent / "folds.csv" if is_read_only and not beside.is_file() else beside

    def _mounted(self) -> list[Path]:
        """List inputs that look like a competition's files. Kaggle has put them one and two folders deep."""
        assert self.kaggle is not None
        found = [*self.kaggle.glob("input/*/*sample_submission*"), *self.kaggle.glob("input/*/*/*sample_submission*")]
        return sorted({path.parent for path in found})


def here(environment: Mapping[str, str] | None = None, kaggle: Path | None = None) -> Places:
    """Return the folders of this machine, as its environment and its files tell."""
    kaggle = kaggle or KAGGLE
    is_notebook = NOTEBOOK in (os.environ if environment is None else environment) and (kaggle / "input").is_dir()
    return Places(kaggle if is_notebook else None)


def competition_in(pyproject: Path) -> str | None:
    """Return the last part of the competition's address in `project.urls` of a pyproject.toml, if it has one."""
    if not pyproject.is_file():
        return None
    try:
        urls = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {}).get("urls", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CompetitionError(f"{pyproject}: not a TOML file: {error}") from None
    name = str(urls.get("Competition", "")).removeprefix(ADDRESS).strip("/")
    return name if name and all(letter.isalnum() or letter == "-" for letter in name) else None
