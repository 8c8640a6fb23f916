"""What is told of Kaggle's refusals, in a line: made from a status and Kaggle's own words. No torch."""

import re
from typing import Any

from competition.places import ADDRESS

CREDENTIALS = (
    "make a token at https://www.kaggle.com/settings/api and put it into ~/.kaggle/access_token, into the environment "
    "as KAGGLE_API_TOKEN, or as kaggle.json into ~/.kaggle/"
)
NAME = re.compile(r"[A-Za-z0-9-]+")


def unreachable(error: Exception) -> str:
    """Say that the service cannot be reached."""
    # Not its text, which holds the whole address.
    kind = type(error).__name__
    return f"Kaggle cannot be reached ({kind}); is there a network, and does a notebook have internet on?"


def told_by_status(error: Any, subject: str) -> str:
    """Say what a status of the service means and what to do; `error` is an HTTPError of requests."""
    response = error.response
    status = response.status_code if response is not None else 0
    is_competition = NAME.fullmatch(subject) is not None
    if status == 401:
        return f"Kaggle refuses the credentials (401); {CREDENTIALS}"
    if status == 403 and is_competition:
        told = f"join the competition and accept its rules at {ADDRESS}{subject}/rules"
    elif status == 403:
        told = f"{subject} is not yours to change; is its owner your account?"
    elif status == 404 and is_competition:
        told = "it is the last part of the competition's address; give another with --competition NAME"
    elif status == 404:
        told = "there is nothing of that name"
    elif status == 429:
        told = f"too many requests; start again {_when(response.headers.get('Retry-After'))}"
    elif status >= 500:
        told = "the fault is on Kaggle's side; try again later"
    else:
        told = f"see {ADDRESS}{subject}; a code competition takes notebooks alone"
        told = told if is_competition else "see its metadata in the bundle"
    return f"Kaggle refuses {subject} ({status}){_own_words(response)}; {told}"


def _own_words(response: Any) -> str:
    """Return the message of the service, which is no part of the web address, after a colon."""
    try:
        words = one_line(str(response.json()["message"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {words}" if words else ""


def _when(retry_after: str | None) -> str:
    return f"in {retry_after} seconds" if retry_after and retry_after.isdigit() else "in some minutes"


def one_line(text: str | None) -> str:
    """Put text on one line of at most 200 characters, and cut what follows `?` in web addresses: it may be signed."""
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", " ".join((text or "").split()))[:200]
