"""The program: `python -m competition VERB` is the same as `competition VERB`."""

import gc
import os
import signal
import sys

# Objects made before Python looks for what nobody uses, and how often it looks at young ones before at older ones. By
# itself, 700 and 10 in Python 3.11, it looks all the time while a verb imports torch and the like, a tenth of what they
# take. The verb keeps to it, too: what it leaves behind in circles lives for a few thousand objects longer.
COLLECT = (10_000, 50)


def main() -> None:
    """Run a verb; Ctrl-C at any moment, also while modules are imported, ends it with one line and status 130."""
    gc.set_threshold(*COLLECT)
    try:
        from competition.cli.app import main as run_verb  # takes a moment, in which Ctrl-C may come

        run_verb()
    except BaseException as error:
        from competition.support.errors import is_interrupt

        if not is_interrupt(error):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):  # of several processes one says it
            print("stopped by Ctrl-C", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient user's next Ctrl-C has nothing left to stop


if __name__ == "__main__":
    main()
