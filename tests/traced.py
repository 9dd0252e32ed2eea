"""Print the project's files that a command passes through, in the order in which it first meets them.

NUMBA_DISABLE_JIT=1 python tests/traced.py conv layer.npz

The command runs twice, and the second time is traced: what happens while modules are imported does not count. Kernels
have to run as Python to be seen.
"""

import contextlib
import io
import sys
import threading
from pathlib import Path

import fastcheck_command

ROOT = Path(__file__).parent.parent
FUNCTION = 1
"""The flag of code that is a function's, and not a class's or a module's."""

passed: dict[str, None] = {}
tracing = False


def _note(frame, event, argument):
    if tracing and event == "call" and frame.f_code.co_flags & FUNCTION:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path != Path(__file__):
            passed[str(path.relative_to(ROOT))] = None


def _run():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        fastcheck_command.main()


if __name__ == "__main__":
    threading.setprofile(_note)
    sys.setprofile(_note)
    _run()
    tracing = True
    _run()
    tracing = False
    sys.setprofile(None)
    print("\n".join(passed))
