"""A stand-in of Kaggle's service on this machine: what the kaggle package asks for, over HTTP, from memory.

Paths, fields and redirects are those that the package's client (`kagglesdk`) sends and reads.
"""

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

USER, KEY, TOKEN = "ada-l", "0123456789abcdef0123456789abcdef", "KGAT_fedcba9876543210"
SIGNATURE = "SignatureOfAnAddress"  # what an address of Google's storage carries: as good as a key
MODIFIED = "Wed, 25 Nov 2026 00:00:00 GMT"


@dataclass
class Session:
    """What a notebook that was started says, and leaves when it has ended."""

    statuses: list[str] = field(default_factory=lambda: ["QUEUED"])  # one a question, and the last for ever
    files: dict[str, bytes] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class StandIn:
    """The state of the service: tests lay in what it has and read what it was sent."""

    archives: dict[str, bytes] = field(default_factory=dict)  # by competition
    breaks: int = 0  # answers that break off half way before one is whole
    refusals: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)  # by method
    uploads: dict[str, bytes] = field(default_factory=dict)  # by token
    names: dict[str, str] = field(default_factory=dict)  # of uploaded files, by token
    submissions: list[dict[str, Any]] = field(default_factory=list)
    datasets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # versions, by owner/name
    statuses: list[str] = field(default_factory=list)  # of a data set before it is READY
    lag: int = 0  # for so many polls after a next version the one before is still current, and its status is told
    polls_behind: int = 0  # of them left
    numbers_versions: bool = True  # or tells only when a data set was last updated
    notebooks: list[dict[str, Any]] = field(default_factory=list)
    sessions: dict[str, "Session"] = field(default_factory=dict)  # of notebooks, by owner/name
    begins: Callable[[], "Session"] = Session  # what becomes of a notebook that is pushed
    quota: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)  # asked for when a download went on
    address: str = ""

    def files_of(self, dataset: str) -> dict[str, bytes]:
        """Return the files of a data set's newest version."""
        tokens = [file["token"] for file in self.datasets[dataset][-1]["files"]]
        return {self.names[token]: self.uploads[token] for token in tokens}

    def start_upload(self, name: str) -> dict[str, Any]:
        token = f"token-{len(self.names)}"
        self.names[token] = name
        return {"token": token, "createUrl": f"{self.address}/upload/{token}?signature={SIGNATURE}"}

    # -- methods of the service, by their names

    def start_submission_upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self.start_upload(asked["fileName"])

    def start_blob_upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self.start_upload(asked["name"])

    def create_submission(self, asked: dict[str, Any]) -> dict[str, Any]:
        token = asked["blobFileTokens"]
        ref = 1000 + len(self.submissions)
        one = {"ref": ref, "date": f"2026-11-25T00:{len(self.submissions):02d}:00.123Z", "status": "PENDING"}
        one |= {"fileName": self.names[token], "description": asked["submissionDescription"], "token": token}
        self.submissions.insert(0, one)
        return {"message": "Successfully submitted", "ref": ref}

    def list_submissions(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"submissions": self.submissions[: asked["pageSize"]], "nextPageToken": ""}

    def get_dataset_status(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        if f"{asked['ownerSlug']}/{asked['datasetSlug']}" not in self.datasets:
            return None
        return {"status": self.statuses.pop(0) if self.statuses else "READY"}

    def current_version(self, dataset: str) -> int:
        return len(self.datasets[dataset]) - (self.polls_behind > 0)

    def get_dataset(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        name = f"{asked['ownerSlug']}/{asked['datasetSlug']}"
        if name not in self.datasets:
            return None
        number = self.current_version(name)
        self.polls_behind = max(self.polls_behind - 1, 0)
        numbered = {"currentVersionNumber": number} if self.numbers_versions else {}
        return {"ref": name, "lastUpdated": f"2026-11-25T00:{number:02d}:00.123Z", **numbered}

    def create_dataset(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self.add_version(f"{asked['ownerSlug']}/{asked['slug']}", asked)

    def create_dataset_version(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self.add_version(f"{asked['ownerSlug']}/{asked['datasetSlug']}", asked["body"])

    def add_version(self, name: str, version: dict[str, Any]) -> dict[str, Any]:
        versions = self.datasets.setdefault(name, [])
        versions.append(version)
        self.polls_behind = self.lag if len(versions) > 1 else 0
        return {"status": "ok", "ref": name, "url": f"https://www.kaggle.com/datasets/{name}"}

    def save_kernel(self, asked: dict[str, Any]) -> dict[str, Any]:
        sources = asked.get("datasetDataSources", [])  # an empty list is not sent
        unknown = [name for name in sources if name not in self.datasets]
        versions = {name: self.current_version(name) for name in sources if name not in unknown}
        self.notebooks.append({**asked, "versions": versions})
        self.sessions[asked["slug"]] = self.begins()
        return {"url": f"https://www.kaggle.com/code/{asked['slug']}", "invalidDatasetSources": unknown}

    def session_of(self, asked: dict[str, Any]) -> "Session | None":
        return self.sessions.get(f"{asked['userName']}/{asked['kernelSlug']}")

    def get_kernel_session_status(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        session = self.session_of(asked)
        if session is None:
            return None
        return {"status": session.statuses.pop(0) if len(session.statuses) > 1 else session.statuses[0]}

    def list_kernel_session_output(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        session, name = self.session_of(asked), f"{asked['userName']}/{asked['kernelSlug']}"
        if session is None:
            return None
        start, size = int(asked.get("pageToken") or 0), 7  # smaller pages than asked for
        names = sorted(session.files)[start : start + size]
        files = [{"fileName": file, "url": f"{self.address}/output/{name}/{file}"} for file in names]
        more = str(start + size) if start + size < len(session.files) else ""
        return {"files": files, "log": json.dumps(session.log), "nextPageToken": more}

    def get_accelerator_quota_statistics(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        return self.quota or None

    def introspect_token(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"active": asked["token"] == TOKEN, "username": USER}


def serve(state: StandIn) -> tuple[ThreadingHTTPServer, Callable[[], None]]:
    """Start to answer on a free port of this machine; return the server and what stops it."""
    server = _QuietServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return server, stop


class _QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that go away: the tests look at everything that is printed."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    """`/v1/SERVICE/METHOD` as Kaggle's own host has it, `/storage/` and `/upload/` as Google's storage has them."""

    state: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method = self.path.rpartition("/")[2]
        self.state.calls.append(method)
        refusal = self.state.refusals.get(method)
        if refusal is not None:
            status, message, headers = refusal
            self._send(status, json.dumps({"code": status, "message": message}).encode(), headers)
        elif not self._is_signed_in() and method != "IntrospectToken":
            self._send(401, json.dumps({"code": 401, "message": "Unauthenticated"}).encode())
        elif method == "DownloadDataFiles":
            name = json.loads(body)["competitionName"]
            where = f"{self.state.address}/storage/{name}.zip?signature={SIGNATURE}"
            self._send(302, b"", {"Location": where}) if name in self.state.archives else self._not_found()
        else:
            answer = getattr(self.state, _snake(method))(json.loads(body))
            self._not_found() if answer is None else self._send(200, json.dumps(answer).encode())

    def do_GET(self) -> None:
        if self.path.startswith("/v1/kernels/logs/stream/"):
            session = self.state.sessions[self.path.removeprefix("/v1/kernels/logs/stream/")]
            said = "".join(f"data: {json.dumps(event)}\n\n" for event in session.log) + "data: END_OF_LOG\n\n"
            self._send(200, said.encode(), {"Content-Type": "text/event-stream"})
        elif self.path.startswith("/output/"):
            owner, name, file = self.path.removeprefix("/output/").split("/", 2)
            self._send_file(self.state.sessions[f"{owner}/{name}"].files[file])
        else:
            self._send_archive()

    def _send_file(self, content: bytes) -> None:
        breaks = self.state.breaks > 0
        self.state.breaks -= breaks
        self._send(200, content, sent=content[: len(content) // 2] if breaks else None)

    def _send_archive(self) -> None:
        content = self.state.archives[urlsplit(self.path).path.rpartition("/")[2].removesuffix(".zip")]
        headers = {
            "Last-Modified": MODIFIED,
            "Accept-Ranges": "bytes",
            "ETag": '"1"',
            "Content-Type": "application/zip",
        }
        status, start = 200, 0
        if asked := self.headers.get("Range"):
            self.state.ranges.append(asked)
            status, start = 206, int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body, breaks = content[start:], self.state.breaks > 0
        self.state.breaks -= breaks
        self._send(status, body, headers, sent=body[: len(body) // 2] if breaks else None)

    def do_PUT(self) -> None:
        token = urlsplit(self.path).path.rpartition("/")[2]
        self.state.uploads[token] = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.state.refusals.get("upload", (200, "", {}))[:1], b"")

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet, too."""

    def _is_signed_in(self) -> bool:
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers.get("Authorization") in {f"Basic {basic}", f"Bearer {TOKEN}"}

    def _not_found(self) -> None:
        self._send(404, json.dumps({"code": 404, "message": "Not found"}).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, sent: bytes | None = None) -> None:
        """Answer; `sent` is what of the body is sent before the connection breaks off."""
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if sent is None else sent)
        self.close_connection = self.close_connection or sent is not None


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
