"""A run's folder: outputs/<run>/ with fold0/, fold1/, ... and what is made of them. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from competition.config import config_differences, dump_config, load_config
from competition.errors import CompetitionError
from competition.files import replacing
from competition.settings import Config

CONFIG, OOF, TEST, SUBMISSION = "config.yaml", "oof.npz", "test.npz", "submission.csv"
# Keys that may differ between two starts of one run: they say where it computes, not what.
ELSEWHERE = ("fold", "data.num_workers", "trainer.accelerator", "trainer.devices", "trainer.max_time")


@dataclass(frozen=True)
class Run:
    """A run that has been trained, at least in part."""

    folder: Path
    config: Config

    @classmethod
    def open(cls, name: str, overrides: list[str] | None = None) -> "Run":
        """Find a run by its name or folder; its config is that of its first fold, with overrides."""
        candidates = [Path("outputs") / name, Path(name)]
        for folder in candidates:
            configs = sorted(folder.glob(f"fold*/{CONFIG}"))
            if configs:
                return cls(folder, load_config([configs[0]], overrides))
        known = ", ".join(sorted({str(p.parent.parent.name) for p in Path("outputs").glob(f"*/fold*/{CONFIG}")}))
        raise CompetitionError(f"{candidates[0]}: no such run; runs here: {known or 'none'}; train one first")

    def fold_folders(self) -> list[Path]:
        """Return the folders of all folds the config asks for, there or not."""
        return [self.folder / f"fold{fold}" for fold in range(self.config.data.num_folds)]

    def finished_folds(self) -> list[Path]:
        """Return the folders of the folds whose training is done; raise CompetitionError if there is none."""
        finished = [folder for folder in self.fold_folders() if (folder / OOF).is_file()]
        if not finished:
            raise CompetitionError(f"{self.folder}: no fold has been trained to its end; run `competition train` first")
        return finished


def remember_config(folder: Path, config: Config) -> None:
    """Write the resolved config into a fold's folder; refuse a folder that holds another config's training."""
    refuse_changed_config(folder, config)
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")


def refuse_changed_config(folder: Path, config: Config) -> None:
    """Raise CompetitionError if a fold's folder holds a config that differs, but for keys that may."""
    path = folder / CONFIG
    if not path.is_file():
        return
    old: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    changes = config_differences(old, yaml.safe_load(dump_config(config)))
    changes = [change for change in changes if change.partition(":")[0] not in ELSEWHERE]
    if changes:
        raise CompetitionError(
            f"{path}: this folder was trained with another config ({'; '.join(changes[:5])}); give this one "
            f"another name (name=...) or delete {folder}"
        )
