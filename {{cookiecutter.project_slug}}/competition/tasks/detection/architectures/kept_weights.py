"""How much of a published detector's weights was kept: another number of classes begins with new heads."""

from collections.abc import Collection

from torch import nn

from competition.networks.pretrained import COUNTER, GO_ON, State, by_names_of, for_channels
from competition.support.errors import CompetitionError
from competition.tasks.detection.settings import DetectionModel


def keep(network: nn.Module, found: State, model: DetectionModel, channels: int) -> str:
    """Load what fits a whole detector of a file's tensors, or torchvision's, by their names; return a line for people.

    Raises CompetitionError where most do not fit.
    """
    own = network.state_dict()
    named = by_names_of(found, own)
    fitting = {name: for_channels(value, own[name], channels) for name, value in named.items()}
    fitting = {name: value for name, value in fitting.items() if value.shape == own[name].shape}
    source = "torchvision" if model.pretrained is True else str(model.pretrained)
    line = note(network, {*own} - {*fitting}, model, source)
    network.load_state_dict(fitting, strict=False)
    return line


def note(network: nn.Module, lost: Collection[str], model: DetectionModel, source: str) -> str:
    """Say how many tensors were kept where those called `lost` were not; raise CompetitionError where most were not.

    Two names of the same tensor count as one, which is kept if it was found under one of them.
    """
    names: dict[int, list[str]] = {}
    for name, value in network.state_dict().items():
        if not name.endswith(COUNTER):
            names.setdefault(value.data_ptr() if value.numel() else id(value), []).append(name)
    anew = [each[0] for each in names.values() if all(name in lost for name in each)]
    kept, what = len(names) - len(anew), f"{len(names)} tensors of {model.network_name}"
    if 2 * kept <= len(names):
        raise CompetitionError(
            f"model.pretrained: {source}: {kept} of {what} fit; there is no {anew[0]} of its shape nor "
            f"{len(anew) - 1} more; {GO_ON}"
        )
    heads = sorted({name.removesuffix(".weight").removesuffix(".bias") for name in anew})
    said = f", anew: {', '.join(heads[:3])}" + (f" and {len(heads) - 3} more" if heads[3:] else "") if heads else ""
    return f"model.pretrained: {kept} of {what} kept{said}, from {source}"
