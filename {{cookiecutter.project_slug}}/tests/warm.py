"""A Python that is warm: whoever starts it gets a fork of a process that has imported torch, Lightning and the like.

A new Python imports for 5 s of CPU before a training of a tenth of that begins, and a run starts six. `warm_python()`
is a program to start instead of `sys.executable`, with the same words: it stays for as long as the fork lives, hands it
its folder, its environment and where it reads and writes, passes signals on, and ends as it does; killed, it takes it
along. As no program can pass SIGSTOP on, SIGTSTP stands for it. In the fork `sys.executable` is the same program, so
what that starts is warm, too. Modules of the project are not among those that are there already. Who needs one to be
imported anew, as it reads the environment then, names it in IMPORTED_ANEW. What shows only in a Python of its own, as
imports and Ctrl-C at any moment, is tested with `sys.executable`.

Run as a script, this file is the process that forks: python tests/warm.py ADDRESS. It imports as soon as the first asks
it for a fork. One serves all processes of tests that run side by side.
"""

import atexit
import gc
import importlib.metadata
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import leftovers

SHARED = "WARM_PYTHON"  # a variable: the path of what stands for Python in processes that share it
ANEW = "IMPORTED_ANEW"  # a variable: packages that a fork is to import itself, with spaces between
OF_LIGHTNING = "pytorch_lightning lightning_fabric lightning_utilities lightning torchmetrics"
LENGTH = 16  # digits before an order, that say how long it is
# What stands for Python: without site-packages, it starts in a hundredth of a second. Other options are Python's.
PROGRAM = """#!{python} -IS
import os, signal, socket, sys
words = sys.argv[1:]
if not words or (words[0].startswith("-") and words[0] not in ("-m", "-c", "-u", "-P")):
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
import json
order = json.dumps(dict(words=words, folder=os.getcwd(), environment=dict(os.environ), program=sys.argv[0])).encode()
socket.send_fds(server, [b"%0{length}d" % len(order)], [0, 1, 2])
server.sendall(order)
for number in {signals!r}:
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
status = int(server.recv({length}) or 1)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""
SERVING: list[subprocess.Popen[bytes]] = []  # as long as it is known here, its standard input stays open
PASSED_ON = [
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGTSTP, signal.SIGCONT),
]


def warm_python() -> str:
    """Return the path of what stands for Python."""
    return os.environ.get(SHARED) or own_warm_python()


def share_warm_python() -> None:
    """Let all processes use one that this one starts."""
    os.environ[SHARED] = own_warm_python()


@cache
def own_warm_python() -> str:
    """Start the process that forks, which ends with this one; return the path of what stands for Python."""
    folder = tempfile.mkdtemp(prefix="warm")  # no object whose end in a fork would delete it
    atexit.register(_delete, folder, os.getpid())
    address, program = Path(folder, "address"), Path(folder, "python")
    signals = [int(number) for number in PASSED_ON]
    program.write_text(PROGRAM.format(python=sys.executable, address=str(address), signals=signals, length=LENGTH))
    program.chmod(0o700)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop(leftovers.mark(os.getpid()), None)  # it is no test's, to be ended with it
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, str(Path(__file__).resolve()), str(address)]
    # In a folder that stays: in a test's own, which goes with it, MKL ends a process that imports torch.
    started = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE)
    SERVING.append(started)
    while not address.exists():
        assert started.poll() is None
        time.sleep(0.01)
    return str(program)


def _delete(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def serve(address: str) -> NoReturn:
    """Fork for each that connects, until nobody holds the other end of standard input any more."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen(64)
    os.rename(f"{address}.new", address)  # noqa: PTH104
    waiting, living = selectors.DefaultSelector(), dict[socket.socket, int]()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    waiting.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select(0.02 if living else None):
            if key.fileobj is sys.stdin:
                for child in living.values():
                    os.killpg(child, signal.SIGKILL)
                os._exit(0)
            if key.fileobj is listening:
                client, _ = listening.accept()
                import_what_takes_long()
                living[client] = begin(client)
                waiting.register(client, selectors.EVENT_READ)
            elif isinstance(key.fileobj, socket.socket):
                pass_on(key.fileobj, living[key.fileobj])
        for client, child in list(living.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                with suppress(OSError):  # it was killed itself
                    client.send(b"%d" % os.waitstatus_to_exitcode(status))
                waiting.unregister(client)
                client.close()
                del living[client]


def pass_on(client: socket.socket, child: int) -> None:
    """Send a fork the signals that came; kill it where what stands for it was killed."""
    try:
        numbers = client.recv(64)
    except ConnectionError:
        numbers = b""
    for number in numbers or [signal.SIGKILL]:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP if number == signal.SIGTSTP else number)


def look_through_packages_once() -> None:
    """Let Lightning, which is not imported yet, look through all that is installed once, and not for each of its
    trainers: a tenth of the cost of a small training."""
    setattr(importlib.metadata, "entry_points", cache(importlib.metadata.entry_points))  # noqa: B010


@cache
def import_what_takes_long() -> None:
    """Import what the project's modules do; one task's bake may lack what another's needs."""
    gc.disable()
    look_through_packages_once()
    for name in (
        *("torch", "torchvision", "pytorch_lightning", "timm", "albumentations", "pandas", "sklearn.model_selection"),
        *("matplotlib.pyplot", "typer", "pydantic", "scipy.ndimage", "jinja2", "safetensors.torch", "filelock", "cv2"),
        *("torch.distributed.run", "torch.utils.tensorboard.summary", "tifffile", "optuna", "rich.console"),
        *("segmentation_models_pytorch", "faster_coco_eval", "torch.nn.parallel", "pytorch_lightning.strategies"),
    ):
        with suppress(ImportError):
            __import__(name)
    import torch

    torch.set_num_threads(1)  # others would not live on in a fork
    gc.freeze()  # or each fork would look through all that was imported, and copy it, for nothing
    gc.enable()


def begin(client: socket.socket) -> int:
    """Fork one that lives as it was ordered to; return its id."""
    head, files, *_ = socket.recv_fds(client, LENGTH, 3)
    order = b""
    while head and len(order) < int(head) and (part := client.recv(1 << 16)):
        order += part
    child = os.fork()
    if child:
        for number in files:
            os.close(number)
        return child
    try:
        os.setsid()
        for number, own in enumerate(files):
            os.dup2(own, number)
        os.closerange(3, 1024)
        live(**json.loads(order))
    finally:
        os._exit(70)


def live(words: list[str], folder: str, environment: dict[str, str], program: str) -> NoReturn:
    """Be `python WORD...` from here on."""
    import torch
    from lightning_fabric.utilities import rank_zero

    os.environ.clear()
    os.environ.update(environment)
    forget(environment.get(ANEW, "").split())
    os.chdir(folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.executable = program
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))  # last bits hang on it
    getattr(sys.stdout, "reconfigure")(write_through="PYTHONUNBUFFERED" in environment)  # noqa: B009
    rank = rank_zero._get_rank() or 0  # by the environment, as it was when it was imported
    setattr(rank_zero.rank_zero_only, "rank", rank)  # noqa: B010
    status: Any = 0
    try:
        run(words)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # ty: ignore[missing-attribute]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def forget(packages: list[str]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def run(words: list[str]) -> None:
    """Run a module, a file or a text, as Python's command line has it."""
    is_safe = False
    while words[0] in ("-u", "-P"):
        is_safe |= words.pop(0) == "-P"
    kind = words.pop(0) if words[0] in ("-m", "-c") else ""
    here = str(Path(words[0]).resolve().parent) if not kind else str(Path.cwd()) if kind == "-m" else ""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*([] if is_safe else [here]), *filter(None, given), *sys.path[1:]]
    sys.argv = ["-c" if kind == "-c" else words[0], *words[1:]]
    if kind == "-m":
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(words[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
