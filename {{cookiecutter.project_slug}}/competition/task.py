"""A task type: the modules in its folder, found by name, so that a new task type is a new folder.

What each module must have is said in contract.py, in the order of an item's life, and in contract_aids.py.
"""

import importlib
from dataclasses import dataclass
from typing import Generic, Self, TypeVar, cast, overload

from competition.contract import (
    DatasetModule,
    DecodeModule,
    Evidence,
    Joining,
    LossModule,
    ModelModule,
    Prediction,
    PredictionModule,
    ScoreModule,
    SubmissionModule,
    Table,
    TableModule,
    Target,
    WindowsModule,
)
from competition.contract_aids import (
    MadeUpModule,
    Outcome,
    OutcomeModule,
    Part,
    PictureModule,
    PresenceModule,
    PseudoLabelsModule,
    RecogniseModule,
    Scored,
    Search,
    SummaryModule,
    TuningModule,
)

__all__ = ["Evidence", "Joining", "Outcome", "Part", "Prediction", "Scored", "Search", "Table", "Target", "Task"]

Contract = TypeVar("Contract")


class Module(Generic[Contract]):
    """A module of a task's folder that has the functions of a contract, imported when first used."""

    def __init__(self, contract: type[Contract]) -> None:
        self.contract = contract

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, task: None, owner: type) -> Self: ...

    @overload
    def __get__(self, task: "Task", owner: type) -> Contract: ...

    def __get__(self, task: "Task | None", owner: type) -> "Self | Contract":
        """Return the module of a task."""
        if task is None:
            return self
        return cast(Contract, importlib.import_module(f"competition.tasks.{task.name}.{self.name}"))


@dataclass(frozen=True)
class Task:
    """The modules of one task type."""

    name: str

    # The life of an item: contract.py.
    table = Module(TableModule)
    dataset = Module(DatasetModule)
    model = Module(ModelModule)
    loss = Module(LossModule)
    prediction = Module(PredictionModule)
    windows = Module(WindowsModule)
    decode = Module(DecodeModule)
    score = Module(ScoreModule)
    submission = Module(SubmissionModule)

    # To tune, compare and look: contract_aids.py.
    presence = Module(PresenceModule)
    summary = Module(SummaryModule)
    recognise = Module(RecogniseModule)
    tuning = Module(TuningModule)
    pseudo_labels = Module(PseudoLabelsModule)
    picture = Module(PictureModule)
    outcome = Module(OutcomeModule)
    made_up = Module(MadeUpModule)
