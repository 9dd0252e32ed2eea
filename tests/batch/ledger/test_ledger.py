"""The ledger: nothing that was kept is lost or changed, by kills, full disks or damage; what is not ours is refused."""

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import processes
import pytest

import fastcheck
from fastcheck import FastcheckError, NetworkReport
from fastcheck.batch.ledger import ledger as ledger_module
from fastcheck.batch.ledger import schema
from fastcheck.batch.ledger.ledger import Ledger, PlannedCase
from fastcheck.reports.reader import from_json

PASS = fastcheck.compare(np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)).to_dict()
FAIL = fastcheck.compare(np.array([[1.0, 2.0], [np.nan, 4.0]]), np.array([[1.0, 2.5], [3.0, 4.0]])).to_dict()
CRASH = PASS | {"verdict": "error", "tensors": {}, "error": "the process ended by signal 11"}

posix = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX systems")


def key_of(text):
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def planned(*names, version=""):
    return [PlannedCase(name, key_of(name + version), {"kind": "conv", "name": name}, 1.0) for name in names]


def opened(folder, suite="nightly", target="x86_64 here", **options):
    return Ledger.open(folder, suite, "[[case]]\n", target, **options)


def keep(ledger, name, number, body=b"tally", phase="", tensor="weight", dims=100):
    ledger.keep_shard(key_of(name), phase, tensor, number, dims=dims, seconds=0.5, worker="thread 1", body=body)


def body_of(number, size=700):
    return random.Random(number).randbytes(size)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def filled(folder):
    """A folder whose ledger, closed, holds three cases: one passed, one failed, one with 40 shards and no report."""
    with opened(folder) as ledger:
        ledger.sync(planned("good", "bad", "half"))
        for number in range(40):
            keep(ledger, "half", number, body_of(number))
        keep(ledger, "good", 0, b"all of it")
        ledger.finish(key_of("good"), PASS, 1.5)
        ledger.finish(key_of("bad"), FAIL, 2.5)
    return folder


def look(folder):
    """Everything that a reader can see."""
    with Ledger.read(folder) as ledger:
        results = list(ledger.results())
        return results, {result.key: ledger.shards(result.key) for result in results}, ledger.counts()


def raw(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def is_whole(folder):
    return raw(folder / "ledger.sqlite", "PRAGMA integrity_check") == [("ok",)]


def refusal(function, *arguments, **options):
    with pytest.raises(FastcheckError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message


# What is kept


def test_what_is_kept_is_read_back(filled):
    results, shards, counts = look(filled)
    told = [(r.name, r.verdict, r.report, r.shards, r.dims, r.seconds) for r in results]
    assert told == [
        ("good", "pass", PASS, 1, 100, 1.5),
        ("bad", "fail", FAIL, 0, 0, 2.5),
        ("half", None, None, 40, 4000, None),
    ]
    assert [result.key for result in results] == [key_of(name) for name in ("good", "bad", "half")]
    assert shards[key_of("half")] == {("", "weight", number): body_of(number) for number in range(40)}
    assert shards[key_of("good")] == {("", "weight", 0): b"all of it"}
    assert counts == {"pass": 1, "fail": 1, "inconclusive": 0, "error": 0, "waiting": 1}
    assert '"nan"' in json.dumps(FAIL)
    assert from_json(json.dumps(results[1].report)).to_dict() == FAIL
    assert list(results[1].report) == list(FAIL)


def test_a_resumed_ledger_knows_what_it_held(filled):
    before = look(filled)
    with opened(filled) as ledger:
        ledger.sync(planned("good", "bad", "half"))
        assert ledger.finished() == {key_of("good"): "pass", key_of("bad"): "fail"}
        assert len(ledger.shards(key_of("half"))) == 40
        keep(ledger, "half", 40)
    after = look(filled)
    assert after[0][:2] == before[0][:2]
    assert after[0][2].shards == 41


def test_shards_are_told_apart_by_phase_tensor_and_number(folder):
    places = list(itertools.product(("", "data", "objective"), ("0.weight", "0.bias"), (0, 1, 7, 2**40)))
    with opened(folder) as ledger:
        ledger.sync(planned("net", "other"))
        for place in reversed(places):
            ledger.keep_shard(key_of("net"), *place, dims=2**33, seconds=1e-6, worker="w", body=repr(place).encode())
        assert ledger.shards(key_of("net")) == {place: repr(place).encode() for place in places}
        assert ledger.shards(key_of("other")) == {}
        assert [(result.shards, result.dims) for result in ledger.results()] == [(24, 24 * 2**33), (0, 0)]


def test_a_shard_kept_twice_is_one_and_the_later(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("conv"))
        keep(ledger, "conv", 3, b"first", dims=5)
        keep(ledger, "conv", 3, b"then", dims=7)
        assert ledger.shards(key_of("conv")) == {("", "weight", 3): b"then"}
        assert next(ledger.results())[4:6] == (1, 7)
    assert raw(folder / "ledger.sqlite", "SELECT COUNT(*) FROM tallies") == [(1,)]


def test_numbers_of_numpy_are_kept_as_numbers(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("conv"))
        ledger.keep_shard(
            key_of("conv"), "", "weight", np.int64(2), dims=np.int32(9), seconds=np.float64(1), worker="w", body=b"b"
        )
        assert ledger.shards(key_of("conv")) == {("", "weight", 2): b"b"}
        assert next(ledger.results()).dims == 9


def test_a_case_without_a_key_in_the_suite_is_refused(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("conv"))
        assert "no case" in refusal(keep, ledger, "unknown", 0)
        assert "no case" in refusal(ledger.finish, key_of("unknown"), PASS, 1.0)
        keep(ledger, "conv", 0)
        assert ledger.shards(key_of("unknown")) == {}


def test_a_changed_case_is_another_and_a_returning_one_is_known(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("a", "b", "c"))
        for name in "abc":
            keep(ledger, name, 0)
            ledger.finish(key_of(name), PASS, 1.0)
        changed = [*planned("c"), *planned("b", version="2"), *planned("d")]
        ledger.sync(changed)
        assert [(result.name, result.verdict, result.shards) for result in ledger.results()] == [
            ("c", "pass", 1),
            ("b", None, 0),
            ("d", None, 0),
        ]
        assert ledger.finished() == {key_of("c"): "pass"}
        assert ledger.counts() == {"pass": 1, "fail": 0, "inconclusive": 0, "error": 0, "waiting": 2}
        ledger.sync(planned("a", "b", "c"))
        assert list(ledger.finished()) == [key_of(name) for name in "abc"]
        assert [result.shards for result in ledger.results()] == [1, 1, 1]


def test_a_renamed_case_keeps_its_results(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        ledger.finish(key_of("a"), PASS, 1.0)
        ledger.sync([planned("a")[0]._replace(name="better name")])
        (result,) = ledger.results()
        assert (result.name, result.verdict) == ("better name", "pass")


def test_an_empty_suite_shows_nothing(filled):
    with opened(filled) as ledger:
        ledger.sync([])
        assert list(ledger.results()) == []
        assert sum(ledger.counts().values()) == 0


def test_cases_that_share_a_name_or_a_key_are_refused(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        assert "2 cases have the name 'b'" in refusal(ledger.sync, planned("a", "b", "b"))
        twins = [planned("b")[0], planned("b")[0]._replace(name="c")]
        assert "the key" in refusal(ledger.sync, twins)
        assert [result.name for result in ledger.results()] == ["a"]


def test_a_crashed_case_is_shown_and_runs_again(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("crashes"))
        keep(ledger, "crashes", 0)
        ledger.finish(key_of("crashes"), CRASH, 1.0)
        assert ledger.finished() == {}
        assert ledger.counts()["error"] == 1
        (result,) = ledger.results()
        assert (result.verdict, result.report, result.shards) == ("error", CRASH, 1)
        ledger.finish(key_of("crashes"), PASS, 1.0)
        assert ledger.finished() == {key_of("crashes"): "pass"}
        assert next(ledger.results()).report == PASS


def test_findings_are_the_tensors_that_did_not_pass(folder):
    wrong = from_json(json.dumps(FAIL))
    right = from_json(json.dumps(PASS))
    network = NetworkReport({"data": right, "objective": wrong}, False, {}).to_dict()
    tensor = next(iter(FAIL["tensors"]))
    network["cases"][1]["tensors"][tensor]["diagnosis"] = {"bug": "it's transposed", "evidence": "e", "try": "t"}
    network["cases"][1]["tensors"] |= {"empty": FAIL["tensors"][tensor] | {"worst": [], "reason": "none \udc80"}}
    with opened(folder) as ledger:
        ledger.sync(planned("good", "bad", "net"))
        for name, report in (("good", FAIL), ("good", PASS), ("bad", FAIL), ("net", network)):
            ledger.finish(key_of(name), report, 1.0)
        assert list(ledger.results())[2].report == network
    rows = raw(
        folder / "ledger.sqlite",
        "SELECT name, phase, tensor, findings.verdict, bug, worst, analytic, numeric, error_bar, reason "
        "FROM findings JOIN cases ON cases.id = case_id ORDER BY case_id, place",
    )
    reason = FAIL["tensors"][tensor]["reason"]
    assert rows == [
        ("bad", "", tensor, "fail", None, "[1, 0]", None, 3.0, None, reason),
        ("net", "objective", tensor, "fail", "it's transposed", "[1, 0]", None, 3.0, None, reason),
        ("net", "objective", "empty", "fail", None, None, None, None, None, "none \\udc80"),
    ]


def test_runs_are_noted(folder):
    with opened(folder) as ledger:
        first = ledger.begin_run({"threads": 2, "versions": {"numpy": "2"}, "note": "\udc80"})
        ledger.end_run(first, {"how": "interrupted"})
        second = ledger.begin_run({"threads": 4})
    with Ledger.read(folder) as ledger:
        one, two = ledger.runs()
    assert (one.id, two.id) == (first, second)
    assert (one.facts["note"], one.outcome, two.facts) == ("\udc80", {"how": "interrupted"}, {"threads": 4})
    assert (two.ended, two.outcome) == (None, None)
    assert one.started <= one.ended <= two.started
    assert one.started.endswith("+00:00")


def test_many_threads_write_and_read_at_once(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("a", "b", "c", "d"))
        failures = []

        def work(name):
            try:
                for number in range(50):
                    keep(ledger, name, number, body_of(number))
                    assert len(ledger.shards(key_of(name))) == number + 1
                    assert len(list(ledger.results())) == 4
                ledger.finish(key_of(name), PASS, 1.0)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        for name in "abcd":
            assert ledger.shards(key_of(name)) == {("", "weight", number): body_of(number) for number in range(50)}
        assert ledger.counts()["pass"] == 4


def test_an_interrupt_inside_a_transaction_leaves_nothing_of_it(folder, monkeypatch):
    def interrupted(statements):
        yield from statements
        raise KeyboardInterrupt

    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        keep(ledger, "a", 0)
        with monkeypatch.context() as patched:
            patched.setattr(ledger_module, "_KEEP_SHARD", interrupted(ledger_module._KEEP_SHARD))
            with pytest.raises(KeyboardInterrupt):
                keep(ledger, "a", 1)
        assert list(ledger.shards(key_of("a"))) == [("", "weight", 0)]
        keep(ledger, "a", 2)
        assert list(ledger.shards(key_of("a"))) == [("", "weight", 0), ("", "weight", 2)]


def test_a_thousand_shards_take_less_than_a_megabyte(folder):
    with opened(folder) as ledger:
        names = [f"case {number}" for number in range(10)]
        ledger.sync(planned(*names))
        order = [(name, number) for name in names for number in range(1000)]
        random.Random(0).shuffle(order)
        for place, (name, number) in enumerate(order):
            ledger.keep_shard(
                key_of(name),
                "objective",
                f"layer{number % 3}.weight",
                number,
                dims=4096,
                seconds=0.123,
                worker=f"tcp://127.0.0.1:{40000 + place % 8}",
                body=body_of(place),
            )
        assert sum(result.shards for result in ledger.results()) == 10_000
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 7_000_000 < size < 10_000_000


# The file and its folder


def test_a_closed_ledger_is_one_marked_file(filled):
    assert sorted(path.name for path in filled.iterdir()) == ["ledger.sqlite", "lock.sqlite"]
    path = filled / "ledger.sqlite"
    assert raw(path, "PRAGMA application_id") == [(int.from_bytes(b"fchk"),)]
    assert raw(path, "PRAGMA user_version") == [(1,)]
    assert is_whole(filled)


def test_a_writer_logs_ahead_and_closes_twice(folder):
    ledger = opened(folder)
    assert raw(folder / "ledger.sqlite", "PRAGMA journal_mode") == [("wal",)]
    ledger.close()
    ledger.close()
    assert "closed" in refusal(ledger.sync, [])
    assert "closed" in refusal(ledger.counts)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    assert f"there is no folder {tmp_path / 'no'}" in refusal(opened, tmp_path / "no" / "out")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal(opened, tmp_path / "file")
    assert "cannot be created" in refusal(opened, tmp_path / "nul\0nul")
    assert "holds no ledger" in refusal(Ledger.read, tmp_path / "no")
    assert "holds no ledger" in refusal(Ledger.read, tmp_path / "nul\0nul")
    assert "holds no ledger" in refusal(Ledger.read, tmp_path / "file")
    assert "holds no ledger" in refusal(Ledger.read, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_folder_named_for_trouble_is_used(tmp_path):
    folder = tmp_path / 'it\'s 100% "ours"? #1 &mode=ro; \u00e9\U0001f600'
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        keep(ledger, "a", 0)
    assert look(folder)[0][0].shards == 1
    opened(folder, restart=True).close()
    assert (folder / "ledger-1.sqlite").exists()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_relative_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened(Path("out")) as ledger:
        ledger.sync(planned("a"))
    assert len(look(Path("out"))[0]) == 1


def _another(folder, keys=(), text="[[case]]\nzoo = 'c3d'\n"):
    return Ledger.open(folder, "weekly\n", text, "x86_64 here", keys=keys)


def test_another_suite_is_refused(filled):
    before = look(filled)
    message = refusal(_another, filled, keys={"key of another"})
    assert "ledger.sqlite" in message
    assert "nightly" in message
    assert "'weekly\\n'" in message
    assert "--restart" in message
    assert look(filled) == before


@pytest.mark.parametrize("same", ["text", "a case"])
def test_a_suite_of_another_name_with_the_same_content_is_the_same(filled, same):
    key = look(filled)[0][0].key
    with _another(filled, text="[[case]]\n") if same == "text" else _another(filled, {key, "key of another"}) as ledger:
        cases = [one._replace(key=key) for one in planned("renamed")]
        ledger.sync(cases)
    with Ledger.read(filled) as ledger:
        assert ledger.suite.name == "weekly\n"
        assert [one.name for one in ledger.results()] == ["renamed"]
    # From now on it is that suite's.
    assert "holds the suite 'weekly\\n', and no case of 'nightly'" in refusal(
        Ledger.open, filled, "nightly", "# another", "x86_64 here"
    )


def test_another_target_is_refused(filled):
    message = refusal(opened, filled, target="x86_64 elsewhere")
    for told in ("ledger.sqlite", "x86_64 here", "x86_64 elsewhere", "another folder", "--restart"):
        assert told in message
    with Ledger.read(filled) as ledger:
        assert ledger.suite == ("nightly", "[[case]]\n", "x86_64 here")


def test_a_changed_text_of_the_same_suite_is_kept(filled):
    with Ledger.open(filled, "nightly", "# changed", "x86_64 here") as ledger:
        ledger.sync(planned("good"))
    with Ledger.read(filled) as ledger:
        assert ledger.suite.text == "# changed"


@pytest.mark.parametrize("opening", [opened, Ledger.read])
def test_a_newer_schema_is_refused(filled, opening):
    path = filled / "ledger.sqlite"
    raw(path, "PRAGMA user_version = 2")
    content = path.read_bytes()
    message = refusal(opening, filled)
    assert "has schema 2" in message
    assert "reads 1" in message
    assert path.read_bytes() == content


@pytest.mark.parametrize("opening", [opened, Ledger.read])
def test_a_database_of_another_program_is_refused(folder, opening):
    folder.mkdir()
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        connection.execute("CREATE TABLE accounts (owner TEXT)")
    content = (folder / "ledger.sqlite").read_bytes()
    assert "is not a fastcheck ledger" in refusal(opening, folder)
    assert (folder / "ledger.sqlite").read_bytes() == content


@pytest.mark.parametrize("opening", [opened, Ledger.read])
def test_our_mark_without_our_tables_is_refused(folder, opening):
    folder.mkdir()
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        connection.execute(f"PRAGMA application_id = {int.from_bytes(b'fchk')}")
        connection.execute("PRAGMA user_version = 1")
    assert "is damaged" in refusal(opening, folder)


# One run at a time

WRITER = """
import sys
from pathlib import Path
from fastcheck.batch.ledger.ledger import Ledger, PlannedCase
import hashlib, random

key = hashlib.sha256(b"long").hexdigest()
ledger = Ledger.open(Path(sys.argv[1]), "nightly", "[[case]]", "x86_64 here")
ledger.sync([PlannedCase("long", key, {}, 1.0)])
start, pause = len(ledger.shards(key)), int(sys.argv[2])

def keep(number):
    body = random.Random(number).randbytes(700)
    ledger.keep_shard(key, "", "weight", number, dims=100, seconds=0.5, worker="w", body=body)
    print(number, flush=True)

def hang(statement):
    if statement == "COMMIT":
        print("inside", flush=True)
        sys.stdin.read()

print("open", flush=True)
number = start
while True:
    if number - start == pause:
        ledger._connection.set_trace_callback(hang)
    keep(number)
    number += 1
"""


@pytest.fixture
def started():
    """Starts writers, which end with the test."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}

    with ExitStack() as children:

        def start(folder, pause=-1):
            command = [sys.executable, "-c", WRITER, str(folder), str(pause)]
            process = children.enter_context(processes.child(command, **pipes))
            assert process.stdout.readline() == "open\n"
            return process

        yield start


def killed(process):
    """Kill a writer as ``kill -9`` does, and return the rest of what it said."""
    with process:
        process.kill()
        return process.stdout.read().splitlines()


def test_a_second_run_is_refused_until_the_first_is_closed(folder):
    with opened(folder) as ledger:
        message = refusal(opened, folder)
        assert str(folder) in message
        assert "in use" in message
        # A reader that comes and goes takes nothing of the lock along.
        look(folder)
        assert "in use" in refusal(opened, folder, restart=True)
        ledger.sync(planned("a"))
    opened(folder).close()


@posix
def test_a_second_run_is_refused_until_the_first_is_killed(folder, started):
    process = started(folder)
    try:
        assert "in use" in refusal(opened, folder)
        assert "in use" in refusal(opened, folder, restart=True)
        assert process.poll() is None
    finally:
        killed(process)
    opened(folder).close()


def test_a_run_that_is_refused_lets_go_of_the_folder(filled):
    refusal(_another, filled)
    opened(filled).close()


def test_a_lock_that_is_none_is_told(folder):
    folder.mkdir()
    (folder / "lock.sqlite").write_text("no lock, and no database at all\n" * 100)
    assert "lock.sqlite is not a fastcheck lock" in refusal(opened, folder)


# Kills


@posix
def test_what_was_committed_survives_kills_at_any_moment(folder, started):
    kept = 0
    for count in (1, 40, 3, 97, 11, 250):
        process = started(folder)
        said = [process.stdout.readline().strip() for _ in range(count)]
        said = [line for line in said + killed(process) if line]
        assert [int(line) for line in said] == list(range(kept, kept + len(said)))
        kept += len(said)
        with opened(folder) as ledger:
            found = ledger.shards(key_of("long"))
        assert found == {("", "weight", number): body_of(number) for number in range(len(found))}
        # The last one may have been kept without having been said.
        assert kept <= len(found) <= kept + 1
        kept = len(found)
        assert is_whole(folder)
    assert kept >= 402


@posix
@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_kill_inside_a_transaction_leaves_nothing_of_it(folder, count, started):
    process = started(folder, pause=count)
    said = [process.stdout.readline().strip() for _ in range(count + 1)]
    assert said == [*map(str, range(count)), "inside"]
    assert killed(process) == []
    assert len(next(iter(look(folder)[1].values()))) == count
    with opened(folder) as ledger:
        assert ledger.shards(key_of("long")) == {("", "weight", number): body_of(number) for number in range(count)}
        keep(ledger, "long", count)
    assert is_whole(folder)


def test_a_kill_while_the_ledger_is_made_leaves_none(folder, monkeypatch):
    folder.mkdir()

    def die(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            opened(folder)
    assert not (folder / "ledger.sqlite").exists()
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.sqlite", "lock.sqlite"]


@posix
def test_a_log_without_its_ledger_is_not_replayed_into_a_new_one(folder, started):
    process = started(folder)
    process.stdout.readline()
    killed(process)
    assert (folder / "ledger.sqlite-wal").stat().st_size
    (folder / "ledger.sqlite").unlink()
    with opened(folder) as ledger:
        ledger.sync(planned("long"))
        assert ledger.shards(key_of("long")) == {}
    assert is_whole(folder)


# Damage


def damage_none(content):
    return b""


def damage_text(content):
    return b"name,verdict\nconv1,pass\n" * 50


def damage_cut(content):
    return content[: len(content) // 2]


def damage_stub(content):
    return content[:300]


def damage_middle(content):
    middle = len(content) // 2
    return content[:middle] + random.Random(1).randbytes(8192) + content[middle + 8192 :]


def damage_head(content):
    return random.Random(2).randbytes(100) + content[100:]


ANEW = re.compile(
    r"ledger\.sqlite (is damaged|is not a fastcheck ledger|has schema).* --restart keeps a copy of it and starts over$"
)

DAMAGES = [damage_none, damage_text, damage_cut, damage_stub, damage_middle, damage_head]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_told_and_kept_on_restart(filled, damage):
    path = filled / "ledger.sqlite"
    content = damage(path.read_bytes())
    path.write_bytes(content)
    for opening in (opened, Ledger.read):
        message = refusal(opening, filled)
        assert str(path) in message
        assert "--restart keeps a copy" in message
    assert path.read_bytes() == content
    with opened(filled, restart=True) as ledger:
        ledger.sync(planned("good"))
        assert ledger.finished() == {}
    assert (filled / "ledger-1.sqlite").read_bytes() == content
    assert len(look(filled)[0]) == 1


def test_no_damage_makes_a_wrong_result(filled):
    path = filled / "ledger.sqlite"
    content = path.read_bytes()
    results, shards, _ = look(filled)
    reports = {result.key: result.report for result in results}
    chance, messages = random.Random(0), []
    for _ in range(300):
        place, length = chance.randrange(100, len(content)), chance.choice((1, 2, 16, 500))
        path.write_bytes(content[:place] + chance.randbytes(length) + content[place + length :])
        try:
            found, found_shards, _ = look(filled)
        except FastcheckError as error:
            messages.append(str(error))
            continue
        for result in found:
            assert result.report is None or result.report == reports[result.key]
        for key, bodies in found_shards.items():
            assert bodies.items() <= shards.get(key, {}).items()
    assert 30 < len(messages) < 300
    assert [message for message in messages if not ANEW.search(message)] == []


def test_a_case_is_not_given_the_shards_or_the_report_of_another(filled):
    path = filled / "ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE tensors SET case_id = 2 WHERE case_id = 3")
        connection.execute("UPDATE reports SET case_id = 3 WHERE case_id = 1")
        connection.execute("UPDATE cases SET verdict = NULL WHERE id = 1")
        connection.execute("UPDATE cases SET verdict = 'pass' WHERE id = 3")
    with Ledger.read(filled) as ledger:
        assert "damaged" in refusal(ledger.shards, key_of("bad"))
        assert "damaged" in refusal(list, ledger.results())


# Beginning anew


def test_restart_keeps_copies_that_can_be_read(filled):
    before = look(filled)
    for number in (1, 2):
        with opened(filled, suite=f"suite {number}", target="another", restart=True) as ledger:
            ledger.sync(planned("new"))
            assert ledger.counts()["waiting"] == 1
            assert (filled / f"ledger-{number}.sqlite").exists()
    elsewhere = filled.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(filled / "ledger-1.sqlite", elsewhere / "ledger.sqlite")
    assert look(elsewhere) == before
    shutil.copy(filled / "ledger-2.sqlite", elsewhere / "ledger.sqlite")
    with Ledger.read(elsewhere) as ledger:
        assert ledger.suite.name == "suite 1"


def test_restart_takes_the_first_free_number(filled):
    (filled / "ledger-1.sqlite").write_text("mine")
    (filled / "ledger-2.sqlite-wal").write_text("mine too")
    opened(filled, restart=True).close()
    assert (filled / "ledger-1.sqlite").read_text() == "mine"
    assert not (filled / "ledger-2.sqlite").exists()
    assert (filled / "ledger-3.sqlite").exists()


def test_restart_in_an_empty_folder_keeps_nothing(folder):
    opened(folder, restart=True).close()
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.sqlite", "lock.sqlite"]


@posix
def test_restart_keeps_what_a_killed_run_left_in_its_log(folder, started):
    process = started(folder)
    said = [process.stdout.readline() for _ in range(20)]
    killed(process)
    with opened(folder, restart=True) as ledger:
        assert list(ledger.results()) == []
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["ledger-1.sqlite", "ledger.sqlite", "lock.sqlite"]
    assert raw(folder / "ledger-1.sqlite", "SELECT COUNT(*) FROM shards")[0][0] >= len(said)
    assert raw(folder / "ledger-1.sqlite", "PRAGMA integrity_check") == [("ok",)]


@posix
def test_restart_under_the_eyes_of_a_reader_mixes_nothing(filled):
    with closing(sqlite3.connect(filled / "ledger.sqlite", isolation_level=None)) as reader:
        with opened(filled) as ledger:
            keep(ledger, "half", 40)
            reader.execute("BEGIN")
            assert reader.execute("SELECT COUNT(*) FROM shards").fetchone() == (42,)
            keep(ledger, "half", 41)
        with opened(filled, restart=True) as ledger:
            ledger.sync(planned("new"))
            assert reader.execute("SELECT COUNT(*) FROM shards").fetchone() == (42,)
            assert [result.name for result in ledger.results()] == ["new"]
        reader.execute("COMMIT")
    assert is_whole(filled)
    assert raw(filled / "ledger-1.sqlite", "SELECT COUNT(*) FROM shards") == [(43,)]
    assert raw(filled / "ledger-1.sqlite", "PRAGMA integrity_check") == [("ok",)]


# Reading


def test_reading_changes_nothing_and_writes_nothing(filled):
    def state():
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in filled.iterdir()}

    before = state()
    with Ledger.read(filled) as ledger:
        assert len(list(ledger.results())) == 3
        assert set(filled.iterdir()) == {filled / name for name in before}
        assert "readonly" in refusal(keep, ledger, "half", 0)
        assert "readonly" in refusal(ledger.sync, [])
    assert state() == before


def test_a_reader_follows_a_writer_and_hinders_it_never(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("a", "b"))
        keep(ledger, "a", 0)
        with Ledger.read(folder) as reader:
            results = reader.results()
            assert next(results).shards == 1
            keep(ledger, "b", 0)
            ledger.sync(planned("b", "a"))
            assert (next(results).name, next(results, None)) == ("b", None)
            assert [result.name for result in reader.results()] == ["b", "a"]
            ledger.close()
            assert [result.shards for result in reader.results()] == [1, 1]
        with Ledger.read(folder) as reader, opened(folder) as ledger:
            next(reader.results())
            keep(ledger, "b", 1)
            assert next(reader.results()).shards == 2
    assert is_whole(folder)


def test_a_file_that_is_held_is_waited_for_and_not_read(filled, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_TIMEOUT", 0.01)
    with closing(sqlite3.connect(filled / "ledger.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert "locked" in refusal(Ledger.read, filled)
        assert "locked" in refusal(opened, filled)
        holder.execute("ROLLBACK")
    assert len(look(filled)[0]) == 3


READER = """
import os, sys, urllib.parse
from pathlib import Path
from fastcheck.batch.ledger.ledger import Ledger
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
folder = Path(sys.argv[1])
try:
    (folder / "probe").touch()
    print("unenforced")
except PermissionError:
    try:
        with Ledger.read(folder) as ledger:
            print(sum(result.shards for result in ledger.results()))
    except ValueError as error:
        print(error)
"""


@pytest.fixture
def closed_folder():
    """A folder that any user reaches, and a function that reads the ledger there as one who may not write."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    folder = top / "out"

    def read():
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        before = sorted(folder.iterdir())
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", READER, str(folder)]
        done = processes.run(command, env=environment)
        assert sorted(folder.iterdir()) == before
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)
        if done.stdout == "unenforced\n":
            pytest.skip("permissions are not enforced here")
        assert done.returncode == 0, done.stderr
        return int(done.stdout) if done.stdout.strip().isdigit() else done.stdout

    yield folder, read
    shutil.rmtree(top)


@posix
def test_a_ledger_is_read_where_nothing_can_be_written(closed_folder):
    folder, read = closed_folder
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        keep(ledger, "a", 0)
        keep(ledger, "a", 1)
        assert read() == 2
    assert read() == 2


@posix
def test_what_a_killed_run_left_is_read_where_nothing_can_be_written(closed_folder, started):
    folder, read = closed_folder
    process = started(folder)
    for _ in range(10):
        process.stdout.readline()
    killed(process)
    assert (folder / "ledger.sqlite-wal").stat().st_size
    count = read()
    assert count >= 10
    assert sum(result.shards for result in look(folder)[0]) == count


@posix
def test_a_log_that_cannot_be_read_is_not_passed_over(closed_folder, started):
    folder, read = closed_folder
    process = started(folder)
    for _ in range(10):
        process.stdout.readline()
    killed(process)
    (folder / "ledger.sqlite-shm").unlink()
    message = read()
    assert f"{folder / 'ledger.sqlite-wal'} was left by a killed run" in message
    assert message.count("\n") == 1
    assert sum(result.shards for result in look(folder)[0]) >= 10


@posix
def test_a_ledger_that_was_left_logging_is_read_where_nothing_can_be_written(closed_folder):
    folder, read = closed_folder
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        keep(ledger, "a", 0)
    assert raw(folder / "ledger.sqlite", "PRAGMA journal_mode = WAL") == [("wal",)]
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.sqlite", "lock.sqlite"]
    assert read() == 1


# A full disk


def fill(ledger, name):
    """Keep shards until none can be, and return how many were kept, and what was said."""
    number, message = 0, ""
    while not message:
        try:
            keep(ledger, name, number, body_of(number))
            number += 1
        except FastcheckError as error:
            message = str(error)
    return number, message


def test_a_full_disk_is_told_and_nothing_is_lost(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("conv1"))
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        kept, message = fill(ledger, "conv1")
        assert message == (
            f"shard {kept} of 'conv1' 'weight' could not be written to {folder / 'ledger.sqlite'}: database or disk is "
            "full; free some space and run the same command again: no finished work is lost"
        )
        assert kept > 10
        large = PASS | {"error": body_of(0, 50_000).hex()}
        assert "the report of 'conv1' could not be written" in refusal(ledger.finish, key_of("conv1"), large, 1.0)
        assert "the suite could not be written" in refusal(ledger.sync, planned(*map(str, range(1000))))
        run = refusal(ledger.begin_run, {"much": "x" * 100_000})
        assert "the start of the run could not be written" in run
        assert [result.name for result in ledger.results()] == ["conv1"]
        assert ledger.finished() == {}
        assert len(ledger.shards(key_of("conv1"))) == kept
        ledger._connection.execute("PRAGMA max_page_count = 1000000")
        keep(ledger, "conv1", kept, body_of(kept))
        ledger.finish(key_of("conv1"), large, 1.0)
    assert is_whole(folder)
    assert look(folder)[1] == {key_of("conv1"): {("", "weight", n): body_of(n) for n in range(kept + 1)}}


LIMITED = """
import random, resource, signal, sys
from pathlib import Path
from fastcheck.batch.ledger.ledger import Ledger, PlannedCase
from fastcheck.common.errors import FastcheckError
import hashlib

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
key = hashlib.sha256(b"long").hexdigest()
ledger = Ledger.open(Path(sys.argv[1]), "nightly", "[[case]]", "x86_64 here")
ledger.sync([PlannedCase("long", key, {}, 1.0)])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def fill(number):
    try:
        while True:
            body = random.Random(number).randbytes(7000)
            ledger.keep_shard(key, "", "weight", number, dims=100, seconds=0.5, worker="w", body=body)
            number += 1
    except FastcheckError as error:
        print(number, error, flush=True)
    return number

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
number = fill(len(ledger.shards(key)))
assert fill(number) == number
assert len(ledger.shards(key)) == number
if sys.argv[3] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * int(sys.argv[2]), hard))
    assert fill(number) > number
ledger.close()
"""


@posix
@pytest.mark.parametrize("room", ["room", "none"])
@pytest.mark.parametrize("limit", [400_000, 12_000_000])
def test_a_limit_on_the_size_of_files_is_told_and_nothing_is_lost(folder, limit, room):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", LIMITED, str(folder), str(limit), room]
    done = processes.run(command, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == (3 if room == "room" else 2)
    for line in lines:
        number, _, message = line.partition(" ")
        assert message.startswith(
            f"shard {number} of 'long' 'weight' could not be written to {folder / 'ledger.sqlite'}: "
        )
        assert message.endswith("free some space and run the same command again: no finished work is lost")
    kept = int(lines[-1].split()[0])
    assert kept > 5
    with opened(folder) as ledger:
        found = ledger.shards(key_of("long"))
        keep(ledger, "long", kept)
    assert found == {("", "weight", number): body_of(number, 7000) for number in range(kept)}
    assert is_whole(folder)


@posix
def test_no_room_for_a_new_ledger_is_told(folder):
    code = (
        "import resource, sys; from pathlib import Path; from fastcheck.batch.ledger.ledger import Ledger\n"
        "from fastcheck.common.errors import FastcheckError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "try: Ledger.open(Path(sys.argv[1]), 'nightly', '', 'x86_64 here')\n"
        "except FastcheckError as error: print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith(f"a new ledger could not be written to {folder / 'ledger.sqlite'}: ")
    assert "free some space" in done.stdout
    assert done.stdout.count("\n") == 1
    with opened(folder) as ledger:
        ledger.sync(planned("a"))


# Names

HOSTILE = [
    "",
    " ",
    "it's",
    'say "no"',
    "'; DROP TABLE cases; --",
    "a\nb\r\nc\td",
    "\x1b[31mred\x1b[0m",
    "nul\0in the midst",
    "nul\0in the mids",
    "\0",
    "<script>alert(1)</script>",
    "%s%n{}{0}?:name@x",
    "é e\u0301 \U0001f600 \u202e",
    "..",
    "x" * 10_000,
    "\ufeff\ufffe\uffff",
]


def test_hostile_names_come_back_as_they_were(folder):
    with Ledger.open(folder, HOSTILE[4] + "\0\n", "\0'\n", "t\0'") as ledger:
        ledger.sync([case._replace(spec={name: name}) for case, name in zip(planned(*HOSTILE), HOSTILE, strict=True)])
        for name in HOSTILE:
            for number, (phase, tensor) in enumerate(itertools.product(HOSTILE[:9], HOSTILE[:9])):
                if name in HOSTILE[::7]:
                    ledger.keep_shard(
                        key_of(name), phase, tensor, number, dims=1, seconds=0.0, worker=name, body=name.encode()
                    )
            ledger.finish(key_of(name), FAIL | {"tensors": {name: dict(*FAIL["tensors"].values())}}, 1.0)
    results, shards, _ = look(folder)
    assert [result.name for result in results] == HOSTILE
    assert [list(result.report["tensors"]) for result in results] == [[name] for name in HOSTILE]
    places = {(*pair, number) for number, pair in enumerate(itertools.product(HOSTILE[:9], HOSTILE[:9]))}
    for name in HOSTILE[::7]:
        assert shards[key_of(name)] == dict.fromkeys(places, name.encode())
    assert sum(result.shards for result in results) == len(places) * len(HOSTILE[::7])
    with Ledger.read(folder) as ledger:
        assert ledger.suite == (HOSTILE[4] + "\0\n", "\0'\n", "t\0'")
    assert [row[0] for row in raw(folder / "ledger.sqlite", "SELECT tensor FROM findings ORDER BY case_id")] == HOSTILE


def test_lone_surrogates_are_refused_or_kept(folder):
    half = "half \udc80"
    assert "the suite's name 'half \\udc80' is not valid Unicode" in refusal(Ledger.open, folder, half, "", "t")
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        assert "the case 'half \\udc80' is not valid Unicode" in refusal(ledger.sync, planned(half))
        assert "the tensor 'half \\udc80'" in refusal(keep, ledger, "a", 0, tensor=half)
        assert "the phase 'half \\udc80'" in refusal(keep, ledger, "a", 0, phase=half)
        ledger.keep_shard(key_of("a"), "", "w", 0, dims=1, seconds=0.0, worker=half, body=b"")
        ledger.finish(key_of("a"), CRASH | {"error": half}, 1.0)
    (result,) = look(folder)[0]
    assert (result.report["error"], result.shards) == (half, 1)


def test_failures_tell_hostile_names_in_one_line(folder):
    with opened(folder) as ledger:
        ledger.sync(planned(*HOSTILE))
        ledger._connection.execute("PRAGMA query_only = ON")
        for name in HOSTILE:
            message = refusal(keep, ledger, name, 0, tensor=name)
            assert len(message) < 800


def test_a_report_that_is_not_json_changes_nothing(folder):
    with opened(folder) as ledger:
        ledger.sync(planned("a"))
        for wrong in (PASS | {"seed": float("nan")}, PASS | {"seed": object()}):
            with pytest.raises((TypeError, ValueError)):
                ledger.finish(key_of("a"), wrong, 1.0)
        assert ledger.counts()["waiting"] == 1
        ledger.finish(key_of("a"), PASS, 1.0)
        assert ledger.counts()["pass"] == 1
