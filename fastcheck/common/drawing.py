"""Whether matplotlib, which draws figures, is installed."""

from __future__ import annotations

from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing


def require_matplotlib(what: str) -> None:
    """Refuse to draw where matplotlib is not installed or cannot be loaded.

    Parameters
    ----------
    what : str
        What needs it, as the message's subject.

    Raises
    ------
    FastcheckError
        With the command that installs it.
    """
    try:
        import matplotlib.figure  # noqa: F401, to check that it is installed
    except ImportError:
        raise FastcheckError(f"{what} needs matplotlib: {installing('plot')}") from None
    except Exception as error:  # an invalid setting of its own, such as MPLBACKEND, makes the import fail
        raise FastcheckError(f"{what} needs matplotlib, which cannot be loaded: {error}") from None
