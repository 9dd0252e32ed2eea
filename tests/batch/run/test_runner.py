"""Batch runs: the results of `check`, nothing repeated, what changed and that alone, and each option as it says."""

import io
import json
import os
import re
import sqlite3
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ledgers
import naive
import numpy as np
import pytest
from layer_examples import case as layer_case
from layer_examples import layer
from suite_examples import entry, suite_of

import fastcheck
from fastcheck import FastcheckError
from fastcheck.batch.ledger.ledger import Ledger
from fastcheck.batch.results import read_results
from fastcheck.batch.run import cluster, estimates, jobs, local, runner, stop
from fastcheck.batch.run.plan import plan
from fastcheck.batch.run.planned import RESERVE
from fastcheck.batch.run.scheduler import InlineExecutor
from fastcheck.batch.suite.entries import ConvEntry, NetworkEntry, Suite
from fastcheck.batch.suite.file import read_suite
from fastcheck.cli.batch import Workers
from fastcheck.common import array_file, machine
from fastcheck.common.errors import one_line
from fastcheck.convolutions import npz_case
from fastcheck.diagnosis import checked
from fastcheck.engine import coordinator
from fastcheck.networks.file import read_network
from fastcheck.render.batch_progress import Lines
from fastcheck.reports.suite_report import every_tensor
from fastcheck.workloads import seeded
from fastcheck.workloads.published import NETWORKS, ConvLayer, PublishedNetwork

SUITE = """
[defaults]
dims = "all"

[[case]]
name = "large"
conv = {in = 2, out = 3, kernel = 3, padding = 1}
input = [2, 2, 6, 6]
evaluator = "local"

[[case]]
name = "grid"
conv = {in = 4, out = 4, kernel = 3}
input = [1, 4, 6, 6]
grid = {stride = [1, 2], groups = [1, 4], dtype = ["float64", "float32"]}

[[case]]
npz = "cases/mine.npz"

[[case]]
npz = "cases/wrong.npz"

[[case]]
zoo = "tiny"
dims = 20

[[case]]
network = "net.toml"
input = [3, 1, 5, 5]
"""

NET = """
l2 = 1e-3
[[layer]]
kind = "conv"
out_channels = 2
kernel_size = 3
[[layer]]
kind = "relu"
[[layer]]
kind = "flatten"
[[layer]]
kind = "dense"
out_features = 3
"""

TINY = PublishedNetwork("made for tests", (ConvLayer("stem", (2, 7, 7), (4, 2, 3, 3), 2, 1, 1, 1, True),))

WRONG = "wrong"
CASES = 13


def save(path, made, **grads):
    arrays = {"input": made.input, "weight": made.weight, "bias": made.bias, "grad_output": made.grad_output}
    gradients = {f"grad_{name}": grad for name, grad in {**made.grads, **grads}.items()}
    np.savez(path, **arrays, **gradients, padding=1)


@pytest.fixture
def suite_path(tmp_path, monkeypatch):
    """A suite of every kind of case, one of them wrong."""
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    folder = tmp_path / "suite"
    (folder / "cases").mkdir(parents=True)
    made = layer_case(layer((1, 3, 6, 6), (4, 3, 3, 3), padding=1))
    save(folder / "cases" / "mine.npz", made)
    weight = made.grads["weight"].copy()
    weight[1, 2, 0, 1] *= 1 + 1e-9
    save(folder / "cases" / "wrong.npz", made, weight=weight)
    (folder / "net.toml").write_text(NET)
    (folder / "suite.toml").write_text(SUITE)
    return folder / "suite.toml"


class Watch(Lines):
    """Notes which cases end."""

    def __init__(self):
        super().__init__(lambda text: None)
        self.names = []

    def ended(self, case, report, seconds):
        self.names.append(case.name)


def run_suite(suite, out, backend=local.Threads, **options):
    """Run a suite; return the outcome and the names of the cases that were checked."""
    watch = Watch()
    suite = read_suite(suite) if isinstance(suite, Path) else suite
    outcome = runner.run(suite, out, runner.Options.of(**{"threads": 2} | options), watch, backend)
    return outcome, watch.names


def without_run(value):
    if isinstance(value, dict):
        return {key: without_run(entry) for key, entry in value.items() if key != "run"}
    return [without_run(entry) for entry in value] if isinstance(value, list) else value


def result(out):
    return without_run(read_results(out).suite.to_dict())


@pytest.fixture
def counted(monkeypatch):
    """Blocks that evaluators were asked for."""
    blocks, real = [], coordinator.OpenTensor.difference

    def difference(self, block):
        blocks.append(self.name)
        return real(self, block)

    monkeypatch.setattr(coordinator.OpenTensor, "difference", difference)
    return blocks


def test_every_kind_of_case_is_checked_and_told(suite_path, tmp_path):
    outcome, names = run_suite(suite_path, tmp_path / "out")
    assert outcome == (False, False)
    found = read_results(tmp_path / "out")
    assert list(found.suite.cases) == [one.name for one in read_suite(suite_path).entries]
    assert sorted(names) == sorted(found.suite.cases)
    assert len(names) == CASES
    verdicts = {name: case.verdict for name, case in found.suite.cases.items()}
    assert verdicts.pop(WRONG) == "fail"
    assert set(verdicts.values()) == {"pass"}
    assert found.suite.cases[WRONG].tensors["weight"].first_beyond == (1, 2, 0, 1)


@pytest.mark.jit
def test_the_results_are_those_of_a_check(suite_path, tmp_path):
    run_suite(suite_path, tmp_path / "out")
    found = {case["name"]: case for case in result(tmp_path / "out")["cases"]}
    for one in read_suite(suite_path).entries:
        if isinstance(one, ConvEntry):
            how = one.request
            options = {"dims": how.dims, "evaluator": how.evaluator, "directions": 0}  # suites have none
            report = fastcheck.check(jobs.conv_case(one, InlineExecutor()), **options)
            del report.requested["directions"]
        elif one.name in ("mine", WRONG):
            report = fastcheck.check(npz_case.load_case(one.path), dims="all")
        else:
            continue
        # Through JSON, which has no tuples.
        assert json.loads(json.dumps(without_run({"name": one.name} | report.to_dict()))) == found[one.name]


@pytest.fixture
def diagnosed(monkeypatch):
    """The cases that were diagnosed."""
    cases, real = [], checked.diagnosed

    def spy(*arguments):
        cases.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(checked, "diagnosed", spy)
    return cases


def _broken(folder, **changes):
    """A suite of one case, whose gradients or output are wrong; and the case."""
    made = layer_case(layer((3, 4, 7, 6), (6, 4, 3, 3), padding=1))
    save(folder / "broken.npz", made, **changes)
    (folder / "suite.toml").write_text('[[case]]\nname = "broken"\nnpz = "broken.npz"\ndims = "all"\n')
    return folder / "suite.toml", npz_case.load_case(folder / "broken.npz")


@pytest.mark.parametrize("backend", [local.Threads, local.Processes])
def test_what_fails_is_diagnosed_as_in_a_check(tmp_path, backend, monkeypatch):
    made = layer_case(layer((3, 4, 7, 6), (6, 4, 3, 3), padding=1))
    flipped = np.ascontiguousarray(made.grads["weight"][:, :, ::-1, ::-1])
    suite, case = _broken(tmp_path, weight=flipped, input=made.grads["input"] / 3)
    run_suite(suite, tmp_path / "out", backend)
    report = fastcheck.check(case, dims="all")
    for name, words in (("weight", "flipped"), ("input", "divided by N")):
        found = read_results(tmp_path / "out").suite.cases["broken"].tensors[name].diagnosis
        assert words in found["bug"]
        assert found == report.tensors[name].diagnosis


def test_of_a_large_case_a_sample_is_diagnosed_as_in_a_check(tmp_path, monkeypatch):
    for name, size in (("KEPT", 100), ("SAMPLE", 50)):
        monkeypatch.setattr(checked, name, size)
    made = layer_case(layer((3, 4, 7, 6), (6, 4, 3, 3), padding=1))
    suite, case = _broken(tmp_path, weight=np.ascontiguousarray(made.grads["weight"][:, :, ::-1, ::-1]))
    run_suite(suite, tmp_path / "out")
    found = read_results(tmp_path / "out").suite.cases["broken"].tensors["weight"].diagnosis
    assert "flipped" in found["bug"]
    assert "50 of 216" in found["shape"]
    assert found == fastcheck.check(case, dims="all").tensors["weight"].diagnosis


def test_a_wrong_output_is_diagnosed_as_in_a_check(tmp_path):
    made = layer_case(layer((3, 4, 7, 6), (6, 4, 3, 3), padding=1))
    output = naive.forward(made.input, made.weight[:, :, ::-1, ::-1], made.bias, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    arrays = {"input": made.input, "weight": made.weight, "bias": made.bias, "grad_output": made.grad_output}
    grads = {f"grad_{name}": grad for name, grad in made.grads.items()}
    np.savez(tmp_path / "broken.npz", **arrays, **grads, padding=1, output=output)
    (tmp_path / "suite.toml").write_text('[[case]]\nname = "broken"\nnpz = "broken.npz"\n')
    run_suite(tmp_path / "suite.toml", tmp_path / "out")
    found = read_results(tmp_path / "out").suite.cases["broken"].forward.diagnosis
    assert found["bug"].startswith("the kernel is flipped")
    assert found == fastcheck.check(npz_case.load_case(tmp_path / "broken.npz")).forward.diagnosis


def test_a_run_that_is_complete_diagnoses_nothing_again(suite_path, tmp_path, diagnosed):
    run_suite(suite_path, tmp_path / "out")
    first = result(tmp_path / "out")
    assert len(diagnosed) == 1
    run_suite(suite_path, tmp_path / "out")
    assert len(diagnosed) == 1
    assert result(tmp_path / "out") == first


@pytest.mark.jit
def test_any_number_of_threads_and_processes_give_the_same_bits(suite_path, tmp_path, monkeypatch):
    results = []
    for threads, work in ((1, 4e9), (2, 4e9), (3, 4e9)):
        monkeypatch.setattr(coordinator, "SHARD_WORK", work)
        monkeypatch.setattr(local, "SMALL_WORK", 0.0 if threads > 1 else 1e99)
        run_suite(suite_path, tmp_path / str(threads), threads=threads)
        results.append(result(tmp_path / str(threads)))
    assert results[0] == results[1] == results[2]


@pytest.mark.jit
def test_a_finished_run_calls_no_evaluator(suite_path, tmp_path, counted):
    run_suite(suite_path, tmp_path / "out")
    assert counted
    first = result(tmp_path / "out")
    counted.clear()
    assert run_suite(suite_path, tmp_path / "out")[1] == []
    assert counted == []
    assert result(tmp_path / "out") == first


@pytest.mark.jit
def test_one_byte_changed_runs_that_case_alone(suite_path, tmp_path):
    run_suite(suite_path, tmp_path / "out")
    path = suite_path.parent / "cases" / "mine.npz"
    arrays = dict(np.load(path))
    arrays["grad_weight"][0, 0, 0, 0] = -arrays["grad_weight"][0, 0, 0, 0]
    np.savez(path, **arrays)
    assert run_suite(suite_path, tmp_path / "out")[1] == ["mine"]
    assert read_results(tmp_path / "out").suite.cases["mine"].verdict == "fail"


@pytest.mark.jit
def test_a_changed_or_added_case_runs_alone_and_going_back_runs_nothing(suite_path, tmp_path):
    run_suite(suite_path, tmp_path / "out")
    text = suite_path.read_text()
    suite_path.write_text(text.replace("dims = 20", "dims = 21"))
    assert run_suite(suite_path, tmp_path / "out")[1] == ["tiny/stem"]
    suite_path.write_text(text + '\n[[case]]\nname = "new"\nnpz = "cases/mine.npz"\n')
    assert run_suite(suite_path, tmp_path / "out")[1] == ["new"]
    suite_path.write_text(text)
    assert run_suite(suite_path, tmp_path / "out")[1] == []


@pytest.mark.jit
def test_other_versions_run_everything_again(suite_path, tmp_path, monkeypatch):
    run_suite(suite_path, tmp_path / "out")
    versions = machine.versions
    monkeypatch.setattr(machine, "versions", lambda *others: versions(*others) | {"numpy": "99"})
    assert len(run_suite(suite_path, tmp_path / "out")[1]) == CASES


def test_another_version_of_pytorch_matters_where_it_computes(monkeypatch):
    torch_case = ConvEntry(**{**vars(entry("torch")), "backward": "torch"})
    before = plan([entry("ours"), torch_case], 1, 2**40)
    versions = machine.versions
    monkeypatch.setattr(machine, "versions", lambda *others: versions(*others) | {"torch": "99"})
    after = plan([entry("ours"), torch_case], 1, 2**40)
    assert before[0].key == after[0].key
    assert before[1].key != after[1].key


@pytest.mark.jit
def test_another_processor_is_not_mixed_in(suite_path, tmp_path, monkeypatch):
    run_suite(suite_path, tmp_path / "out")
    monkeypatch.setattr(machine, "target", lambda: "x86_64 another")
    with pytest.raises(FastcheckError, match="x86_64 another"):
        run_suite(suite_path, tmp_path / "out")
    assert len(run_suite(suite_path, tmp_path / "out", restart=True)[1]) == CASES
    assert (tmp_path / "out" / "ledger-1.sqlite").exists()


def test_a_second_run_on_a_folder_is_refused(tmp_path):
    gate, inside = threading.Event(), threading.Event()

    class Slow(local.Threads):
        def _check(self, *told):
            inside.set()
            gate.wait()
            return super()._check(*told)

    thread = threading.Thread(target=run_suite, args=(suite_of(entry()), tmp_path / "out", Slow))
    thread.start()
    inside.wait()
    try:
        with pytest.raises(FastcheckError, match="in use"):
            run_suite(suite_of(entry()), tmp_path / "out")
    finally:
        gate.set()
        thread.join()
    assert run_suite(suite_of(entry()), tmp_path / "out")[1] == []


@pytest.mark.jit
def test_fail_fast_ends_with_the_first_failure_and_stays_ended(suite_path, tmp_path):
    text = suite_path.read_text()
    suite_path.write_text(text.replace('npz = "cases/wrong.npz"', 'npz = "cases/wrong.npz"\nname = "wrong"'))
    outcome, names = run_suite(suite_path, tmp_path / "out", threads=1, fail_fast=True)
    assert outcome.stopped
    assert WRONG in names
    left = CASES - len(names)
    assert left > 0
    assert run_suite(suite_path, tmp_path / "out", threads=1, fail_fast=True) == ((False, True), [])
    assert len(run_suite(suite_path, tmp_path / "out")[1]) == left


@pytest.mark.jit
def test_a_case_that_is_late_is_an_error_and_runs_again(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinator, "SHARD_WORK", 1.0)
    slow, real = entry("slow", (1, 3, 24, 24), evaluator="local"), coordinator.OpenTensor.difference

    clock = [0.0]

    def difference(self, block):
        clock[0] += 61 if self.total > 300 else 1e-3
        return real(self, block)

    monkeypatch.setattr(coordinator.OpenTensor, "difference", difference)
    monkeypatch.setattr(stop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    run_suite(suite_of(slow, entry("quick")), tmp_path / "out", threads=1, timeout=60)
    found = read_results(tmp_path / "out").suite.cases
    assert (found["slow"].verdict, found["slow"].error) == ("error", "it took longer than 60 s")
    assert found["quick"].verdict == "pass"
    assert run_suite(suite_of(slow), tmp_path / "out")[1] == ["slow"]
    assert read_results(tmp_path / "out").suite.passed


@pytest.mark.jit
def test_bad_input_of_one_case_is_an_error_of_that_case(suite_path, tmp_path):
    (suite_path.parent / "cases" / "mine.npz").write_bytes(b"no archive")
    assert len(run_suite(suite_path, tmp_path / "out")[1]) == CASES
    found = read_results(tmp_path / "out").suite.cases["mine"]
    assert found.verdict == "error"
    assert "is not an .npz file" in found.error


@pytest.fixture
def arrays_path(tmp_path):
    """A suite of files alone: a convolution, and a network with its arrays."""
    folder = tmp_path / "suite"
    folder.mkdir()
    save(folder / "mine.npz", layer_case(layer((1, 3, 6, 6), (4, 3, 3, 3), padding=1)))
    (folder / "net.toml").write_text(NET)
    network = read_network(folder / "net.toml")
    params, x, y = seeded.network_point(network, (3, 1, 5, 5), 0)
    np.savez(folder / "net.params.npz", **params)
    np.savez(folder / "net.data.npz", x=x, y=y)
    grads = seeded.reference_gradient(network)(params, x, y)
    np.savez(folder / "net.grads.npz", **grads)
    (folder / "suite.toml").write_text('[[case]]\nnpz = "mine.npz"\n[[case]]\nnetwork = "net.toml"\n')
    return folder / "suite.toml"


FILES = {"mine.npz": "mine", **{f"net.{key}": "net" for key in ("toml", "params.npz", "grads.npz", "data.npz")}}
"""The files of that suite, and the cases that they belong to."""


def _other(path):
    """Other contents for a file of that suite: as long, and of a gradient one that is wrong."""
    if path.suffix == ".toml":
        return path.read_bytes().replace(b"1e-3", b"9e-3")
    stream, arrays = io.BytesIO(), dict(np.load(path))
    name = max(arrays, key=lambda key: (key == "grad_weight", arrays[key].dtype == np.float64, arrays[key].size))
    arrays[name] = arrays[name] * -2
    np.savez(stream, **arrays)
    return stream.getvalue()


def _rewrite(path, beside):
    """Rewrite a file in place, so that its size and times stay the same."""
    before, data = path.stat(), _other(path)
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path, beside):
    (beside / "new").write_bytes(_other(path))
    os.replace(beside / "new", path)


def _link(path, beside):
    """Put a link to the same contents, outside of the suite's folder, in a file's place."""
    os.replace(path, beside / path.name)
    path.symlink_to(beside / path.name)


def _link_folder(path, beside):
    os.replace(path.parent, beside / "moved")
    path.parent.symlink_to(beside / "moved")


def _pipe(path, beside):
    path.unlink()
    os.mkfifo(path)


def _folder(path, beside):
    path.unlink()
    path.mkdir()


def _changing(backend, path, change, beside):
    """Return a backend in front of whose first look at a case a file changes; others must not look meanwhile."""
    changed = []

    class Changing(backend):
        def _check(self, case, task, stop):
            if not changed:
                changed.append(change(path, beside))
            return super()._check(case, task, stop)

    return Changing


@pytest.mark.jit
@pytest.mark.parametrize(("name", "change"), [*((name, _rewrite) for name in FILES), ("mine.npz", _replace)])
def test_a_file_that_changes_while_the_suite_runs_is_an_error_of_its_case(arrays_path, tmp_path, name, change):
    path, out, case = arrays_path.parent / name, tmp_path / "out", FILES[name]
    run_suite(arrays_path, out, _changing(local.Threads, path, change, tmp_path), threads=1)
    found = read_results(out).suite.cases
    assert {name: one.verdict for name, one in found.items()} == {"mine": "pass", "net": "pass", case: "error"}
    assert found[case].error == f"{path} changed while the suite ran: run the same command again"
    assert run_suite(arrays_path, out)[1] == [case]
    assert read_results(out).suite.cases[case].verdict == "fail"


@pytest.mark.jit
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_link, "since the suite was read, a part of its path has become a symbolic link"),
        (_link_folder, "since the suite was read, a part of its path has become a symbolic link"),
        (_pipe, "it is not a regular file"),
        (_folder, "Is a directory"),
        (lambda path, beside: path.unlink(), "No such file"),
    ],
)
def test_paths_lead_while_the_suite_runs_where_they_led_when_it_was_read(arrays_path, tmp_path, change, told):
    path = arrays_path.parent / "mine.npz"
    suite = Suite("made", "", tuple(one for one in read_suite(arrays_path).entries if one.name == "mine"))
    run_suite(suite, tmp_path / "out", _changing(local.Threads, path, change, tmp_path), threads=1)
    found = read_results(tmp_path / "out").suite.cases["mine"]
    assert found.verdict == "error"
    assert found.error.startswith(f"{path} cannot be read: ")
    assert told in found.error


@pytest.mark.jit
def test_a_file_that_is_rewritten_while_its_case_reads_it_is_an_error(arrays_path, tmp_path, monkeypatch):
    path, real = arrays_path.parent / "mine.npz", array_file.read_array
    save(path, layer_case(layer((1, 8, 16, 16), (8, 8, 3, 3), padding=1)))
    suite = Suite("made", "", read_suite(arrays_path).entries[:1])

    def read_array(stream, size, what):
        found = real(stream, size, what)
        if what.startswith("input in "):
            monkeypatch.setattr(array_file, "read_array", real)
            _rewrite(path, tmp_path)
        return found

    def change(path, beside):
        monkeypatch.setattr(array_file, "read_array", read_array)

    run_suite(suite, tmp_path / "out", _changing(local.Threads, path, change, tmp_path), threads=1)
    assert array_file.read_array is real
    assert read_results(tmp_path / "out").suite.cases["mine"].verdict == "error"
    assert run_suite(suite, tmp_path / "out")[1] == ["mine"]
    assert read_results(tmp_path / "out").suite.cases["mine"].verdict == "fail"


@pytest.mark.jit
def test_a_link_that_leads_elsewhere_meanwhile_gives_the_result_of_the_file_that_was_planned(arrays_path, tmp_path):
    path, link = arrays_path.parent / "mine.npz", arrays_path.parent / "link.npz"
    (arrays_path.parent / "wrong.npz").write_bytes(_other(path))
    link.symlink_to("mine.npz")
    arrays_path.write_text('[[case]]\nnpz = "link.npz"\n')

    def change(link, beside):
        link.unlink()
        link.symlink_to("wrong.npz")

    run_suite(arrays_path, tmp_path / "out", _changing(local.Threads, link, change, tmp_path), threads=1)
    assert read_results(tmp_path / "out").suite.passed
    assert run_suite(arrays_path, tmp_path / "out")[1] == ["link"]
    assert read_results(tmp_path / "out").suite.cases["link"].verdict == "fail"


@pytest.mark.jit
def test_a_file_that_was_written_again_and_holds_the_same_is_the_same(arrays_path, tmp_path):
    path = arrays_path.parent / "mine.npz"
    backend = _changing(local.Threads, path, lambda path, beside: path.write_bytes(path.read_bytes()), tmp_path)
    run_suite(arrays_path, tmp_path / "out", backend, threads=1)
    assert read_results(tmp_path / "out").suite.passed


@pytest.mark.jit
def test_a_file_that_changes_before_a_process_of_its_case_reads_it(arrays_path, tmp_path):
    path = arrays_path.parent / "mine.npz"
    suite = Suite("made", "", read_suite(arrays_path).entries[:1])
    run_suite(suite, tmp_path / "out", _changing(local.Processes, path, _rewrite, tmp_path), threads=1)
    found = read_results(tmp_path / "out").suite.cases["mine"]
    assert (found.verdict, found.error) == ("error", f"{path} changed while the suite ran: run the same command again")


def test_a_file_that_changes_before_it_goes_to_a_cluster(arrays_path, tmp_path):
    class Alone(cluster.Cluster):
        """A cluster that nothing is sent to."""

        def __init__(self, options):
            self._options, self._client, self._suspects, self.target = options, None, threading.Lock(), machine.target()
            self._drivers = ThreadPoolExecutor(1)

        def _leave(self):
            pass

    path = arrays_path.parent / "mine.npz"
    suite = Suite("made", "", read_suite(arrays_path).entries[:1])
    run_suite(suite, tmp_path / "out", _changing(Alone, path, _rewrite, tmp_path))
    found = read_results(tmp_path / "out").suite.cases["mine"]
    assert (found.verdict, found.error) == ("error", f"{path} changed while the suite ran: run the same command again")


@pytest.mark.jit
def test_shards_of_an_interrupted_run_are_not_those_of_another_file(arrays_path, tmp_path, monkeypatch):
    path = arrays_path.parent / "mine.npz"
    suite = Suite("made", "", read_suite(arrays_path).entries[:1])
    stop_after(monkeypatch, 1)
    assert run_suite(suite, tmp_path / "out", threads=1)[0].interrupted
    monkeypatch.undo()
    run_suite(suite, tmp_path / "out", _changing(local.Threads, path, _rewrite, tmp_path), threads=1)
    assert read_results(tmp_path / "out").suite.cases["mine"].verdict == "error"
    run_suite(suite, tmp_path / "out")
    run_suite(suite, tmp_path / "new")
    assert read_results(tmp_path / "out").suite.cases["mine"].verdict == "fail"
    assert result(tmp_path / "out") == result(tmp_path / "new")


SPOILT = [
    *((name, lambda path, _: path.unlink(), "No such file or directory") for name in FILES),
    *((name, lambda path, _: path.write_bytes(b"layer"), "not") for name in ("mine.npz", "net.toml")),
    ("mine.npz", _folder, "Is a directory"),
    ("net.toml", _pipe, "it is not a regular file"),
    pytest.param(
        *("net.data.npz", lambda path, _: path.chmod(0), "Permission denied"),
        marks=pytest.mark.skipif(not os.geteuid(), reason="the superuser may read everything"),
    ),
]


@pytest.mark.jit
@pytest.mark.parametrize(("name", "spoil", "told"), SPOILT)
def test_a_file_that_cannot_be_read_is_an_error_of_its_case(arrays_path, tmp_path, run, name, spoil, told):
    path, out, case = arrays_path.parent / name, tmp_path / "out", FILES[name]
    data = path.read_bytes()
    spoil(path, None)
    code, said, _ = run("run", arrays_path, "--dry-run")
    assert code == 2
    assert f"\n{case}: " in said
    assert run("run", arrays_path, "--out", out)[0] == 3
    found = read_results(out).suite.cases
    assert {name: one.verdict for name, one in found.items()} == {"mine": "pass", "net": "pass", case: "error"}
    assert str(path) in found[case].error
    assert told in found[case].error
    assert run("run", arrays_path, "--out", out)[0] == 3
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(data)
    assert run_suite(arrays_path, out)[1] == [case]
    assert read_results(out).suite.passed


@pytest.mark.jit
def test_what_nobody_expects_of_a_plan_is_an_error_of_its_case(tmp_path, monkeypatch):
    real = estimates.of

    def of(one, threads):
        return 1 // 0 if one.name == "odd" else real(one, threads)

    monkeypatch.setattr(estimates, "of", of)
    run_suite(suite_of(entry("odd"), entry()), tmp_path / "out")
    found = read_results(tmp_path / "out").suite.cases
    assert found["one"].passed
    assert found["odd"].error == "ZeroDivisionError: integer division or modulo by zero"


def test_what_does_not_fit_is_known_from_headers_alone(arrays_path, run, monkeypatch):
    real = array_file.read_array

    def read_array(stream, size, what):
        assert what.startswith("padding in "), what
        return real(stream, size, what)

    monkeypatch.setattr(array_file, "read_array", read_array)
    monkeypatch.delattr("fastcheck.networks.network.Network.initial")
    arrays_path.write_text(
        arrays_path.read_text() + '[[case]]\nnetwork = "net.toml"\nname = "seeded"\ninput = [3, 1, 5, 5]\n'
    )
    code, said, _ = run("run", arrays_path, "--dry-run", "--memory", "1MiB")
    assert code == 2
    for name in ("mine", "net", "seeded"):
        assert re.search(rf"\s{name}: it needs [0-9,]+ bytes, and --memory allows 1,048,576", " ".join(said.split()))


@pytest.mark.jit
def test_numeric_gradients_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinator, "SHARD_WORK", 1e4)
    one, sampled = entry("a/b: c"), entry("sampled", dims=10)
    run_suite(suite_of(one, sampled), tmp_path / "out", keep_numeric=True)
    folders = {path.name[:3]: path for path in (tmp_path / "out" / "numeric").iterdir()}
    assert sorted(folders) == ["a%2", "sam"]
    report = fastcheck.check(jobs.conv_case(one, InlineExecutor()), dims="all", keep=True)
    for name, tensor in report.tensors.items():
        kept = np.load(folders["a%2"] / f"{name}.npy")
        assert kept.shape == tensor.shape
        np.testing.assert_array_equal(kept.reshape(-1), tensor.numeric)
    kept = [np.load(folders["sam"] / f"{name}.npy") for name in ("input", "weight", "bias")]
    assert sum(np.isfinite(array).sum() for array in kept) == 10
    assert not (folders["a%2"] / "shards").exists()


@pytest.mark.jit
def test_numeric_gradients_asked_for_later_are_differenced_again(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(coordinator, "SHARD_WORK", 1e4)
    stop_after(monkeypatch, 3)
    run_suite(suite_of(entry()), tmp_path / "out")
    monkeypatch.undo()
    run_suite(suite_of(entry()), tmp_path / "out", keep_numeric=True)
    (folder,) = (tmp_path / "out" / "numeric").iterdir()
    assert np.isfinite(np.load(folder / "weight.npy")).all()


def stop_after(monkeypatch, count):
    """Let Ctrl-C come with so many shards finished."""
    from fastcheck.common.interrupts import Interrupts

    real, kept, stopped = Ledger.keep_shard, [], []

    def keep(self, *told, **more):
        real(self, *told, **more)
        kept.append(told[1:4])
        if len(kept) == count and not stopped:
            stopped.append(True)
            monkeypatch.setattr(Interrupts, "_count", Interrupts._count + 1)

    monkeypatch.setattr(Ledger, "keep_shard", keep)
    return kept


@pytest.mark.jit
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_run_goes_on_within_a_case(tmp_path, monkeypatch, counted, count):
    monkeypatch.setattr(coordinator, "SHARD_WORK", 2e4)
    one = suite_of(entry("one", (4, 8, 32, 32), (8, 8, 3, 3)))
    run_suite(one, tmp_path / "whole", threads=1)
    every = len(counted)
    counted.clear()
    kept = stop_after(monkeypatch, count)
    outcome, names = run_suite(one, tmp_path / "out", threads=1)
    assert outcome.interrupted
    assert names == []
    first = len(kept)
    assert first >= count
    early = set(kept)
    with Ledger.read(tmp_path / "out") as ledger:
        assert next(iter(ledger.results())).shards == first
    kept.clear()
    outcome, names = run_suite(one, tmp_path / "out", threads=2)
    assert (outcome.interrupted, names) == (False, ["one"])
    assert kept
    assert not early & set(kept)
    assert len(counted) == every
    assert result(tmp_path / "out") == result(tmp_path / "whole")


@pytest.mark.jit
def test_a_case_that_does_not_fit_is_an_error_of_that_case(tmp_path):
    large, (small,) = entry("large", (1, 3, 200, 200), dims=9), plan([entry()], 1, 2**40)
    memory = small.estimate.bytes + RESERVE
    run_suite(suite_of(large, entry()), tmp_path / "out", memory=memory)
    found = read_results(tmp_path / "out").suite.cases
    assert found["one"].passed
    assert found["large"].verdict == "error"
    assert re.fullmatch(rf"it needs [0-9,]+ bytes, and --memory allows {memory:,}: .*", found["large"].error)
    assert run_suite(suite_of(large, entry()), tmp_path / "out")[1] == ["large"]
    assert read_results(tmp_path / "out").suite.passed
    run_suite(suite_of(large, entry()), tmp_path / "less", memory=memory - 1)
    assert {case.verdict for case in read_results(tmp_path / "less").suite.cases.values()} == {"error"}


def test_memory_that_is_less_than_the_program_takes_is_refused(tmp_path):
    with pytest.raises(FastcheckError, match="--memory allows 1,000,000 bytes: the program itself takes 268,435,456"):
        run_suite(suite_of(entry()), tmp_path / "out", memory=10**6)
    assert not (tmp_path / "out").exists()


def test_a_ledger_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    def full(self, *told, **more):
        raise FastcheckError("shard 0 could not be written: the disk is full")

    monkeypatch.setattr(Ledger, "keep_shard", full)
    with pytest.raises(FastcheckError, match="the disk is full"):
        run_suite(suite_of(*(entry(str(i)) for i in range(9))), tmp_path / "out")
    monkeypatch.undo()
    assert len(run_suite(suite_of(*(entry(str(i)) for i in range(9))), tmp_path / "out")[1]) == 9


@pytest.mark.jit
def test_the_ledger_holds_what_sql_asks_for(suite_path, tmp_path):
    run_suite(suite_path, tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "ledger.sqlite") as connection:
        (findings,) = connection.execute("SELECT COUNT(*) FROM findings WHERE verdict = 'fail'").fetchone()
        (shards,) = connection.execute("SELECT COUNT(*) FROM shards").fetchone()
    assert findings == 1
    assert shards >= 2 * CASES


@pytest.mark.jit
def test_estimates_count_the_dimensions_that_are_checked(suite_path, tmp_path):
    suite = read_suite(suite_path)
    run_suite(suite_path, tmp_path / "out")
    found = read_results(tmp_path / "out").suite.cases
    for case in plan(suite.entries, 2, 2**40):
        checked = sum(tensor.dims_checked for _, _, tensor in every_tensor(found[case.name]))
        assert case.estimate.dims == checked, case.name


@pytest.mark.jit
def test_a_dry_run_counts_the_dimensions_of_both_phases_and_of_one(suite_path, run):
    def counted():
        return [line.split()[2] for line in run("run", suite_path, "--dry-run")[1].splitlines() if " network " in line]

    (two,) = counted()
    (suite_path.parent / "net.toml").write_text(NET.replace("l2 = 1e-3", ""))
    (one,) = counted()
    assert int(two) == 2 * int(one) > 0


def test_a_dry_run_knows_what_processes_take(suite_path, run):
    sizes = [
        [int(size) for size in re.findall(r" G\s+(\d+) MiB", run("run", suite_path, "--dry-run", *options)[1])]
        for options in ((), ("--isolate",))
    ]
    assert len(sizes[0]) == CASES
    assert [size + RESERVE // 2**20 for size in sizes[0]] == sizes[1]


@pytest.mark.jit
def test_estimates_know_what_full_takes(suite_path):
    (network,) = [one for one in read_suite(suite_path).entries if isinstance(one, NetworkEntry)]
    full = replace(network, request=replace(network.request, evaluator="full", dims=7))
    few = replace(network, request=replace(network.request, dims=7))
    (whole,), (moved,) = (plan((one,), 1, 2**40) for one in (full, few))
    assert whole.estimate.dims == moved.estimate.dims == 2 * 7  # in two phases
    assert whole.estimate.work > moved.estimate.work


def test_cli_by_contract(suite_path, tmp_path, run):
    out, report, junit = tmp_path / "out", tmp_path / "r.json", tmp_path / "r.xml"
    code, told, err = run("run", suite_path, "--out", out, "--json", report, "--junit", junit)
    assert (code, err) == (1, "")
    assert told.count("\n") == CASES + 2
    assert f"\nwhy: fastcheck show {tmp_path / 'out'}\n" in told
    assert told.splitlines()[-1].startswith("suite: 12 of 13 pass, 1 fail (wrong: weight")
    data = json.loads(report.read_text())
    assert (data["schema"], data["verdict"], len(data["cases"])) == (1, "fail", CASES)
    assert 'failures="1"' in junit.read_text()
    code, told, _ = run("run", suite_path, "--out", out, "--json", "-")
    assert code == 1
    assert without_run(json.loads(told)) == without_run(data)
    assert run("show", out)[0] == 1


def test_cli_dry_run_checks_nothing(suite_path, tmp_path, run, counted):
    code, told, _ = run("run", suite_path, "--dry-run")
    assert code == 0
    assert "grid/stride=2,groups=4,dtype=float32" in told
    assert f"suite: {CASES} cases" in told
    assert counted == []
    (suite_path.parent / "cases" / "mine.npz").write_bytes(b"")
    code, told, _ = run("run", suite_path, "--dry-run")
    assert code == 2
    assert "mine: " in told


@pytest.mark.jit
def test_cli_without_out_writes_beside_the_working_folder_and_says_so(suite_path, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, told, _ = run("run", suite_path)
    assert (code, told.splitlines()[0]) == (1, "results: suite-results")
    assert (tmp_path / "suite-results" / "ledger.sqlite").exists()
    code, told, _ = run("run", suite_path, "--json", "-")
    assert len(json.loads(told)["cases"]) == CASES
    assert run("run", suite_path, "--dry-run")[1].count("results") == 0
    refusal = run("run", suite_path, "--json", "suite-results/ledger.sqlite")[2]
    assert "belongs to the ledger in suite-results" in refusal


@pytest.mark.jit
def test_a_suites_file_may_be_renamed_between_runs(suite_path, tmp_path, run):
    run_suite(suite_path, tmp_path / "out")
    renamed = suite_path.with_name("weekly.toml")
    suite_path.rename(renamed)
    code, told, _ = run("run", renamed, "--out", tmp_path / "out")
    assert (code, told.splitlines()[0]) == (1, f"{CASES} of {CASES} cases are finished; 0 to go")
    assert read_results(tmp_path / "out").name == "weekly"
    # Renamed and changed: what is the same is not repeated.
    renamed.rename(suite_path)
    suite_path.write_text(suite_path.read_text().replace("dims = 20", "dims = 21"))
    assert run_suite(suite_path, tmp_path / "out")[1] == ["tiny/stem"]
    # A suite that has none of these cases is another one.
    other = tmp_path / "other.toml"
    other.write_text('[[case]]\nname = "other"\nconv = {in = 1, out = 1, kernel = 1}\ninput = [1, 1, 2]\n')
    with pytest.raises(FastcheckError, match="holds the suite 'suite', and no case of 'other'"):
        run_suite(other, tmp_path / "out")


NO_ADDRESSES = (
    *(
        "",
        " ",
        "local",
        "local:",
        "local:0",
        "local:x",
        "local:none",
        "local:-1",
        "local:99999",
        "local:1\n",
        "http://x",
    ),
    *(
        "http://x:80",
        "garbage",
        "tcp://nowhere",
        "tcp://nowhere:0",
        "nowhere:99999",
        "a b:1",
        ":1",
        "tcp://:1",
        "a:1:2",
    ),
)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--memory", "lots"), "'lots': expected a size such as 8GiB"),
        (("--memory", "1KiB", "--out", "here"), "--memory allows 1,024 bytes"),
        *((("--dask", address, "--out", "here"), "local:N") for address in NO_ADDRESSES),
        (("--dask", "local:1", "--isolate", "--out", "here"), "--isolate and --dask"),
        *(
            (("--timeout", value, "--out", "here"), f"'{value}': expected a positive finite number")
            for value in ("0", "-1", "nan", "inf", "1e400", "x")
        ),
        *((("--threads", value, "--out", "here"), "1<=x<=4096") for value in ("0", "4097", "1" + 20 * "0")),
        (("--out", "absent/here"), "absent"),
    ],
)
def test_cli_bad_input(suite_path, tmp_path, refused, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in refused("run", suite_path, *arguments)
    assert os.listdir(tmp_path) == ["suite"]


def test_what_is_no_address_is_refused_before_dask_is_imported(suite_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastcheck.batch.run.cluster", None)
    assert "expected the address of a scheduler" in refused("run", suite_path, "--out", "x", "--dask", "")


@pytest.mark.parametrize(
    "address", ["localhost:1", "10.0.0.1:8786", "tcp://a-b.c:65535", "tls://[::1]:8786/", "tcp://h:1"]
)
def test_addresses_are_taken_as_they_are(address):
    assert Workers().convert(address, None, None) == address
    assert Workers().convert("local:3", None, None) == 3


def _decoded_bombs():
    yield zlib.compress(b"[" + b"0," * 5_000_000 + b"0]"), "longer than"
    yield zlib.compress(b"[" * 100_000), "recursion"
    yield zlib.compress(b'{"tally": {"dims": "3"}, "noted": null}'), "it has '3': expected int"


@pytest.mark.parametrize(("body", "told"), [*_decoded_bombs()], ids=["bomb", "deep", "types"])
def test_a_shard_that_is_none_ends_the_run_as_damage(body, told, tmp_path):
    one = suite_of(entry())
    run_suite(one, tmp_path / "out")
    with Ledger.open(tmp_path / "out", "made", "", machine.target()) as book:
        (case,) = plan(one.entries, 1, 2**40)
        (phase, tensor, number), *_ = book.shards(case.key)
        book.keep_shard(case.key, phase, tensor, number, dims=1, seconds=0.0, worker="w", body=body)
        book._connection.execute("UPDATE cases SET verdict = NULL")
        book._connection.execute("DELETE FROM reports")
    with pytest.raises(FastcheckError, match=f"is damaged.*{told}.*--restart"):
        run_suite(one, tmp_path / "out")


def _refusal(suite, out):
    try:
        run_suite(suite, out)
        assert read_results(out).suite.verdict == "pass"
    except FastcheckError as error:
        return str(error)
    return None


@pytest.mark.jit
@pytest.mark.parametrize("value", ["X'00ff'", "CAST(X'ff41' AS TEXT)"])
def test_a_run_on_any_value_in_any_column_goes_on_or_is_told(value, tmp_path):
    one, out = suite_of(entry(shape=(1, 1, 2, 2), weight=(1, 1, 1, 1))), tmp_path / "out"
    run_suite(one, out)
    with closing(sqlite3.connect(out / "ledger.sqlite", isolation_level=None)) as book:
        book.execute("UPDATE cases SET verdict = NULL")
        book.execute("DELETE FROM reports")
    whole, damaged = (out / "ledger.sqlite").read_bytes(), set()
    for table, column in ledgers.columns(out):
        (out / "ledger.sqlite").write_bytes(whole)
        if not ledgers.damage(out, table, column, value):
            continue
        told = _refusal(one, out)
        if told is not None:
            assert re.search(" is damaged| holds the suite | was written on ", told)
            damaged.add(f"{table}.{column}")
    read = {"suite.name", "suite.text", "suite.target", "cases.key", "cases.name", "cases.cost", "cases.spec"}
    assert damaged >= read | {"tensors.tensor", "shards.number", "shards.dims", "shards.checksum", "tallies.body"}


def test_the_error_of_a_case_is_short():
    told = one_line(ValueError("a" + "\n x" * 60_000 + "b"))
    assert told.startswith("ValueError: a x x")
    assert told.endswith(" xb")
    assert len(told) == 400


def test_cli_memory_sizes(suite_path, refused):
    assert "allows 1,500,000" in refused("run", suite_path, "--out", "x", "--memory", "1.5MB")
    assert "allows 2,097,152" in refused("run", suite_path, "--out", "x", "--memory", "2 MiB")
