"""The exceptions that fastcheck raises on purpose."""

from __future__ import annotations

LONGEST = 400
"""Characters of a message: three or four lines of a terminal."""


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most so many characters; a longer one keeps its beginning and its end."""
    if len(text) <= longest:
        return text
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[-end:]}"


class FastcheckError(ValueError):
    """Bad input, in one line: the argument, its value and what was expected.

    A message longer than `LONGEST` keeps its beginning and its end.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def one_line(error: BaseException) -> str:
    """Return an error in a line that is not long."""
    kind = "" if isinstance(error, FastcheckError) else f"{type(error).__name__}: "
    return shortened(" ".join(f"{kind}{error}".split()))
