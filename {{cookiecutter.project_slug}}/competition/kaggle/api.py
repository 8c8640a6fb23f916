"""All that knows the `kaggle` package: signing in, downloading, sending, asking for scores, its refusals. No torch."""

import io
import json
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from competition.runs.public_scores import PublicScore
from competition.support.atomic_files import replacing
from competition.support.errors import CompetitionError
from competition.support.paths import ADDRESS, competition_in
from competition.support.progress import has_bars

CREDENTIALS = (
    "make a token at https://www.kaggle.com/settings/api and put it into ~/.kaggle/access_token, into the environment "
    "as KAGGLE_API_TOKEN, or as kaggle.json into ~/.kaggle/"
)
UNDER_WAY = {"queued", "running", "new_script", "cancel_requested"}  # statuses of a session that has not ended
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


INSTALL = "uv sync --extra kaggle"
POLL = 5.0  # seconds between two questions after a session
DATASET_WAIT = 900.0  # seconds that Kaggle may take to unpack what was sent


def competition_name(given: str | None = None) -> str:
    """Return the competition's name on Kaggle: as given, or from the address in pyproject.toml.

    Raises CompetitionError if there is none.
    """
    name = given.removeprefix(ADDRESS).strip("/") if given is not None else competition_in(Path("pyproject.toml"))
    if name is None:
        raise CompetitionError(
            f"pyproject.toml: project.urls.Competition does not name a competition; expected {ADDRESS}NAME, or give "
            "--competition NAME"
        )
    if not NAME.fullmatch(name):
        raise CompetitionError(
            f"--competition: found {name!r}; expected the last part of the competition's address, as in {ADDRESS}NAME"
        )
    return name


class KaggleService:
    """Kaggle, signed in to as the user. Every failure is a CompetitionError of one line."""

    def __init__(self) -> None:
        self._api = _sign_in()

    @property
    def user(self) -> str:
        """Name of the account."""
        return str(self._api.config_values["username"])

    def holds_credentials(self, content: bytes) -> bool:
        """Return whether a file's content has the secret part of the credentials in it."""
        return any(secret.encode() in content for secret in self._secrets())

    def download(self, competition: str, folder: Path) -> Path:
        """Download all files of a competition as one zip file; a download that broke off goes on."""
        with self._told(competition):
            self._api.competition_download_files(competition, path=str(folder), quiet=not has_bars())
        archive = folder / f"{competition}.zip"
        if not archive.is_file():
            raise CompetitionError(
                f"Kaggle: sent no zip file of {competition}; download it by hand: {ADDRESS}{competition}/data"
            )
        return archive

    def submit(self, competition: str, file: Path, message: str) -> int:
        """Send a submission and return Kaggle's number for it."""
        with self._told(competition):
            answer = self._api.competition_submit(str(file), message, competition, quiet=not has_bars())
        # The package returns this failure as if it were an answer.
        if answer.message.startswith("Could not submit"):
            raise CompetitionError(f"Kaggle: {file} could not be uploaded; check the network and start again")
        return answer.ref

    def public_scores(self, competition: str) -> list[PublicScore]:
        """Return the newest 100 submissions of the user's team and their scores, as far as they are there."""
        with self._told(competition):
            found = self._api.competition_submissions(competition, page_size=100)
        return [
            PublicScore(
                ref=one.ref,
                date=one.date.isoformat(timespec="seconds") if one.date else "",
                file=one.file_name,
                message=one.description,
                status=one.status.name.lower(),
                public_score=one.public_score,
                private_score=one.private_score,
                error=one_line(one.error_description),
            )
            for one in found or []
            if one is not None
        ]

    def push_dataset(self, name: str, folder: Path, notes: str) -> str:
        """Send a folder with dataset-metadata.json as dataset OWNER/NAME, or as its next version; return its address.

        The dataset is private. Folders in it travel as zip files; when this returns, Kaggle has unpacked them.
        """
        is_there = self._dataset_status(name) is not None
        before = self._dataset_version(name) if is_there else None
        with self._told(name):
            if is_there:
                answer = self._api.dataset_create_version(str(folder), notes, quiet=not has_bars(), dir_mode="zip")
            else:
                answer = self._api.dataset_create_new(str(folder), public=False, quiet=not has_bars(), dir_mode="zip")
        if answer.error:
            raise CompetitionError(f"Kaggle: dataset {name} was refused: {one_line(answer.error)}")
        self._wait_for_dataset(name, before)
        return answer.url or f"https://www.kaggle.com/datasets/{name}"

    def push_notebook(self, name: str, folder: Path) -> str:
        """Send the notebook of a folder with kernel-metadata.json, which starts it; return its address."""
        with self._told(name):
            answer = self._api.kernels_push(str(folder))
        missing = [*answer.invalid_dataset_sources, *answer.invalid_competition_sources, *answer.invalid_kernel_sources]
        if answer.error or missing:
            fault = answer.error or f"it lacks its sources {', '.join(missing)}"
            raise CompetitionError(f"Kaggle: notebook {name}: {one_line(fault)}; see {folder}/kernel-metadata.json")
        return answer.url or f"https://www.kaggle.com/code/{name}"

    def notebook_status(self, name: str) -> str | None:
        """Return how far the newest session of a notebook is, as `running`; None if the user has no such notebook."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = name.split("/")
        with self._told(name), self._api.build_kaggle_client() as client:
            ask = client.kernels.kernels_api_client.get_kernel_session_status
            found = self._unless_hidden(name, lambda: ask(request))
        return found and found.status.name.lower()

    def notebook_files(self, name: str) -> dict[str, str]:
        """Return the files that a session which has ended left, by name, and the addresses they have for a while."""
        files: dict[str, str] = {}
        page = ""
        with self._told(name):
            while True:
                answer = self._outputs(name, page)
                files |= {one.file_name: one.url for one in answer.files or [] if one is not None}
                page = answer.next_page_token
                if not page:
                    return files

    def _outputs(self, name: str, page: str = "") -> Any:
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        request = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = name.split("/")
        request.page_size, request.page_token = 100, page
        with self._api.build_kaggle_client() as client:
            return client.kernels.kernels_api_client.list_kernel_session_output(request)

    def fetch_file(self, address: str, target: Path) -> None:
        """Download a file of a notebook; a part of it is never met under its name."""
        import requests

        with self._told(target.name), replacing(target) as temporary, temporary.open("wb") as written:
            # Not the package's own way, which before 2.2 takes a page of an error, or half a file, for the file.
            with requests.get(address, stream=True, timeout=300) as answer:
                answer.raise_for_status()
                for block in answer.iter_content(1 << 20):
                    written.write(block)
                expected = answer.headers.get("Content-Length")
            if expected is not None and "Content-Encoding" not in answer.headers and written.tell() != int(expected):
                raise requests.exceptions.ConnectionError

    def follow_notebook(self, name: str) -> Generator[str, None, str]:
        """Yield the lines of the log of a notebook's session until it has ended; return how it ended."""
        said = 0
        while True:
            status = self.notebook_status(name)
            is_over = status not in UNDER_WAY
            if is_over or status == "running":
                # After a break the log is told from its beginning.
                for number, event in enumerate(self._log(name, is_over=is_over)):
                    if number >= said:
                        said = number + 1
                        yield str(event.get("data", "")).rstrip("\n")
            if is_over:
                return status or "deleted"
            time.sleep(POLL)

    def _log(self, name: str, *, is_over: bool) -> Iterator[Any]:
        """Yield what a session has said: while it goes on only where the package tells it, from 2.2 on."""
        from requests.exceptions import RequestException

        try:
            if hasattr(self._api, "kernels_logs_stream"):
                yield from self._api.kernels_logs_stream(name)
            elif is_over:
                yield from _events(self._outputs(name).log)
        except (RequestException, ValueError):  # the connection broke off, or there is nothing yet
            return

    def gpu_quota(self) -> str | None:
        """Say how much of the week's GPU hours is used; None where the package (before 2.2) or Kaggle does not tell."""
        if not hasattr(self._api, "quota_view"):
            return None
        try:
            with self._told("the GPU quota"):
                found = self._api.quota_view()
        except CompetitionError:  # of no consequence for what was asked
            return None
        if found.gpu_quota is None or found.gpu_quota.total_time_allowed is None:
            return None
        used, allowed = found.gpu_quota.time_used, found.gpu_quota.total_time_allowed
        hours = [(one.total_seconds() if one else 0) / 3600 for one in (used, allowed)]
        renewed = f", anew on {found.quota_refresh_time:%Y-%m-%d}" if found.quota_refresh_time else ""
        return f"GPU hours of this week: {hours[0]:.1f} of {hours[1]:.0f} used{renewed}"

    def _wait_for_dataset(self, name: str, before: object) -> None:
        """Return when Kaggle has unpacked a dataset: a notebook that asks earlier gets the version `before`, if any.

        For a while after a version was sent Kaggle may still tell of the one before it, which is ready.
        """
        end, pause = time.monotonic() + DATASET_WAIT, 0.5
        while True:
            # Before its status: what is told of the new version is told after it has become the current one.
            is_new = before is None or self._dataset_version(name) not in {None, before}
            status = self._dataset_status(name)
            if is_new and status == "ready":
                return
            if status in {"failed", "deleted"}:
                raise CompetitionError(
                    f"Kaggle: dataset {name}: {status}; see https://www.kaggle.com/datasets/{name} and push again"
                )
            if time.monotonic() > end:
                found = (status or "not there yet") if is_new else "its version before is the current one"
                raise CompetitionError(
                    f"Kaggle: dataset {name} is still being unpacked ({found}); look at "
                    f"https://www.kaggle.com/datasets/{name}, and push again when it is ready"
                )
            time.sleep(pause)
            pause = min(2 * pause, 20.0)

    def _dataset_version(self, name: str) -> object:
        """Return what is another one for every version of a dataset: its number, or else when it was last updated.

        None if the user has no such dataset, or neither is told.
        """
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        # The package's `dataset_status` tells it from 2.2.5 on only; the service tells any.
        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = name.split("/")
        with self._told(name), self._api.build_kaggle_client() as client:
            found = self._unless_hidden(name, lambda: client.datasets.dataset_api_client.get_dataset(request))
        return found and (found.current_version_number or found.last_updated)

    def _dataset_status(self, name: str) -> str | None:
        """Return a dataset's status, None if the user has no such dataset."""
        return self._unless_hidden(name, lambda: str(self._api.dataset_status(name)))

    def _unless_hidden(self, name: str, ask: Callable[[], Any]) -> Any:
        """Return what is asked of a dataset, None if the user has no such dataset."""
        from requests.exceptions import HTTPError

        with self._told(name):
            try:
                return ask()
            except HTTPError as error:
                # Kaggle says 403 rather than 404 where telling would give away what others keep private.
                if error.response is not None and error.response.status_code in {403, 404}:
                    return None
                raise

    def _secrets(self) -> list[str]:
        values = (self._api.config_values.get(name) for name in ("key", "token", "api_token"))
        return [value for value in values if value]

    @contextmanager
    def _told(self, subject: str) -> Generator[None]:
        """Turn what goes wrong with a competition, dataset or notebook into one line, without secrets."""
        from requests.exceptions import HTTPError, RequestException

        try:
            with redirect_stdout(io.StringIO()):
                yield
        except HTTPError as error:
            message = told_by_status(error, subject)
        except RequestException as error:
            message = unreachable(error)
        except SystemExit:
            message = f"Kaggle: no valid credentials; {CREDENTIALS}"
        except (ValueError, KeyError, OSError) as error:  # how the package tells of faults in files and metadata
            message = f"Kaggle: {subject}: {one_line(str(error))}"
        else:
            return
        for secret in self._secrets():
            message = message.replace(secret, "***")
        raise CompetitionError(message) from None


def _events(log: str) -> list[Any]:
    """Return what a log that is kept says: a JSON list of `{stream_name, time, data}`, or lines of text."""
    try:
        found = json.loads(log)
    except ValueError:
        return [{"data": line} for line in log.splitlines()]
    return found if isinstance(found, list) else [found]


def _sign_in() -> Any:
    """Return the package's client, which has found credentials. It looks for them when it is imported, too."""
    try:
        from requests.exceptions import HTTPError, RequestException

        try:
            with redirect_stdout(io.StringIO()):
                from kaggle.api.kaggle_api_extended import KaggleApi

                api = KaggleApi()
                api.authenticate()
        except HTTPError as error:
            raise CompetitionError(told_by_status(error, "the sign-in")) from None
        except RequestException as error:
            raise CompetitionError(unreachable(error)) from None
    except ImportError as error:
        raise CompetitionError(
            f"the kaggle package is not installed, or not whole ({error}); install it with `{INSTALL}`"
        ) from None
    except SystemExit:
        raise CompetitionError(f"Kaggle: no valid credentials found; {CREDENTIALS}") from None
    return api
