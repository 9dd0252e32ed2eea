"""Files open for reading: only where a resolved path leads without links, and digests of what was read."""

import hashlib
import os

import pytest

from fastcheck import FastcheckError
from fastcheck.common.opened import opened


@pytest.fixture
def folder(tmp_path):
    """A folder with a file, and links to both."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "x").write_bytes(b"what it holds")
    (tmp_path / "in" / "x").symlink_to("sub/x")
    (tmp_path / "in" / "link").symlink_to("sub")
    (tmp_path / "in" / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "in" / "pipe")
    return tmp_path / "in"


def _read(path, **options):
    with opened(path, **options) as file:
        return file.read()


@pytest.mark.parametrize("path", ["sub/x", "x", "link/x"])
def test_any_path_is_opened_and_a_real_one_has_no_links(folder, path):
    assert _read(folder / path) == b"what it holds"
    assert _read((folder / path).resolve(), real=True) == b"what it holds"
    if path != "sub/x":
        with pytest.raises(FastcheckError, match="a part of its path has become a symbolic link"):
            _read(folder / path, real=True)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("absent", "No such file or directory"),
        ("absent/x", "No such file or directory"),
        ("sub", "Is a directory"),
        ("pipe", "it is not a regular file"),
        ("loop", "symbolic link"),
        ("sub/x/x", "no longer a folder"),
        ("a\0b", "null"),
        ("n" * 5000, "File name too long"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(folder, path, told):
    with pytest.raises(FastcheckError, match=told) as refused:
        _read(folder / path, real=True)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 620


def test_a_device_is_no_file():
    with pytest.raises(FastcheckError, match="/dev/null cannot be read: it is not a regular file"):
        _read("/dev/null", real=True)
    assert _read("/dev/null") == b""


def test_no_descriptor_is_left_open(folder):
    before = os.listdir("/dev/fd")
    _read(folder / "sub" / "x", real=True)
    for path in ("absent", "link/x", "sub", "pipe", "sub/x/x"):
        with pytest.raises(FastcheckError):
            _read(folder / path, real=True)
    assert len(os.listdir("/dev/fd")) == len(before)


def test_the_digest_is_of_what_was_read_whatever_the_file_is_by_now(folder):
    path = folder / "sub" / "x"
    with opened(path) as file:
        file.read()
        path.write_bytes(b"what it no longer")
        assert file.digest == hashlib.sha256(b"what it holds").hexdigest()
    with opened(path) as file:
        assert file.digest == hashlib.sha256(b"").hexdigest()
        file.noted(file.stream).read(4)
        assert file.digest == hashlib.sha256(b"what").hexdigest()


def test_a_file_that_is_open_stays_open(folder):
    with opened(folder / "x") as file:
        with opened(file) as same:
            assert same is file
        assert file.read() == b"what it holds"
