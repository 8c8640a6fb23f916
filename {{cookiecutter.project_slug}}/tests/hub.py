"""A hub of models on this machine: the addresses and headers of the one on the net, over a folder OWNER/NAME/FILE."""

import hashlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_head(self) -> BytesIO | None:
        """Answer what is asked for a file of a repository; all else is not there."""
        repository, _, file = self.path.partition("/resolve/main/")
        path = Path(f"{self.directory}{repository}", file)
        if not file or not path.is_file():
            self._answer(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})
            return None
        content = path.read_bytes()
        mark = hashlib.sha256(content).hexdigest()
        self._answer(200, {"ETag": f'"{mark}"', "Content-Length": str(len(content))})
        return BytesIO(content)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"X-Repo-Commit": COMMIT} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Generator[str]:
    """Serve a folder until the block ends; return the address, for HF_ENDPOINT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
