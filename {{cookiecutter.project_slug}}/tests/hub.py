"""A hub of models on this machine: the addresses and headers of the one on the net, over a folder OWNER/NAME/FILE."""

import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from tiny import PROJECT
from torch import Tensor, nn
from warm import ANEW, warm_python

HUBS = "huggingface_hub timm segmentation_models_pytorch transformers"  # the library of the hub, and who imports it
OF_A_HUB = re.compile(r"(?i)proxy|^HF_|^HUGGINGFACE_|^TRANSFORMERS_")  # variables that say where it is, or if at all
FETCH = """
import json, os
from pathlib import Path
from hub import held, serving

def fetch(folder, values):
    network = Task(values["task"]).model.build_network(validate(values, {{}}, "test"), 4)
    published = load_file(Path(folder) / "model.safetensors")
    return [*held(network, published), weights_note(network)]

wanted = {wanted!r}
with serving(Path({repos!r})) as os.environ["HF_ENDPOINT"]:
    from competition.config.loading import validate
    from competition.networks.pretrained import weights_note
    from competition.tasks.contract import Task
    from safetensors.torch import load_file
    first = {{name: fetch(*one) for name, one in wanted.items()}}
print("found", json.dumps([first, {{name: fetch(*one) for name, one in wanted.items()}}]))
"""
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


def fetch_twice(place: Path, wanted: Mapping[str, tuple[Path, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Build networks from a hub that serves `place`/repos, and again without one.

    Of each name the folder there that a config's weights are in, and the config; returns for each time by name how many
    of the folder's tensors the network has, how many there are, and what is said of them.
    """
    named = {name: (str(folder), values) for name, (folder, values) in wanted.items()}
    script = FETCH.format(repos=str(place / "repos"), wanted=named)
    return in_a_process(script, {"HF_HOME": str(place / "home")})


def held(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many floating tensors of a state a network has, and how many there are beside a classifier."""
    own = list(network.state_dict().values())
    wanted = [value for name, value in state.items() if value.is_floating_point() and not name.startswith("fc.")]
    return sum(any(value.shape == one.shape and torch.equal(value, one) for one in own) for value in wanted), len(
        wanted
    )


def in_a_process(script: str, environment: dict[str, str]) -> Any:
    """Return what a script prints as found, to which the address of a hub is new: it is read as libraries are
    imported."""
    kept = {key: value for key, value in os.environ.items() if not OF_A_HUB.search(key)}
    ran = subprocess.run(
        [warm_python(), "-c", script],
        env=kept | environment | {ANEW: HUBS, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.partition("found ")[2])
