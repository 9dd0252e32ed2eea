"""Arrays in files, made wrong: values, shapes, dtypes, headers that lie, and archives that do."""

import io
import struct
import zipfile

import numpy as np
from mutation import FLOATS, INTEGERS, TEXTS, changed_bytes

TOKENS = (
    *(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"\x93NUMPY", b"\1\0", b"\2\0", b"\3\0", b".npy", b"input", b"weight", b"x"),
    *(b"'descr'", b"'fortran_order'", b"'shape'", b"True", b"False", b"()", b"(-1,)", b"(3,)", b"(99999999999,)"),
    *(b"'<f8'", b"'>f8'", b"'<f4'", b"'<f2'", b"'|O'", b"'<c16'", b"'<i8'", b"'<U5'", b"'|V8'", b"[('a', '<f8')]"),
)

_DTYPES = [">f8", "f4", "f2", "g", "c16", "i8", ">i8", "u8", "u1", "b1", "U1", "S3", "V8", "M8[s]", "O"]

_DESCRIPTIONS = (
    *("'<f8'", "'>f8'", "'<f4'", "'<f2'", "'<f16'", "'|O'", "'<c16'", "'<i8'", "'|u1'", "'|b1'", "'<U9'", "'<U0'"),
    *("'|V0'", "'|V8'", "'<M8[s]'", "[('a', '<f8')]", "[('a', '<f8', (9999999,))]", "[]", "''", "None", "3", "'x' * 9"),
)
_SHAPES = (
    *("()", "(0,)", "(1,)", "(-1,)", "(3, -3)", "(2**40,)", "(1099511627776,)", "(4294967296, 4294967296)", "(True,)"),
    *(f"({10**20},)", "(1.5,)", "('x',)", "3", "None", "[3]", f"({'1, ' * 40})", f"({'1, ' * 99})", "(0, 99999999999)"),
)

_LOCAL, _CENTRAL, _END = (4, 6, 8, 14, 18, 22, 26, 28), (8, 10, 16, 20, 24, 28, 30, 32, 42), (8, 10, 12, 16, 20)
"""Offsets of the fields of a zip file's headers: version, flags, method, checksum, sizes, lengths, places."""
_HEADERS = {b"PK\3\4": _LOCAL, b"PK\1\2": _CENTRAL, b"PK\5\6": _END}


def npy(array):
    """Return an array as an .npy file, pickled where it must be."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=True)
    return stream.getvalue()


def npz(members, method=zipfile.ZIP_STORED):
    """Return an archive of pairs of a name and bytes, which may repeat a name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.fp.flush()
            archive.NameToInfo.pop(name, None)  # or zipfile warns of a name that stands twice
            archive.writestr(info, data)
    return stream.getvalue()


def archive(arrays):
    """Return an .npz file of arrays by name."""
    return npz([(f"{name}.npy", npy(array)) for name, array in arrays.items()])


def changed_array(rng, array):
    """Return an array that is wrong in its values, its shape, its dtype or its layout."""
    with np.errstate(all="ignore"):
        return rng.choice((_entry, _entry, _all, _scaled, _cast, _shaped, _laid_out))(rng, np.array(array))


def _entry(rng, array):
    if array.size and array.dtype.kind in "fiu":
        array.flat[rng.randrange(array.size)] = rng.choice(FLOATS) if array.dtype.kind == "f" else rng.randrange(5)
    return array


def _all(rng, array):
    return np.full_like(array, rng.choice(FLOATS)) if array.dtype.kind == "f" else array


def _scaled(rng, array):
    factor = rng.choice((-1, 1e-308, 5e-324, 1e-155, 1e155, 1e300))
    return array * array.dtype.type(factor) if array.dtype.kind == "f" else array


def _cast(rng, array):
    try:
        return array.astype(rng.choice(_DTYPES))
    except Exception:  # of numbers that do not fit, of dates as texts that are too short
        return array.astype("O")


def _shaped(rng, array):
    if not array.ndim:
        return array[None]
    changes = (
        np.ravel,
        np.transpose,
        np.sum,
        np.atleast_3d,
        lambda a: a[None],
        lambda a: a[..., None],
        lambda a: a[:0],
    )
    return rng.choice((*changes, lambda a: a[..., :-1], lambda a: np.concatenate((a, a))))(array)


def _laid_out(rng, array):
    return rng.choice((np.asfortranarray, lambda a: a.byteswap().view(a.dtype.newbyteorder())))(array)


def odd_option(rng):
    """Return what may stand under a key that is to be an integer, a few, or a word."""
    value = rng.choice(
        (*INTEGERS, 2**63 + 1, np.uint8(0), np.int8(-1), True, 1.5, b"x", "same", "valid", "tanh", *TEXTS)
    )
    return np.full(rng.choice(((), (), (1,), (2,), (3,), (2, 2), (2, 3), (0,), (1, 1, 1))), value)


def lying(rng, array):
    """Return an .npy file whose header does not describe its data, or is of another version or length."""
    array = np.asanyarray(array)
    description = rng.choice((repr(array.dtype.str), rng.choice(_DESCRIPTIONS)))
    shape = rng.choice((repr(array.shape), rng.choice(_SHAPES)))
    order = rng.choice(("False", "False", "True", "None", "'x'"))
    text = f"{{'descr': {description}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = rng.choice(
        (text, text, text, text[:-2], f"{text}x", text.replace("'shape'", "'form'"), "{" * 300, "9" * 5000)
    )
    data = f"{text:<{rng.choice((117, 53, 1000))}}\n".encode("latin-1")
    version = rng.choice(((1, 0), (1, 0), (2, 0), (3, 0), (0, 0), (4, 0), (255, 255)))
    length = rng.choice((len(data), len(data), len(data), 0, 5, 2**16 - 1, len(data) + 7))
    length = rng.choice((length, 2**32 - 1, 2**30)) if version[0] > 1 else length
    head = b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] < 2 else "<I", length)
    return head + data + array.tobytes()


def lying_archive(rng, arrays):
    """Return an .npz file whose members are repeated, renamed, compressed or folders, or whose own headers lie."""
    members = [(f"{name}.npy", npy(array)) for name, array in arrays.items()]
    name, data = rng.choice(members)
    extra = rng.choice(((name, data), (name[:-4], data), (f"{name}.npy", data), ("input/", b""), ("../x.npy", data)))
    more = rng.choice(
        (("é\n\x1b[31m.npy", data), ("x" * 3000, data), (".npy", data), ("", b""), (name, b""), (name, b"x"))
    )
    members.insert(rng.randrange(len(members) + 1), rng.choice((extra, more)))
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    if rng.random() < 0.4:
        return npz(members, method)
    return _lying_headers(rng, npz(members[:-1], method))


def _lying_headers(rng, data):
    mark = rng.choice(tuple(_HEADERS))
    places = [place for place in range(len(data)) if data.startswith(mark, place)]
    start = rng.choice(places) + rng.choice(_HEADERS[mark])
    number = struct.pack(
        *rng.choice((("<H", 0), ("<H", 1), ("<H", 8), ("<H", 99), ("<I", 0), ("<I", 5), ("<I", 2**32 - 1)))
    )
    return data[:start] + number + data[start + len(number) :]


def changed_archive(rng, arrays, other=b""):
    """Return an .npz file of arrays by name that is wrong somewhere: its bytes, its headers, an array or a name."""
    changed = dict(arrays)
    name = rng.choice(tuple(changed))
    what = rng.choice(("bytes", "zip", "header", "array", "array", "array", "name", "gone", "more"))
    if what == "bytes":
        return changed_bytes(rng, archive(changed), TOKENS, other)
    if what == "zip":
        return lying_archive(rng, changed)
    if what == "header":
        members = {key: npy(array) for key, array in changed.items()} | {name: lying(rng, changed[name])}
        return npz([(f"{key}.npy", data) for key, data in members.items()])
    if what == "array":
        for _ in range(rng.choice((1, 1, 2))):
            changed[name] = changed_array(rng, changed[name])
            name = rng.choice(tuple(changed))
    elif what == "name":
        changed[rng.choice((f"{name}x", name[:-1], name.upper(), *TEXTS[:20]))] = changed.pop(name)
    elif what == "gone":
        del changed[name]
    else:
        changed[rng.choice(("x", "stride", "groups", "bias", "loss", "mask.x", f"{name}.x"))] = odd_option(rng)
    return archive(changed)
