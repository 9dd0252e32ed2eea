"""No process outlives the test that started it, and none inherits how the shell left its signals."""

import os
import signal
import subprocess
import sys

import processes
import psutil
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups")

FAMILY = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(other.pid, flush=True)
time.sleep(1000)
"""
"""Starts a process of its own, and neither ends by itself."""


def ended(process):
    """Wait for the end of a process that may be somebody else's child."""
    process.wait(processes.PATIENCE)
    return True


def test_a_test_that_fails_leaves_no_process():
    family = []

    def fails():
        with processes.child([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as process:
            family.extend(psutil.Process(pid) for pid in (process.pid, int(process.stdout.readline())))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(family) == 2
    assert all(map(ended, family))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a process that is killed")
def test_a_test_process_that_is_killed_leaves_no_process():
    code = (
        "import processes, sys, time\n"
        "with processes.child([sys.executable, '-c', 'import time; time.sleep(1000)']) as process:\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    with processes.child(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        grandchild = psutil.Process(int(process.stdout.readline()))
        process.kill()
        assert ended(grandchild)


def test_children_hear_the_signals_that_the_shell_ignored():
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    again = (
        "import processes, sys; processes.hear_signals()\n"
        f"print(processes.run([sys.executable, '-c', {code!r}]).stdout, end='')"
    )
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}

    def heard(script):
        sigint_blocked = ["bash", "-c", "trap '' INT; exec \"$@\"", "bash", sys.executable, "-c", script]
        return processes.run(sigint_blocked, env=environment).stdout

    assert heard(code) == "False\n"
    assert heard(again) == "True\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
