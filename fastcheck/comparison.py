"""Two gradients that the user already has, judged by the rules of thumb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastcheck import tally, verdict
from fastcheck.cases.arrays import as_floating
from fastcheck.errors import FastcheckError
from fastcheck.geometry import index_of
from fastcheck.naming import nearest
from fastcheck.report import Kept, TensorReport


def pairs(analytic: Any, numeric: Any) -> dict[str, tuple[Any, Any]]:
    """Match two arrays, or two mappings of arrays, by name."""
    if isinstance(analytic, Mapping) != isinstance(numeric, Mapping):
        raise FastcheckError("analytic and numeric are an array and a mapping: expected two arrays or two mappings")
    if not isinstance(analytic, Mapping):
        return {"gradient": (analytic, numeric)}
    for one, other, name in ((analytic, numeric, "numeric"), (numeric, analytic, "analytic")):
        for key in one:
            if key not in other:
                raise FastcheckError(f"{name} has no {key!r}{nearest(key, map(str, other))}")
    if not analytic:
        raise FastcheckError("analytic is an empty mapping: expected at least one array")
    return {str(key): (analytic[key], numeric[key]) for key in analytic}


def compared(name: str, analytic: Any, numeric: Any, keep: bool) -> TensorReport:
    """Compare one pair of arrays."""
    a, n = as_floating(f"analytic {name}", analytic), as_floating(f"numeric {name}", numeric)
    if a.shape != n.shape:
        raise FastcheckError(f"numeric {name} has shape {n.shape}: expected {a.shape}, that of analytic {name}")
    if not a.size:
        raise FastcheckError(f"analytic {name} is empty: it has shape {a.shape}")
    flat_a, flat_n = a.astype(np.float64).ravel(), n.astype(np.float64).ravel()
    finite = np.isfinite(flat_n)
    if not finite.all():
        place = list(index_of(int(np.argmin(finite)), n.shape))
        raise FastcheckError(f"numeric {name} is {n[tuple(place)]} at index {place}: expected finite numbers")
    every = np.arange(a.size)
    folded = tally.fold(every, flat_a, flat_n, None)
    kept = Kept(every, flat_a, flat_n, None) if keep else None
    return TensorReport.of(folded, verdict.of_arrays(folded), a.shape, kept=kept)
