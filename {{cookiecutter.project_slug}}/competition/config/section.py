"""What the sections of a config are made of."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
MOST_PIXELS = 1 << 26  # of what a network sees at once: 8192 x 8192
IN_BRACES = re.compile(r"\{([^{}]+)\}")
# A field of a file's name: a name, maybe a part of its text, [0] or [:3], maybe padded, as :0>5 is with zeros.
FIELD = re.compile(
    r"(?P<name>[^\W\d][\w .-]*)(\[(?P<from>-?\d+|(?=:))(?P<colon>:(?P<to>-?\d*))?\])?"
    r"(:(?P<fill>[^{}])(?P<align>[<>^])(?P<width>\d{1,3}))?"
)


class Section(BaseModel):
    """A part of the config: knows all its keys, never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    def is_usual(self, key: str) -> bool:
        """Return whether a key has the value that it has by itself."""
        return getattr(self, key) == self.usual(key)

    @classmethod
    def usual(cls, key: str) -> Any:
        """Return the value that a key has by itself."""
        return cls.model_fields[key].get_default(call_default_factory=True)


class Distil(Section):
    """Learn what another run says of an image, beside what is true of it (Hinton et al. 2015).

    That is what it said of a training image out of fold, by networks that have not seen it. Of a test image that is a
    pseudo-label it is what the fold's own networks say, where `pseudo` has asked them, else the mean of all. Maps of
    masks move with the image, and are learnt pixel by pixel.
    """

    run: Annotated[str, Field(min_length=1)]  # its name, or its folder
    weight: Positive = 0.5
    temperature: Positive = 2.0  # flattens probabilities of both; over 1, classes that are unlikely teach, too


class Losses(Section):
    """Weights of losses that are added up: a task's own by name, the user's by file, as `my_loss.py: 0.5`."""

    has_teachers: ClassVar[bool] = False  # whether the task can learn from another run
    parameters: ClassVar[dict[str, str]] = {}  # of one loss alone, by their names
    distil: Distil | None = None
    files: dict[str, Annotated[float, Field(ge=0)]] = {}  # each defines image_losses(outputs, batch)

    @model_validator(mode="before")
    @classmethod
    def _files_apart(cls, given: Any) -> Any:
        files = {key: given[key] for key in given if str(key).endswith(".py")} if isinstance(given, dict) else {}
        if not files:
            return given
        rest = {key: value for key, value in given.items() if key not in files}
        return rest | {"files": (rest.get("files") or {}) | files}

    def reasons_unused(self, where: str) -> dict[str, str]:
        """Describe, by key, parameters that are not as usual and of losses that are left out; `where` this section
        stands, as "loss.". No fault of a config: a run that was trained so is still what it is."""
        return {
            f"{where}{key}": f"is of {loss}, which {where}{loss} gives no weight"
            for key, loss in self.parameters.items()
            if not self.is_usual(key) and not getattr(self, loss)
        }

    @field_validator("distil")
    @classmethod
    def _can_be_taught(cls, distil: Distil | None) -> Distil | None:
        if distil is not None and not cls.has_teachers:
            raise ValueError(
                "only classes and masks are learnt from what another run says: it stores the boxes or points that it "
                "found, and nothing of all other places, which a network would learn from; leave it out, or take "
                "data.pseudo, by which they become labels"
            )
        return distil


def names_in(pattern: str) -> list[str]:
    """Return what stands in braces in a pattern, in order; raise ValueError for a brace that is not one of a pair."""
    if re.search(r"[{}]", IN_BRACES.sub("", pattern)):
        raise ValueError("expected names in pairs of braces, as '{image_id}', and no other brace")
    return IN_BRACES.findall(pattern)


def field_pattern(pattern: str) -> str:
    """Return a pattern of file names; raise ValueError for one without fields, or with others than `FIELD`."""
    names = names_in(pattern)
    if not names:
        raise ValueError("expected a field in braces, as '{image_id}.png'")
    if odd := next((name for name in names if not FIELD.fullmatch(name)), None):
        raise ValueError(
            f"{{{odd}}} is no field; expected a name, as {{image_id}}, a part of it, as {{image_id[0]}}, or one "
            "padded, as {image_id:0>5}"
        )
    return pattern
