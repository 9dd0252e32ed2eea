"""The exceptions that fastcheck raises on purpose."""

from __future__ import annotations

import re

LONGEST = 400
"""Characters of a message at most."""

_LINES = 3 * 80 - len("fastcheck: ")
"""Characters of a message at most, except for what its paths take beyond `_PATH_WITHIN`: with the program's name, three
lines of a terminal."""

_PATH_WITHIN = 20

_WORD = re.compile(r"""[^\s'"]+""")


def shortened(text: str, longest: int = LONGEST) -> str:
    """Shorten a text to at most ``longest`` characters, and keep its beginning and its end."""
    if len(text) <= longest:
        return text
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[-end:]}"


def as_message(text: str) -> str:
    """Shorten a text to three lines of a terminal, and what long paths take, but to no more than `LONGEST`."""
    paths = sum(max(0, len(word) - _PATH_WITHIN) for word in _WORD.findall(text) if "/" in word)
    return shortened(text, min(LONGEST, _LINES + paths))


class FastcheckError(ValueError):
    """Bad input. The message is one line: the argument, its value and what was expected.

    It is shortened by `as_message`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(as_message(message))


FastcheckError.__module__ = "fastcheck"  # its public name, which tracebacks print


def raised_by(name: str, error: BaseException, where: str = "") -> FastcheckError:
    """Return a user function's exception as a one-line error, chained."""
    words = " ".join(str(error).split())
    after = f" {where}" * bool(where) + f": {words}" * bool(words)
    chained = FastcheckError(f"{name} raises {type(error).__name__}{after}")
    chained.__cause__ = error
    return chained


def one_line(error: BaseException) -> str:
    """Return an error as one line of at most `LONGEST` characters."""
    kind = "" if isinstance(error, FastcheckError) else f"{type(error).__name__}: "
    return shortened(" ".join(f"{kind}{error}".split()))
