"""Arrays from files: what NumPy reads, and nothing allocated, read or inflated beyond what is declared and fits."""

import io
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest
from layer_examples import case as layer_case
from layer_examples import layer, saved

import fastcheck
from fastcheck import FastcheckError
from fastcheck.common import array_file, machine, npz
from fastcheck.common.array_file import read_array, read_header
from fastcheck.common.opened import opened
from fastcheck.convolutions import memory, npz_case

LAYER = layer((1, 3, 6, 6), (4, 3, 3, 3), padding=1)


class Counted(io.BytesIO):
    """A stream that notes how much is asked for at once, and in all."""

    def __init__(self, data):
        super().__init__(data)
        self.most = self.all = 0

    def read(self, size=-1):
        assert size >= 0
        self.most, self.all = max(self.most, size), self.all + size
        return super().read(size)


def _npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def _claiming(shape, dtype="<f8", length=None, version=1):
    """The header of an array, and of what length it says to be."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    claimed = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", claimed) + text.encode()


ARRAYS = (
    *(np.arange(24.0).reshape(2, 3, 4).astype(dtype) for dtype in ("<f8", ">f8", "<f4", "<f2", "<i8", "?", "<c16")),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    *(np.float64(3.5), np.ones((0, 3)), np.array("same"), np.array(""), np.array(["a", "long"])),
    np.zeros(2, [("a", "<f4"), ("b", "<i2")]),
    np.random.default_rng(0).normal(size=300_000),
)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_are_those_that_numpy_reads(array, version):
    array = np.asarray(array)
    data = _npy(array, version=version)
    found = read_array(io.BytesIO(data), len(data), "it")
    expected = np.load(io.BytesIO(data))
    assert (found.dtype, found.shape, found.flags.f_contiguous) == (
        expected.dtype,
        expected.shape,
        expected.flags.f_contiguous,
    )
    np.testing.assert_array_equal(found, expected)
    assert found.flags.writeable
    assert found.flags.aligned


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_length_of_a_header_is_looked_at_before_the_header(version):
    length = 2**16 - 1 if version == 1 else 2**32 - 1
    stream = Counted(_claiming((3,), length=length, version=version) + bytes(100_000))
    with pytest.raises(FastcheckError, match=rf"it declares a header of {length:,} bytes: expected at most 10,000"):
        read_header(stream, 2**40, "it")
    assert stream.all < 100
    good = Counted(_claiming((3,), version=version) + bytes(24))
    assert read_header(good, 10**6, "it").shape == (3,)


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (4, 0), (255, 255)])
def test_unknown_versions_are_refused(version):
    data = bytearray(_npy(np.ones(3)))
    data[6:8] = bytes(version)
    with pytest.raises(FastcheckError, match=r"it has version \(\d+, \d+\) of the .npy format: expected"):
        read_array(io.BytesIO(data), len(data), "it")


def test_a_header_that_is_odd_code_is_refused_without_a_warning(tmp_path, refused):
    path = tmp_path / "a.npy"
    path.write_bytes(_npy(np.ones(3)).replace(b"(3,)", b"3in1"))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert "cannot be read; it is not an array, or is truncated" in refused("compare", path, path)
    assert heard == []


def test_no_more_is_read_than_is_declared():
    data = _npy(np.arange(300_000.0))
    stream = Counted(data + bytes(10**6))
    read_array(stream, len(data) + 10**6, "it")
    assert stream.all == len(data)
    assert stream.most <= 2**20


def test_what_is_shorter_than_the_archive_says_is_truncated():
    data = _npy(np.arange(300_000.0))
    with pytest.raises(FastcheckError, match="it is truncated: it declares 2,400,000 bytes and holds 2,399,992"):
        read_array(io.BytesIO(data[:-8]), len(data), "it")


@pytest.mark.parametrize(("dtype", "bytes"), [("<f8", 8), (">f4", 12), ("<f2", 10), ("<i8", 16)])
def test_other_dtypes_need_memory_as_float64_too(monkeypatch, dtype, bytes):
    data = _npy(np.ones(1000, dtype))
    monkeypatch.setattr(machine, "available_bytes", lambda: 1000 * bytes)
    assert read_header(io.BytesIO(data), len(data), "it").needed == 1000 * bytes
    monkeypatch.setattr(machine, "available_bytes", lambda: 1000 * bytes - 1)
    with pytest.raises(FastcheckError, match=r"it declares shape \(1000,\) of .* it does not fit in memory"):
        read_header(io.BytesIO(data), len(data), "it")


@pytest.fixture
def headers_alone(monkeypatch):
    """Lets no operand be read."""

    def read_array(stream, size, what):
        assert what.startswith(("stride in", "padding in", "dilation in", "groups in")), what
        return real(stream, size, what)

    real = array_file.read_array
    monkeypatch.setattr(array_file, "read_array", read_array)
    monkeypatch.setattr(npz, "read_array", read_array)


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path, refused, monkeypatch, headers_alone):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("input", "weight", "grad_output", "grad_weight"):
            archive.writestr(f"{name}.npy", _npy(np.zeros((1, 1, 1, 10**6))))
    assert (tmp_path / "bomb.npz").stat().st_size < 10**5
    monkeypatch.setattr(machine, "available_bytes", lambda: 31 * 10**6)
    told = refused("conv", tmp_path / "bomb.npz")
    assert "bomb.npz has arrays that need 32,000,000 bytes, and 31,000,000 are available" in told


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_bound_are_refused(tmp_path, refused, method):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("input.npy", _npy(np.zeros(10**6)))
    assert "a.npz is compressed with a method that NumPy does not write" in refused("conv", tmp_path / "a.npz")


def test_numpys_own_compression_is_read(tmp_path):
    arrays = {"a": np.arange(100_000.0), "b": np.ones((3, 4), np.float16)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = npz.read_npz(tmp_path / "a.npz")
    assert list(found) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("command", ["conv", "sweep"])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_layer_that_does_not_fit_is_refused_from_its_headers(
    tmp_path, refused, monkeypatch, headers_alone, command, dtype
):
    path = saved(tmp_path / "layer.npz", LAYER, dtype=dtype)
    needed = memory.needed_bytes(layer_case(LAYER).geometry, ("input", "weight", "bias"))
    monkeypatch.setattr(machine, "available_bytes", lambda: needed - 1)
    assert f"needs {needed:,} bytes, and {needed - 1:,} are available" in refused(command, path)


def test_options_win_over_the_file_where_memory_is_looked_at(tmp_path, refused, monkeypatch, headers_alone):
    fewer = layer((1, 3, 6, 6), (4, 3, 3, 3), stride=2, padding=1)
    path = saved(tmp_path / "layer.npz", fewer, stride=np.array(1))
    monkeypatch.setattr(machine, "available_bytes", lambda: 10**7)
    told = refused("conv", path, "--stride", "2")
    needed = memory.needed_bytes(layer_case(fewer).geometry, ("input", "weight", "bias"))
    assert f"needs {needed:,} bytes" in told


def test_what_comparing_needs_is_known_from_headers(tmp_path, refused, run, monkeypatch, headers_alone):
    path, other = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(path, np.ones(1000, np.float16))
    np.save(other, np.ones(1000))
    monkeypatch.setattr(machine, "available_bytes", lambda: 105_999)
    told = refused("compare", path, other)
    assert "needs 106,000 bytes, and 105,999 are available" in told
    monkeypatch.undo()
    assert run("compare", path, other)[0] == 0


LONG = "n" * 60_000


@pytest.mark.parametrize(
    "member",
    [
        (LONG, _npy(np.ones(3))),
        ("input", _claiming((10**4000,))),
        ("input", _claiming((2,) * 2000) + bytes(8)),
        ("input", _claiming((3,), [("field" * 300, "<f8")]) + bytes(8)),
        ("stride", _claiming((3,), [("field" * 300, "<f8")]) + bytes(24)),
    ],
    ids=("name", "size", "axes", "dtype", "option"),
)
def test_refusals_are_short_whatever_a_file_says(tmp_path, refused, member):
    name, data = member
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(f"{name}.npy", data)
        for other in {"weight", "grad_output", "grad_weight", "input"} - {name}:
            archive.writestr(f"{other}.npy", _npy(np.ones((1, 1, 3))))
    assert len(refused("conv", tmp_path / "a.npz")) < 1000


def test_an_archive_that_contradicts_itself_is_not_printed(tmp_path, refused):
    path = saved(tmp_path / "a.npz", LAYER)
    data = path.read_bytes()
    place = data.index(b"grad_weight.npy") - 4
    path.write_bytes(data[:place] + b"\xff\x0f" + data[place + 2 :])
    assert len(refused("conv", path)) < 1000


def test_a_pipe_is_no_gradient(refused, tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    reading, writing = os.pipe()
    try:
        os.write(writing, (tmp_path / "a.npy").read_bytes())
        os.close(writing)
        told = refused("compare", f"/dev/fd/{reading}", tmp_path / "a.npy")
    finally:
        os.close(reading)
    assert f"/dev/fd/{reading} cannot be read" in told


def test_digests_are_of_names_and_of_what_was_read(tmp_path):
    def digest(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        with opened(tmp_path / "a.npz") as file:
            npz.read_npz(file)
            return file.digest

    one, other = np.ones(3), np.zeros(3)
    assert digest(a=one, b=other) == digest(a=one.copy(), b=other.copy())
    others = [
        {"a": other, "b": one},
        {"a": one, "c": other},
        {"a": one},
        {"a": one.astype(np.float32), "b": other},
        {"a": one[:, None], "b": other},
        {"a": one, "b": np.array([0, 0, 5e-324])},
    ]
    found = [digest(a=one, b=other), *(digest(**arrays) for arrays in others)]
    assert len({*found}) == len(found)


def test_every_array_of_a_case_is_in_its_digest(tmp_path):
    made = layer_case(LAYER)
    arrays = {"input": made.input, "weight": made.weight, "bias": made.bias, "grad_output": made.grad_output}
    arrays |= {f"grad_{name}": grad for name, grad in made.grads.items()} | {"output": made.output}
    arrays |= {"stride": np.array(1), "padding": np.array(1), "dilation": np.array(1), "groups": np.array(1)}
    arrays |= {"transposed": np.array(False), "output_padding": np.array(0)}
    arrays |= {"padding_mode": np.array("zeros")}
    arrays |= {"loss": np.array("vjp"), "precision": np.array("float64"), "layout": np.array("NCHW")}

    def digest(**changes):
        np.savez(tmp_path / "a.npz", **arrays | changes)
        with opened(tmp_path / "a.npz") as file:
            assert isinstance(npz_case.load_case(file), fastcheck.ConvCase)
            return file.digest

    changed = {name: array * 2 for name, array in arrays.items() if array.dtype == np.float64}
    changed |= {"padding": np.array([1, 1]), "stride": np.array([1, 1]), "dilation": np.array([1, 1])}
    changed |= {"groups": np.array([1]).reshape(()).astype(np.int32)}
    changed |= {"transposed": np.array(0), "output_padding": np.array([0, 0])}
    changed |= {"padding_mode": np.array("circular")}
    changed |= {"loss": np.array("relu"), "precision": np.array("float32"), "layout": np.array("NCHW", dtype="U9")}
    assert set(changed) == set(arrays) == set(npz_case._KEYS)
    found = [digest(), *(digest(**{name: array}) for name, array in changed.items())]
    assert len({*found}) == len(found)
    assert digest() == found[0]
