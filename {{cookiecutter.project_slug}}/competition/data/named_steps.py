"""The steps of `data.augmentation.more`: transforms of albumentations, policies of torchvision, or the user's own."""

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np

from competition.config.data_settings import LISTS, named_step
from competition.config.faults import nearest, show
from competition.support.errors import CompetitionError
from competition.support.user_file import defined_in

Step = A.BasicTransform | A.BaseCompose
POLICIES = ("RandAugment", "TrivialAugmentWide", "AutoAugment", "AugMix")  # of torchvision; without masks and boxes
# What is done to every image, of validation and test, too; once more here, training images would be others.
DONE_LATER = ("Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToTensor3D")
KEY = "data.augmentation.more"


def build_steps(given: Iterable[Mapping[str, Any]], key: str = KEY) -> list[Step]:
    """Return the transforms of a list; raise CompetitionError for a name or argument that nobody knows."""
    return [_build(*named_step(one), f"{key}.{number}") for number, one in enumerate(given)]


def _build(name: str, arguments: Mapping[str, Any], key: str) -> Step:
    kind = _kind(name, key)
    _check_arguments(kind, name, arguments, key)
    values = {one: tuple(value) if isinstance(value, list) else value for one, value in arguments.items()}
    if name in LISTS:
        values["transforms"] = build_steps(arguments["transforms"], f"{key}.{name}.transforms")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of a value that albumentations goes on without
            return kind(**values)
    except CompetitionError:
        raise
    except Exception as error:  # pydantic's, or any of the user's
        raise CompetitionError(f"{key}: {name}: {_reason(error)}") from None


def _check_arguments(kind: Any, name: str, arguments: Mapping[str, Any], key: str) -> None:
    known = inspect.signature(kind).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values()):
        return  # it takes any
    for argument in arguments:
        if argument not in known:
            raise CompetitionError(f"{key}: {name} takes no {show(argument)}; {_nearest(argument, list(known))}")


def _kind(name: str, key: str) -> Any:
    """Return the class of a transform by its name, or by `FILE.py:NAME`."""
    path, colon, own = name.rpartition(".py:")
    if colon:
        kind = defined_in(Path(f"{path}.py"), own, key, f"class {own}, a transform of albumentations")
        if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform | A.BaseCompose)):
            raise CompetitionError(f"{key}: {path}.py: {own} is no class of a transform of albumentations")
        return kind
    if name in DONE_LATER:
        raise CompetitionError(
            f"{key}: {name} makes images what networks see, which is done to all of them by data.mean and data.std; "
            "leave it out"
        )
    if name in POLICIES:
        return lambda p=1.0, **arguments: Policy(name, arguments, p=p)
    known = {
        one: kind
        for one, kind in vars(A).items()
        if isinstance(kind, type)
        and (issubclass(kind, A.BasicTransform) or one in LISTS)
        and kind not in (A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D)
    }
    if name not in known:
        raise CompetitionError(
            f"{key}: {show(name)} is no transform of albumentations; {_nearest(name, [*known, *POLICIES])}"
        )
    return known[name]


def changes_values(steps: Sequence[Step]) -> bool:
    """Return whether any of the steps changes values and not places only: floats would be cut off at 0 and 1."""
    return any(isinstance(step, A.ImageOnlyTransform) for step in _leaves(steps))


def _leaves(steps: Sequence[Any]) -> Iterator[Any]:
    for step in steps:
        yield from _leaves(step.transforms) if isinstance(step, A.BaseCompose) else [step]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"known are {', '.join(known[:12])} ..."


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class Policy(A.DualTransform):
    """A policy of torchvision, as RandAugment: it moves images, too, so that it is for classes only."""

    def __init__(self, name: str, arguments: Mapping[str, Any], p: float = 1.0) -> None:
        super().__init__(p=p)
        from torchvision.transforms import v2

        kind = getattr(v2, name)
        _check_arguments(kind, name, arguments, KEY)
        self.name, self.policy = name, kind(**arguments)

    def get_params(self) -> dict[str, Any]:
        """Draw a seed from what all steps draw on: the policy itself draws on torch's generator."""
        return {"seed": self.py_random.getrandbits(63)}

    def apply(self, img: np.ndarray, seed: int, **params: Any) -> np.ndarray:
        """Change an image (H, W, 1 or 3), uint8."""
        import torch

        if img.dtype != np.uint8 or img.shape[2] not in (1, 3):
            raise CompetitionError(
                f"{KEY}: {self.name} takes images of 8 bit and 1 or 3 channels; found {img.dtype}, {img.shape[2]}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            changed = self.policy(torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1))))
        return np.ascontiguousarray(changed.numpy().transpose(1, 2, 0))

    def apply_to_mask(self, mask: np.ndarray, **params: Any) -> np.ndarray:
        """Refuse what would not follow."""
        raise CompetitionError(f"{KEY}: {self.name} is for classes: masks do not follow it; take albumentations' own")

    def apply_to_bboxes(self, bboxes: np.ndarray, **params: Any) -> np.ndarray:
        """Refuse what would not follow."""
        raise CompetitionError(f"{KEY}: {self.name} is for classes: boxes do not follow it; take albumentations' own")

    def apply_to_keypoints(self, keypoints: np.ndarray, **params: Any) -> np.ndarray:
        """Refuse what would not follow."""
        raise CompetitionError(f"{KEY}: {self.name} is for classes: points do not follow it; take albumentations' own")
