"""`competition download [CONFIG]`: a competition's files from Kaggle into data/, unpacked and checked. No torch."""

from pathlib import Path

from competition.config import load_config
from competition.errors import CompetitionError
from competition.kaggle_api import KaggleService, competition_name
from competition.places import here
from competition.settings import Config
from competition.unpack import unpack


def download(configs: list[Path], overrides: list[str], competition: str | None = None) -> list[str]:
    """Download into `data.dir` of the config, or data/ without one; return lines that say what is there.

    Started again after it broke off, it goes on.
    """
    if overrides and not configs:
        raise CompetitionError(f"{overrides[0]}: a value needs a config to stand in; name one before it")
    config = load_config(configs, overrides) if configs else None
    folder = here().data(Path("data")) if config is None else config.data.dir
    name = competition_name(competition)
    archive = folder / f"{name}.zip"
    if folder.is_dir() and any(folder.iterdir()) and not archive.exists():
        raise CompetitionError(
            f"{folder}: is not empty; move it away, or name another folder with a config and data.dir=FOLDER"
        )
    service = KaggleService()
    folder.mkdir(parents=True, exist_ok=True)
    archive = service.download(name, folder)
    files = unpack(archive, folder)
    archive.unlink()
    size = sum(file.stat().st_size for file in files) / 1e6
    lines = [f"{folder}: {len(files)} files of {name}, {size:.1f} MB, unpacked, checksums compared"]
    return [*lines, *_next_steps(folder, config, configs)]


def _next_steps(folder: Path, config: Config | None, configs: list[Path]) -> list[str]:
    """Name what the config expects and is not there, and the command that looks at everything."""
    there = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    lines = []
    if config is not None:
        data = config.data
        expected = {
            "train_csv": data.train_csv,
            "sample_submission": data.sample_submission,
            "train_images": data.train_images,
            "test_images": data.test_images,
        }
        absent = [f"data.{key} ({name})" for key, name in expected.items() if not (folder / name).exists()]
        if absent:
            lines.append(f"not there: {', '.join(absent)}; set these keys to the names of: {', '.join(there[:20])}")
    else:
        lines.append(f"there: {', '.join(there[:20])}")
    return [*lines, f"next: competition check {' '.join(map(str, configs)) or 'CONFIG'}"]
