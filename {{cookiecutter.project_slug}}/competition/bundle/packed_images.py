"""Test images that a host hands out in an archive, of which a bundle reads no file. No torch."""

from pathlib import Path

from competition.checking.competition_files import ARCHIVES
from competition.config.data_settings import Data
from competition.support.errors import CompetitionError

OF_ARRAYS = (".json", ".bson")  # whose images `competition unpack` writes to NAME_images


def describe_packed(data: Data) -> list[str]:
    """Return a line on the archive that test images were unpacked from here: the hidden ones may come so, too."""
    return [
        f"{path}: test images were unpacked from it; a notebook in which they come so unpacks them before infer.py, "
        "which reads files alone"
        for path in _archives_of_test(data)
        if (data.dir / data.test_images).is_dir()
    ]


def refuse_packed(data: Data) -> None:
    """Raise CompetitionError where there is no folder of test images but an archive that may hold them."""
    found = _archives_of_test(data)
    if found and not (data.dir / data.test_images).is_dir():
        raise CompetitionError(
            f"{found[0]}: test images are packed in it, and {data.test_images}/ is not beside it; unpack it into a "
            "folder that has the csv files, too, and name that: infer.py FOLDER"
        )


def _archives_of_test(data: Data) -> list[Path]:
    """Return the archives that are called as the folder of test images."""
    top = next(iter(Path(data.test_images).parts), "")
    names = [f"{top}{ending}".lower() for ending in ARCHIVES]
    names += [f"{top.removesuffix('_images')}{ending}" for ending in OF_ARRAYS if top.endswith("_images")]
    return [path for path in sorted(data.dir.glob("*")) if path.name.lower() in names and path.is_file()]
