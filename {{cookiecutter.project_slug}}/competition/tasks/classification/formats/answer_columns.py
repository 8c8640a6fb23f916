"""Which columns of a submission hold the answers. No torch."""

from collections.abc import Sequence

from competition.files.csv_file import UNNAMED, read_header
from competition.files.joined_tables import has_table
from competition.support.errors import CompetitionError
from competition.tasks.classification.formats.answers import parted
from competition.tasks.classification.formats.cells import is_text, number_of_cells
from competition.tasks.classification.kinds.heads import handed_in, head_classes
from competition.tasks.classification.settings import TaskConfig


def value_columns(config: TaskConfig, classes: Sequence[str]) -> list[str]:
    """Return the columns beside the ids: those of the classes, or the only one the sample has."""
    sample, form = config.sample_submission, config.format
    layout = form.submission.layout
    for name, one in handed_in(config).items():
        _refuse_torn(one, head_classes(classes, name) if name else classes)
    # Without a sample `read_csv` says what is missing.
    header = [name.strip() for name in read_header(sample)] if has_table(sample) else []
    others = [name for name in header if name not in form.submission_keys and not is_kept(config, name)]
    is_table = layout == "columns" and len(classes) > 1
    if form.targets:
        expected = _columns_of_several(config, classes, others)
        is_table = len(expected) > 1
    else:
        expected = list(classes) if is_table else others[:1] or ["answer"]
    extra = [name for name in others if name not in expected]
    if extra and set(form.submission_keys) <= set(header) and set(expected) <= set(header):
        known = (
            f"{'' if form.targets else 'the classes '}{', '.join(expected)}"
            if is_table
            else "a single column of answers"
        )
        raise CompetitionError(
            f"{sample}: found column {extra[0]!r}; expected {', '.join(form.submission_keys)} and {known}; to hand it "
            f"in as it is: format.submission.keep='[{extra[0]}]'"
        )
    return expected


def is_kept(config: TaskConfig, name: str) -> bool:
    return UNNAMED.fullmatch(name) is not None or name in config.format.submission.keep


def _refuse_torn(config: TaskConfig, classes: Sequence[str]) -> None:
    """Raise CompetitionError for a class whose name has what parts the classes of a cell."""
    form, layout = config.format, config.format.submission.layout
    separator = form.submission_separator
    torn = next((name for name in classes if parted(name, separator) != [name]), None)
    if torn is not None and layout in ("label_string", "top", "boxes"):
        what = "blanks" if separator == " " else repr(separator)
        raise CompetitionError(
            f"format.submission.layout {layout}: class {torn!r} has {what}; they part the classes: name it "
            "otherwise by format.submission.names"
        )


def _columns_of_several(config: TaskConfig, classes: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the columns of several targets: of a row each the classes that all have, or the only one there is; else
    those of one after the other, a target that is handed in as one text or number under its own name, the classes of
    others under theirs or under target_class."""
    own = {name: (one, head_classes(classes, name)) for name, one in handed_in(config).items()}
    if config.format.submission.layout == "rows":
        each = {name: known if number_of_cells(one, known) > 1 else [] for name, (one, known) in own.items()}
        if odd := next((name for name in each if each[name] != next(iter(each.values()))), None):
            raise CompetitionError(
                f"format.targets.{odd}: rows of a submission have the same columns, and its classes are "
                f"{', '.join(own[odd][1])}; {next(iter(own))} has {', '.join(next(iter(own.values()))[1])}"
            )
        return next(iter(each.values())) or list(others[:1]) or ["answer"]
    columns = []
    for name, (one, known) in own.items():
        if number_of_cells(one, known) == 1:
            columns.append(known[0] if known[0] in others and not is_text(one) else name)
        else:
            columns += known if set(known) <= set(others) else [f"{name}_{each}" for each in known]
    return columns
