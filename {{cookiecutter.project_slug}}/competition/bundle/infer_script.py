"""What `infer.py` and `infer.ipynb` of a bundle do. What the bundle brings along is imported before anything else."""

import sys
from pathlib import Path

from competition.bundle.manifest import SCRIPT, WHEELS, check_code
from competition.support.errors import CompetitionError


def main(folder: Path, data: Path | None = None, asked: Path | None = None, *what: Path) -> None:
    """Do as `offline.infer` or, where images are `asked` about, as `found.say`; what is wrong is told in a line, as by
    `competition`."""
    if data in (Path("-h"), Path("--help")):
        print(sys.modules["__main__"].__doc__)
        return
    try:
        infer(folder, data, asked, *what)
    except CompetitionError as error:
        sys.exit(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "competition").partition(".")[0]
        if package == "competition":
            raise  # no fault of the environment
        sys.exit(_what_lacks(package, folder))


def infer(folder: Path, data: Path | None = None, asked: Path | None = None, *what: Path) -> None:
    """Do as `main`, but look first at what would be imported; packages in wheels/ stand for those that are
    installed in another version."""
    check_code(folder)
    from competition.bundle.wheels import import_wheels

    import_wheels(folder / WHEELS)
    if asked is not None:
        from competition.bundle.found import say

        say(folder, data, asked, [str(one) for one in what])
        return
    from competition.bundle import offline

    offline.infer(folder, data)


def _what_lacks(package: str, folder: Path) -> str:
    """Say where there is what the interpreter lacks; what lies in wheels/ was imported without being installed."""
    wheels = folder / WHEELS
    brought = f"{wheels} only has what Kaggle's image lacks" if wheels.is_dir() else f"the bundle has no {WHEELS}/"
    return (
        f"{sys.executable}: the package {package} is not installed here, and {brought}; start {SCRIPT} on Kaggle, or "
        f"in this project's environment: `uv run python {folder / SCRIPT}`"
    )
