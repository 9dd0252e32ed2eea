"""``executor="processes"``: the same reports as threads give, and what cannot be called in other processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from processes import PATIENCE, child

import fastcheck
from fastcheck import FastcheckError

pytest.importorskip("loky")

PROCESSES = {"executor": "processes", "threads": 2}


def problem():
    """Return a loss and its gradient, and an array of 1,500 parameters; pickled by value, unlike this module."""
    rng = np.random.default_rng(3)
    a, x = rng.normal(size=(60, 1500)) / 20, rng.normal(size=1500)
    return lambda p: float(np.log(np.cosh(a @ p)).sum()), lambda p: a.T @ np.tanh(a @ p), x


def layer():
    """Return a forward pass and its backward pass, and inputs."""
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(12, 30)), rng.normal(size=(30, 40)) / 5

    def forward(x, w):
        return np.tanh(x @ w)

    def backward(v, x, w):
        d = v * (1 - np.tanh(x @ w) ** 2)
        return d @ w.T, x.T @ d

    return forward, backward, {"x": x, "w": w}


def assert_same(one, other):
    """Assert that two reports agree to the last bit of every difference and bar."""
    assert one.verdict == other.verdict
    assert one.directions == other.directions
    assert one.structure == other.structure
    for name, tensor in one.tensors.items():
        for kind in ("dims", "analytic", "numeric", "error_bar"):
            assert np.array_equal(getattr(tensor.kept, kind), getattr(other.tensors[name].kept, kind))


@pytest.mark.jit
class TestSameReports:
    """Bits do not depend on the executor."""

    @pytest.mark.parametrize(
        ("factor", "options"),
        [(1.0, {"dims": "all"}), (1 + 1e-6, {"dims": 20, "directions": 6}), (1.0, {"dims": 20, "step": 1e-4})],
    )
    def test_of_a_loss(self, factor, options):
        loss, grad, x = problem()
        here, away = (
            fastcheck.check_gradient(loss, lambda p: factor * grad(p), x, keep=True, **options, **where)
            for where in ({}, PROCESSES)
        )
        assert here.passed is (factor == 1)
        assert_same(here, away)

    @pytest.mark.parametrize(
        ("factor", "options"),
        [(1 + 1e-5, {"dims": "all"}), (1.0, {"structure": {"x": "per_sample"}}), (1.0, {"dims": 30, "directions": 4})],
    )
    def test_of_a_forward(self, factor, options):
        forward, backward, inputs = layer()

        def scaled(v, x, w):
            dx, dw = backward(v, x, w)
            return {"x": dx, "w": factor * dw}

        here, away = (
            fastcheck.check_vjp(forward, scaled, inputs, keep=True, **options, **where) for where in ({}, PROCESSES)
        )
        assert here.passed is (factor == 1)
        assert_same(here, away)

    def test_of_complex_arrays(self):
        z = np.linspace(1, 2, 40) + 1j * np.linspace(-1, 1, 40)
        here, away = (
            fastcheck.check_vjp(lambda z: z**3, lambda v, z: 3 * v * z.conj() ** 2, z, keep=True, **where)
            for where in ({}, PROCESSES)
        )
        assert here.passed
        assert_same(here, away)

    def test_of_a_vectorised_loss(self):
        a, x = np.linspace(1, 2, 1200), np.linspace(-1, 1, 1200)
        options = {"vectorized": True, "keep": True, "dims": "all"}
        here, away = (
            fastcheck.check_gradient(lambda p: (a * p**3).sum(-1), lambda p: 3 * a * p**2, x, **options, **where)
            for where in ({}, PROCESSES)
        )
        assert here.passed
        assert_same(here, away)

    def test_calls_are_made_in_workers(self, tmp_path):
        loss, grad, x = problem()

        def noted(p):
            with open(tmp_path / str(os.getpid()), "a") as file:
                file.write(".")
            return loss(p)

        report = fastcheck.check_gradient(noted, grad, x, dims="all", **PROCESSES)
        assert report.passed
        assert report.requested["executor"] == "processes"
        calls = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        here = calls.pop(str(os.getpid()))
        assert len(calls) in (1, 2)
        assert sum(calls.values()) >= 2 * len(x) > here


class TestRefused:
    """One line says what cannot be done in other processes, and offers threads."""

    def test_a_loss_that_cannot_be_pickled(self):
        loss, grad, x = problem()
        lock = threading.Lock()

        def locked(p):
            with lock:
                return loss(p)

        with pytest.raises(FastcheckError, match=r"loss cannot be sent .*lock.*, or executor='threads'$"):
            fastcheck.check_gradient(locked, grad, x, **PROCESSES)
        assert fastcheck.check_gradient(locked, grad, x, dims=5, directions=0)

    def test_an_input_or_a_reference_that_cannot_be_pickled(self):
        forward, backward, inputs = layer()
        lock = threading.Lock()
        with_lock = {**inputs, "lock": lock}
        with pytest.raises(FastcheckError, match=r"inputs\['lock'\] cannot be sent to other processes"):
            fastcheck.check_vjp(
                lambda x, w, lock: forward(x, w),
                lambda v, x, w, lock: dict(zip("xw", backward(v, x, w), strict=True)),
                with_lock,
                **PROCESSES,
            )
        with pytest.raises(FastcheckError, match="reference cannot be sent to other processes"):
            fastcheck.check_vjp(
                forward,
                lambda v, x, w: dict(zip("xw", backward(v, x, w), strict=True)),
                inputs,
                reference=lambda x, w: forward(x, w) if lock else None,
                **PROCESSES,
            )

    def test_what_stays_here_need_not_be_pickled(self):
        loss, grad, x = problem()
        lock = threading.Lock()
        assert fastcheck.check_gradient(loss, lambda p: grad(p) if lock else None, x, dims=5, **PROCESSES)

    def test_a_loss_of_a_module_that_workers_do_not_have(self, tmp_path, monkeypatch):
        (tmp_path / "only_here.py").write_text("def loss(p):\n    return float((p**2).sum())\n")
        monkeypatch.syspath_prepend(tmp_path)
        import only_here

        monkeypatch.undo()
        with pytest.raises(
            FastcheckError, match=r"loss cannot be loaded in a worker process .*only_here.*executor='threads'"
        ):
            fastcheck.check_gradient(only_here.loss, lambda p: 2 * p, np.arange(1.0, 9.0), **PROCESSES)

    @pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
    def test_a_worker_that_dies(self, end):
        here = os.getpid()
        loss, grad, x = problem()

        def deadly(p):
            if os.getpid() != here:
                end()
            return loss(p)

        with pytest.raises(FastcheckError, match=r"a worker process died \(.*\) while it called loss: .*'threads'"):
            fastcheck.check_gradient(deadly, grad, x, **PROCESSES)

    def test_a_loss_that_changes_its_argument_in_workers(self):
        here = os.getpid()
        loss, grad, x = problem()

        def changing(p):
            value = loss(p)
            if os.getpid() != here:
                p[3] = 0
            return value

        with pytest.raises(FastcheckError, match="loss changes params, which it is given"):
            fastcheck.check_gradient(changing, grad, x, dims="all", **PROCESSES)

    def test_a_loss_that_raises_in_workers(self):
        here = os.getpid()
        loss, grad, x = problem()

        def raising(p):
            if os.getpid() != here:
                raise ValueError("not here")
            return loss(p)

        with pytest.raises(FastcheckError, match=r"loss raises ValueError with params at index .*: not here"):
            fastcheck.check_gradient(raising, grad, x, **PROCESSES)

    @pytest.mark.parametrize(
        ("value", "meant"), [("process", "processes"), ("multiprocessing", "processes"), ("thread", "threads")]
    )
    def test_other_executors(self, value, meant):
        loss, grad, x = problem()
        with pytest.raises(
            FastcheckError, match=rf"executor is '{value}' \(did you mean '{meant}'\?\): expected one of"
        ):
            fastcheck.check_gradient(loss, grad, x, executor=value)

    def test_without_loky(self, monkeypatch):
        loss, grad, x = problem()
        monkeypatch.setitem(sys.modules, "loky", None)
        with pytest.raises(FastcheckError, match="executor is 'processes', which needs loky: pip install"):
            fastcheck.check_gradient(loss, grad, x, **PROCESSES)


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_interrupts_end_the_workers_too():
    program = textwrap.dedent("""
        import time
        import numpy as np
        import fastcheck

        def loss(p):
            time.sleep(0.005)
            return float((p**2).sum())

        def progress(stage, done, total):
            print(stage, done, flush=True)

        x = np.arange(1.0, 3000.0)
        options = {"executor": "processes", "threads": 2, "progress": progress}
        report = fastcheck.check_gradient(loss, lambda p: 2 * p, x, dims="all", **options)
        print("interrupted", report.interrupted, report.tensors["params"].dims_checked < len(x))
    """)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with child([sys.executable, "-c", program], **pipes) as process:
        lines = iter(process.stdout.readline, "")
        assert any(line.split()[0] == "params" and line.split()[-1] not in ("0", "preparing") for line in lines)
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE)
        assert rest.splitlines()[-1] == "interrupted True True"
        assert "Traceback" not in rest
        for _ in range(100):  # workers, of the same group, are gone soon
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        raise AssertionError("workers outlive the check")
