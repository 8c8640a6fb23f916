"""What may stand in `optimizer:` and `scheduler:`: how weights learn, and at which rate."""

from typing import Annotated, Any, Literal

from pydantic import Field

from competition.config.section import Count, Positive, Probability, Section

WITHOUT_DECAY = ("Rprop", "SparseAdam", "LBFGS")  # of torch: they pass over a decay that a group of weights has
OF_COURSES = {  # keys of the learning rate that only some courses go by
    "power": ("poly",),
    "milestones": ("step",),
    "gamma": ("step", "plateau"),
    "patience": ("plateau",),
    "cycles": ("restarts",),
    "growth": ("restarts",),
    "hold": ("flat",),
}


class Optimizer(Section):
    """Settings of the optimizer, of timm by its name there (adamw, sgd, lion, muon, adopt) or of torch (NAdam).

    Or schedulefree_adamw, schedulefree_sgd, schedulefree_radam (Defazio et al. 2024): the package is an extra.
    """

    name: Annotated[str, Field(min_length=1)] = "adamw"
    lr: Positive = 1e-3
    lr_batch_size: Count | None = None  # the batch that `lr` is for, where `data.batch_size: auto` finds another
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2  # not of biases, norms and what a network names itself
    arguments: dict[str, Any] = {}  # further ones, as {betas: [0.9, 0.95]}
    encoder_lr: Positive = 1.0  # what the encoder's learning rate is of the others'
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # of each layer of the encoder against the one behind it

    @property
    def is_schedule_free(self) -> bool:
        """Whether it averages the weights itself, in place of a learning rate that falls."""
        return self.name.startswith("schedulefree_")

    def reasons_unused(self) -> dict[str, str]:
        """Describe a decay of weights that the optimizer does not do; a zero says so itself."""
        if self.name not in WITHOUT_DECAY or not self.weight_decay or self.is_usual("weight_decay"):
            return {}
        return {"optimizer.weight_decay": f"is not of {self.name}, which lets weights be"}


class Scheduler(Section):
    """Learning rate by step: warm-up, then the named course from the peak down."""

    name: Literal["cosine", "linear", "constant", "poly", "step", "plateau", "onecycle", "restarts", "flat"] = (
        "flat"  # `train --preview` draws it
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of all steps
    final: Probability = 0.01  # last learning rate as a share of the peak, below which none falls
    power: Positive = 0.9  # poly
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = [0.6, 0.85]  # step: shares of the way behind the warm-up
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1  # step, plateau: what a fall leaves
    patience: Count = 3  # plateau: validations without a better `checkpoint.monitor` before it falls
    cycles: Annotated[int, Field(ge=1, le=1000)] = 3  # restarts
    growth: Annotated[float, Field(ge=1, le=10)] = 1.0  # restarts: length of a cycle against the one before
    hold: Annotated[float, Field(ge=0, lt=1)] = 0.7  # flat: share of the way at the peak

    def reasons_unused(self) -> dict[str, str]:
        """Describe keys of other courses that are not as usual."""
        return {
            f"scheduler.{key}": f"is of {' and '.join(courses)}, and scheduler.name is {self.name}"
            for key, courses in OF_COURSES.items()
            if self.name not in courses and not self.is_usual(key)
        }
