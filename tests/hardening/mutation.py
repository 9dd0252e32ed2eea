"""Seeded changes of bytes, of numbers and of trees of values: what every kind of file is made wrong with."""

import copy
import struct

INTEGERS = (0, 1, 2, 3, -1, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, -(2**63))
BEYOND = (2**63, 2**64, -(2**64), 10**20, 10**310)
"""Integers of more than 64 bits."""

FLOATS = (
    0.0,
    -0.0,
    0.5,
    -1.5,
    1e-12,
    5e-324,
    2.3e-308,
    1e-160,
    1e160,
    1.7e308,
    float("inf"),
    float("-inf"),
    float("nan"),
)

TEXTS = (
    *("", " ", "x", "nan", "1e999", "-", "..", "../x", "/", "é✓", "a,b;c", "=cmd()", "[bold]x", "x" * 5000),
    *("\0", "\n", "\r\n", "\x1b[31m", "\u202e", "\ufffe", "\ud800"),
)

VALUES = (*INTEGERS, *BEYOND, *FLOATS, *TEXTS, True, False, None, [], {}, [[]], [1, 2, 3], {"x": 1}, [{}])
"""What stands in the place of a value of a tree."""

_PACKED = ["<B", "<H", "<I", "<Q", ">H", ">I", ">Q", "<d"]


def _place(rng, data):
    """Choose where a chunk begins and ends: most are short."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 30, rng.randrange(1, 500))))


def _flip(rng, data, tokens, other):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng, data, tokens, other):
    start, end = _place(rng, data)
    return data[:start] + rng.choice((rng.randbytes, bytes, lambda n: b"\xff" * n))(end - start) + data[end:]


def _number(rng, data, tokens, other):
    """Put a number at the boundary of its type anywhere."""
    packed = rng.choice(_PACKED)
    size = struct.calcsize(packed)
    top = 2 ** (8 * size)
    value = rng.choice(FLOATS) if packed == "<d" else rng.choice((0, 1, top // 2 - 1, top // 2, top - 1))
    start = rng.randrange(len(data) + 1)
    return data[:start] + struct.pack(packed, value) + data[start + size :]


def _truncate(rng, data, tokens, other):
    return data[: rng.randrange(len(data) + 1)]


def _delete(rng, data, tokens, other):
    start, end = _place(rng, data)
    return data[:start] + data[end:]


def _insert(rng, data, tokens, other):
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice((*tokens, rng.randbytes(5))) + data[start:]


def _replace(rng, data, tokens, other):
    """Put one of the format's words in the place of another."""
    present = [token for token in tokens if token and token in data]
    if not present:
        return _insert(rng, data, tokens, other)
    return data.replace(rng.choice(present), rng.choice(tokens), rng.choice((1, 1, -1)))


def _double(rng, data, tokens, other):
    start, end = _place(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def _splice(rng, data, tokens, other):
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_CHANGES = (_flip, _overwrite, _number, _truncate, _delete, _insert, _replace, _double, _splice)


def changed_bytes(rng, data, tokens=(b"\0",), other=b""):
    """Return a file's bytes after one to four changes; ``tokens`` are words of its format, ``other`` another file."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_CHANGES)(rng, data, tokens, other)
    return data


def changed_tree(rng, tree, values=VALUES):
    """Change a tree of dicts and lists, in place, at one to three places, and return it."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not tree:
            break
        holder, key = _descent(rng, tree)
        value = holder[key]
        what = rng.choice(("value", "value", "value", "near", "near", "gone", "renamed", "twice", "elsewhere"))
        if what == "value":
            holder[key] = copy.deepcopy(rng.choice(values))
        elif what == "near":
            holder[key] = _near(rng, value)
        elif what == "gone":
            del holder[key]
        elif what == "renamed" and isinstance(holder, dict):
            holder[rng.choice((f"{key}x", str(key)[:-1], str(key).upper(), *TEXTS))] = holder.pop(key)
        elif what == "twice" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        else:
            other, place = _descent(rng, tree)
            other[place] = copy.deepcopy(value)
    return tree


def _descent(rng, tree):
    """Choose a place, (holder, key): any way down is as likely as the others, however much lies below."""
    while True:
        key = rng.choice(tuple(tree) if isinstance(tree, dict) else range(len(tree)))
        below = tree[key]
        if not isinstance(below, dict | list) or not below or rng.random() < 0.2:
            return tree, key
        tree = below


def _near(rng, value):
    """Return a value like another one: next to it, of another sign or type, or within a list."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return rng.choice(([value], str(value), None))
    return rng.choice((value + 1, value - 1, -value, 2 * value, 0.5, str(value), [value]))
