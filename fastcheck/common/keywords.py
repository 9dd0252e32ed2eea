"""Keyword arguments of public functions: unknown ones are refused by what they mean."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import remark
from fastcheck.common.naming import nearest, offered, quoted

P = ParamSpec("P")
R = TypeVar("R")


def refuse_unknown_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse unknown keyword arguments by a FastcheckError that names the nearest meaning.

    The signature that ``help`` shows remains the function's.
    """
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    title = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True  # pytest's: the traceback ends at the caller's line
        for name in kwargs:
            if name not in known:
                free = [other for other in known if other not in kwargs]
                advice = f": {remark(name)}" if remark(name) else f"{nearest(name, free)}: expected {offered(known)}"
                raise FastcheckError(f"{title} has no argument {quoted(name)}{advice}")
        return function(*args, **kwargs)

    return called
