"""`trainer.max_time`: of one training, or of all that `competition run` starts. No torch."""

from datetime import timedelta
from typing import Any

from competition.support.errors import CompetitionError


def parse_max_time(value: Any) -> float:
    """Return seconds of `DD:HH:MM:SS` or of a mapping as `{hours: 8}`; infinity for none, as Lightning reads it."""
    if value is None:
        return float("inf")
    try:
        if isinstance(value, str):
            days, hours, minutes, seconds = (int(part) for part in value.split(":"))
            value = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        return timedelta(**value).total_seconds()
    except (TypeError, ValueError):
        raise CompetitionError(
            f"trainer.max_time: found {value!r}; expected DD:HH:MM:SS, as '00:08:30:00', or {{hours: 8, minutes: 30}}"
        ) from None


def time_left(max_time: Any, seconds: float) -> str:
    """Return what is left of a time limit after so many seconds, in the form of `trainer.max_time`."""
    left = max(int(parse_max_time(max_time) - seconds), 0)
    days, hours = divmod(left // 3600, 24)
    return f"{days:02}:{hours:02}:{left // 60 % 60:02}:{left % 60:02}"
