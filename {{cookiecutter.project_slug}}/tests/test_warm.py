"""What stands for a Python that is warm does what a Python does, and takes along what lives for it."""

import atexit
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm import ANEW, SERVING, own_warm_python, warm_python


def say(python: str, *words: str, cwd: Path) -> tuple[int, str, str]:
    environment = os.environ | {"PYTHONPATH": str(cwd)}
    done = subprocess.run([python, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "import mine, sys; print(mine.__file__, sys.argv, sys.path[0])", "a", "-b"),
        ("-u", "-m", "mine", "c=d"),
        ("mine.py", "e"),
        ("-P", "-c", "import sys, os; print(os.getcwd(), os.environ['PYTHONPATH'], 'competition' in sys.modules)"),
        ("-c", "raise SystemExit('no')"),
        ("-c", "raise SystemExit(3)"),
        ("-c", "1 / 0"),
        ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        ("-I", "-c", "import sys; print(sys.flags.isolated)"),
    ],
)
def test_it_says_and_ends_as_a_new_python_does(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys; print(__name__, sys.argv, sys.path[0])")
    assert say(warm_python(), *words, cwd=tmp_path) == say(sys.executable, *words, cwd=tmp_path)


def test_libraries_are_there_and_what_it_starts_is_warm_too(tmp_path: Path) -> None:
    code = "import sys, subprocess; print('torch' in sys.modules, flush=True)"
    again = f"{code}; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    assert say(warm_python(), "-c", again, cwd=tmp_path) == (0, "True\nTrue\n", "")


def test_what_is_to_be_imported_anew_reads_the_environment_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ANEW, "huggingface_hub timm")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.test")
    code = "import sys; print('torch' in sys.modules, *{name for name in sys.modules if name[:4] in ('timm', 'hugg')})"
    code += "; import timm, huggingface_hub; print(huggingface_hub.hf_hub_url('a/b', 'c'))"
    assert say(warm_python(), "-c", code, cwd=tmp_path) == (0, "True\nhttp://hub.test/a/b/resolve/main/c\n", "")


WAITING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 5), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_reaches_what_lives_for_it_and_death_does(number: signal.Signals, status: int) -> None:
    with subprocess.Popen([warm_python(), "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lives = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(60) == status
    until = time.monotonic() + 60
    while True:
        try:
            os.kill(lives, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="no /proc")
def test_no_test_takes_its_folder_away() -> None:
    program = Path(own_warm_python())
    assert Path(f"/proc/{SERVING[-1].pid}/cwd").resolve() == program.parent


def test_a_fork_that_ends_in_any_way_leaves_what_stands_for_python() -> None:
    program = Path(own_warm_python())
    child = os.fork()
    if child == 0:
        atexit._clear()  # as a fork does that runs its own and no others
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert program.is_file()
