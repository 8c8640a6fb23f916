"""Whether there is an encoder of the name that a config has: read from the sources of its package, without torch."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from competition.config.settings import Config
from competition.networks.unknown_encoder import SMP, TIMM, unknown_encoder

FUNCTION, QUOTED = re.compile(r"^def (\w+)\(", re.MULTILINE), re.compile(r"[\"']([\w.-]+)[\"']")


def refuse_unknown_encoder(config: Config) -> None:
    """Raise CompetitionError with the nearest names where no source of timm, nor of the package of decoders, has that
    of the encoder; where one has, building the network tells whether it is one."""
    model = config.model
    if model.encoder not in model.network_name or ":" in model.encoder:  # it has another backbone, or is of the hub
        return
    places = [(TIMM, "models")]
    if model.knows_other_encoders:
        places.append((SMP, "encoders"))
    found = [_names_in(*place) for place in places]
    name = model.encoder.removeprefix("tu-")
    if not all(found) or any({name, name.partition(".")[0]} & names for names in found):
        return
    raise unknown_encoder(model.encoder, [package for package, _ in places], set[str]().union(*found))


@cache
def _names_in(package: str, folder: str) -> frozenset[str]:
    """Return the functions and quoted names in the sources of a package's folder; none where it is not installed."""
    spec = find_spec(package)
    places = [] if spec is None else spec.submodule_search_locations or []
    sources = [path.read_text(encoding="utf-8") for place in places for path in (Path(place) / folder).glob("*.py")]
    return frozenset(name for text in sources for name in [*FUNCTION.findall(text), *QUOTED.findall(text)])
