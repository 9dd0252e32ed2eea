"""Processes that tests start, and the signals that they inherit: none outlives its test, whichever way that ends."""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

PATIENCE = 300
"""Seconds after which something that never comes fails a test: kernels may have to be compiled first."""

_PR_SET_PDEATHSIG = 1
_C = ctypes.CDLL(None) if sys.platform == "linux" else None

_HANDLERS = {
    "SIGINT": signal.default_int_handler,
    "SIGTERM": signal.SIG_DFL,
    "SIGCHLD": signal.SIG_DFL,
}


def hear_signals():
    """Give signals their usual meaning here and in children.

    A shell may have set them to be ignored, as it does with interrupts of a background job, and children inherit that.
    """
    for name, handler in _HANDLERS.items():
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _die_with_parent():
    """Have the system kill this process where the test process is killed, which then cannot do it."""
    if _C is not None:
        _C.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def child(command, before=lambda: None, **how):
    """Start a process in a group of its own, which is killed when the block ends.

    Parameters
    ----------
    command : list of str
    before : callable, optional
        Called in the process before the command.
    **how
        For `subprocess.Popen`.
    """
    with subprocess.Popen(
        command, start_new_session=True, preexec_fn=lambda: (_die_with_parent(), before()), **how
    ) as process:
        try:
            yield process
        finally:
            send(process, signal.SIGKILL)


def send(process, number):
    """Send a signal to the whole group of a child, as a terminal does, whatever is left of it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def environment(*first):
    """Return the environment of a process that imports what this one does, from these folders first."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, first), *filter(None, sys.path)])}


def run(command, **how):
    """Run a process to its end, and return how it ended and what it wrote."""
    with child(command, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
