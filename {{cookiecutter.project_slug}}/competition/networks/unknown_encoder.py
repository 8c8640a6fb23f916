"""What is said of an encoder that is not there, before a training and when the network is built. No torch."""

import difflib
from collections.abc import Iterable, Sequence

from competition.support.errors import CompetitionError

TIMM, SMP = "timm", "segmentation_models_pytorch"  # packages of encoders


def unknown_encoder(name: str, packages: Sequence[str], known: Iterable[str]) -> CompetitionError:
    """Return what is said of an encoder that no package has, with the nearest of the known names."""
    near = difflib.get_close_matches(name.removeprefix("tu-"), sorted(known), n=3, cutoff=0.5)
    return CompetitionError(
        f"model.encoder: {name!r} is no encoder of {' or '.join(packages)}; nearest: {', '.join(near) or 'none'}"
    )
