"""The noise of a computed function, read off samples of it: ECnoise.

J. J. Moré and S. M. Wild, Estimating Computational Noise, SIAM J. Sci. Comput. 33 (2011), pages 1292-1314. Along a
line, the k-th differences of equally spaced samples leave of a smooth function next to nothing, while independent
errors of variance s^2 give them the variance s^2 / gamma_k with gamma_k = (k!)^2 / (2k)!. So each order of the
difference table is an estimate of s, and orders that agree with each other, and change sign as noise does, are
believed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

FAR = 0.1
"""Samples that differ by more than this part of their size are too far apart (Moré and Wild, ECnoise)."""

SPIKE = 8.0
"""Times as large as all other second differences that one of a kink, or two beside each other, stand out."""

AGREEMENT = 4.0
"""How far apart the estimates of three consecutive orders may be where they count as noise (Moré and Wild, ECnoise)."""


def ecnoise(samples: np.ndarray) -> np.ndarray:
    """Estimate the standard deviation of the noise in equally spaced samples.

    Parameters
    ----------
    samples : float array, shape (m, ...)
        Values at m >= 5 equally spaced points of a line, the same for every entry of the trailing axes. Moré and Wild
        take 7 to 9, so close together that the function itself is nearly a straight line there.

    Returns
    -------
    float64 array, shape (...)
        The first of three consecutive orders that agree within `AGREEMENT` and whose differences change sign. Where
        there is none the smallest of all, which is more likely too large than too small; and 0 where orders vanish, as
        they do for exact values. A kink among the samples does not count.
    """
    believed, first, least = _estimates(samples)
    found: np.ndarray = np.where(believed, first, least)
    return found


def _estimates(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether there is an estimate to be believed, that estimate, and the smallest of all."""
    levels, changing = _levels(samples)
    agreeing = np.stack(
        [np.max(levels[k : k + 3], 0) <= AGREEMENT * np.min(levels[k : k + 3], 0) for k in _orders(levels)]
    )
    believed = agreeing & changing[: len(agreeing)]
    first = np.take_along_axis(levels, believed.argmax(0)[None], 0)[0]
    least = np.minimum(levels[: len(agreeing)].min(0), _beside_a_kink(samples))
    kinked = least < first / AGREEMENT
    return believed.any(0) & ~kinked, first, least


def _beside_a_kink(samples: np.ndarray) -> np.ndarray:
    """Return the noise by second differences without those of a kink, infinity where there is none.

    Where samples step over a kink, one of them is large, or two beside each other of one sign; over a jump, two of
    opposite signs.
    """
    second = np.diff(np.asarray(samples, np.float64), 2, axis=0)
    sizes = np.abs(second)
    order = np.argsort(sizes, axis=0)
    largest, next_largest = (np.take_along_axis(second, order[-k][None], 0)[0] for k in (1, 2))
    rest = np.take_along_axis(sizes, order[:-2], 0)
    single = np.abs(largest) >= SPIKE * np.abs(next_largest)
    double = (np.abs(order[-1] - order[-2]) == 1) & (np.sign(largest) == np.sign(next_largest))
    clear = (np.abs(largest) >= SPIKE * rest.max(0)) & (rest.max(0) > 0)
    size = np.where(rest.max(0) > 0, rest.max(0), 1.0)
    noise = size * np.sqrt(np.mean((rest / size) ** 2, axis=0) / 6)
    found: np.ndarray = np.where(clear & (single | double), noise, np.inf)
    return found


def _orders(levels: np.ndarray) -> range:
    return range(len(levels) - 2)


def _levels(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the estimate of every order from the first on, and whether its differences change sign."""
    levels, changing = [], []
    differences, gamma = np.asarray(samples, np.float64), 1.0
    for k in range(1, len(samples)):
        differences = np.diff(differences, axis=0)
        gamma *= k / (2 * (2 * k - 1))
        largest = np.abs(differences).max(0)
        size = np.where(largest > 0, largest, 1.0)  # divided before squared, so that nothing underflows
        levels.append(largest * np.sqrt(gamma * np.mean((differences / size) ** 2, axis=0)))
        changing.append((differences.min(0) < 0) & (differences.max(0) > 0))
    return np.stack(levels), np.stack(changing)


def measured(
    sample: Callable[[float], np.ndarray], count: int, spacings: Sequence[float], more: int = 0, rounded: bool = False
) -> np.ndarray:
    """Estimate the noise of a function along a line, with samples spaced far enough apart to show it.

    Where a function rounds its argument (to float32, say) closer samples are equal, and nothing would be seen. The
    line's origin is left out: all samples are on one side of a kink that lies there.

    Parameters
    ----------
    sample : callable
        Takes a place on the line and returns an array, of one shape for all places.
    count : int
        Samples for each spacing.
    spacings : sequence of float
        Ascending. The first one is taken at which neighbouring samples differ more often than not. Where they never do,
        the function is constant in pieces, and has no noise; or, where it is known to be ``rounded``, the last counts.
    rounded : bool
    more : int
        How many of the next spacings are taken as well: the largest estimate counts. An error made early in a
        function may change more slowly than the last rounding. What does not look like noise at these does not count:
        it may be the function's own curvature.

    Returns
    -------
    float64 array
        As `ecnoise` gives it; nan where samples are not finite.
    """
    left = iter(spacings)
    for spacing in left:
        samples = _samples(sample, count, spacing)
        if _rising(samples):
            return np.zeros(samples.shape[1:])
        if _apart(samples):
            break
    else:
        if not rounded:
            return np.where(np.isfinite(samples).all(0), 0.0, np.nan)
    found = _finite_noise(samples)
    for spacing in itertools.islice(left, more):
        samples = _samples(sample, count, spacing)
        close = np.ptp(samples, axis=0) <= FAR * np.abs(samples).max(0)
        found = np.where(close, np.fmax(found, _finite_noise(samples, believed_alone=True)), found)
    return found


def _samples(sample: Callable[[float], np.ndarray], count: int, spacing: float) -> np.ndarray:
    return np.stack([sample(j * spacing) for j in range(1, count + 1)])


def _finite_noise(samples: np.ndarray, believed_alone: bool = False) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        believed, first, least = _estimates(samples)
        noise = np.where(believed, first, 0.0 if believed_alone else least)
        found: np.ndarray = np.where(np.isfinite(samples).all(0), noise, np.nan)
    return found


def _rising(samples: np.ndarray) -> bool:
    """Tell whether a function of one value is flat, and then moves at every sample: a kink, and no rounding.

    One that rounds its argument has steps, and equal neighbours on them.
    """
    if samples.ndim > 1:
        return False
    equal = samples[1:] == samples[:-1]
    run = int(np.argmin(equal)) if not equal.all() else len(equal)
    return 1 <= run < len(equal) and not equal[run:].any()


def _apart(samples: np.ndarray) -> bool:
    """Tell whether at least half of the neighbours differ, among entries that vary at all."""
    differ = samples[1:] != samples[:-1]
    varying = differ.any(0)
    return bool(varying.any() and 2 * differ.sum() >= (len(samples) - 1) * varying.sum())
