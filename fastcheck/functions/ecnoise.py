"""ECnoise: the noise of a computed function, estimated from samples.

J. J. Moré and S. M. Wild, Estimating Computational Noise, SIAM J. Sci. Comput. 33 (2011), pages 1292-1314. Along a
line, k-th differences of equally spaced samples remove nearly all of a smooth function, while independent errors of
variance s^2 give them the variance s^2 / gamma_k with gamma_k = (k!)^2 / (2k)!. Each order of the difference table is
therefore an estimate of s. Orders are trusted where they agree with each other and change sign as noise does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

FAR = 0.1
"""Samples that differ by more than this fraction of their size are too far apart (Moré and Wild, ECnoise)."""

SPIKE = 8.0
"""Ratio to all other second differences from which one, or two neighbours, are attributed to a kink."""

AGREEMENT = 4.0
"""Largest ratio between the estimates of three consecutive orders that count as noise (Moré and Wild, ECnoise)."""


def ecnoise(samples: np.ndarray) -> np.ndarray:
    """Estimate the standard deviation of the noise in equally spaced samples.

    Parameters
    ----------
    samples : float array, shape (m, ...)
        Values at m >= 5 equally spaced points of a line, the same points for every entry of the trailing axes. Moré
        and Wild take 7 to 9, so close together that the function itself is nearly a straight line there.

    Returns
    -------
    float64 array, shape (...)
        The first of three consecutive orders that agree within `AGREEMENT` and whose differences change sign. Without
        such orders, the smallest estimate of all, which is more likely too large than too small; 0 where orders
        vanish, as they do for exact values. A kink among the samples is ignored.
    """
    trusted, first, least = _estimates(samples)
    return np.where(trusted, first, least)


def _estimates(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether some estimate can be trusted, that estimate, and the smallest of all."""
    levels, changing = _levels(samples)
    agreeing = np.stack(
        [np.max(levels[k : k + 3], 0) <= AGREEMENT * np.min(levels[k : k + 3], 0) for k in _orders(levels)]
    )
    trusted = agreeing & changing[: len(agreeing)]
    first = np.take_along_axis(levels, trusted.argmax(0)[None], 0)[0]
    least = np.minimum(levels[: len(agreeing)].min(0), _beside_a_kink(samples))
    kinked = least < first / AGREEMENT
    return trusted.any(0) & ~kinked, first, least


def _beside_a_kink(samples: np.ndarray) -> np.ndarray:
    """Return the noise from second differences without those at a kink; infinity where there is no kink.

    Where samples step over a kink, one second difference is large, or two neighbours of the same sign are. Over a
    jump, two neighbours of opposite signs are.
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
    return np.where(clear & (single | double), noise, np.inf)


def _orders(levels: np.ndarray) -> range:
    return range(len(levels) - 2)


def _levels(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the estimate from every order, the first included, and whether that order's differences change sign."""
    levels, changing = [], []
    differences, gamma = np.asarray(samples, np.float64), 1.0
    for k in range(1, len(samples)):
        differences = np.diff(differences, axis=0)
        gamma *= k / (2 * (2 * k - 1))
        largest = np.abs(differences).max(0)
        size = np.where(largest > 0, largest, 1.0)  # divided by before squaring, so that nothing underflows
        levels.append(largest * np.sqrt(gamma * np.mean((differences / size) ** 2, axis=0)))
        changing.append((differences.min(0) < 0) & (differences.max(0) > 0))
    return np.stack(levels), np.stack(changing)


def measured(
    sample: Callable[[float], np.ndarray], count: int, spacings: Sequence[float], more: int = 0, rounded: bool = False
) -> np.ndarray:
    """Estimate the noise of a function along a line, with samples spaced far enough apart to show it.

    Where a function rounds its argument (to float32, say), closer samples are equal and show no noise. The line's
    origin is left out, so that all samples lie on one side of a kink there.

    Parameters
    ----------
    sample : callable
        Takes a coordinate on the line and returns an array, of the same shape everywhere.
    count : int
        Samples for each spacing.
    spacings : sequence of float
        Ascending. The first one at which neighbouring samples differ more often than not is used. If there is none,
        the function is piecewise constant and has no noise; or, if it is known to be ``rounded``, the last is used.
    rounded : bool
        Whether the function is known to round its argument.
    more : int
        Number of further spacings to sample; the largest estimate counts. An error made early in a function may
        change more slowly than the last rounding. An estimate that does not look like noise at these spacings is
        ignored: it may be the function's own curvature.

    Returns
    -------
    float64 array
        As `ecnoise` returns it; nan where samples are not finite.
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
    noise = _finite_noise(samples)
    for spacing in itertools.islice(left, more):
        samples = _samples(sample, count, spacing)
        close = np.ptp(samples, axis=0) <= FAR * np.abs(samples).max(0)
        noise = np.where(close, np.fmax(noise, _finite_noise(samples, trusted_only=True)), noise)
    return noise


def _samples(sample: Callable[[float], np.ndarray], count: int, spacing: float) -> np.ndarray:
    return np.stack([sample(j * spacing) for j in range(1, count + 1)])


def _finite_noise(samples: np.ndarray, trusted_only: bool = False) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        trusted, first, least = _estimates(samples)
        noise = np.where(trusted, first, 0.0 if trusted_only else least)
        finite: np.ndarray = np.where(np.isfinite(samples).all(0), noise, np.nan)
    return finite


def _rising(samples: np.ndarray) -> bool:
    """Return whether a scalar function is flat and then changes at every sample: a kink rather than rounding.

    A function that rounds its argument has steps, with equal neighbours on each.
    """
    if samples.ndim > 1:
        return False
    equal = samples[1:] == samples[:-1]
    run = int(np.argmin(equal)) if not equal.all() else len(equal)
    return 1 <= run < len(equal) and not equal[run:].any()


def _apart(samples: np.ndarray) -> bool:
    """Return whether at least half of all neighbours differ, among entries that vary at all."""
    differ = samples[1:] != samples[:-1]
    varying = differ.any(0)
    return bool(varying.any() and 2 * differ.sum() >= (len(samples) - 1) * varying.sum())
