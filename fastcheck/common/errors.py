"""The exceptions that fastcheck raises on purpose."""

from __future__ import annotations

LONGEST = 400
"""Characters of a message at most: three or four lines of a terminal."""


def shortened(text: str, longest: int = LONGEST) -> str:
    """Shorten a text to at most ``longest`` characters, and keep its beginning and its end."""
    if len(text) <= longest:
        return text
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[-end:]}"


class FastcheckError(ValueError):
    """Bad input. The message is one line: the argument, its value and what was expected.

    A message longer than `LONGEST` is `shortened`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


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
