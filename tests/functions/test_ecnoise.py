"""Noise of computed functions."""

import math

import numpy as np
import pytest

from fastcheck.functions import ecnoise

RNG = np.random.default_rng(20110406)


@pytest.mark.parametrize("count", [7, 8, 9])
@pytest.mark.parametrize("kind", ["normal", "uniform", "quantised"])
def test_noise_of_known_size_is_found_within_a_factor_of_four(count, kind):
    smooth = np.sin(1 + np.linspace(0, 1e-6, count))[:, None] * RNG.uniform(-3, 3, 2000)
    sizes = 10.0 ** RNG.uniform(-12, -6, 2000)
    if kind == "quantised":
        step = sizes * math.sqrt(12)
        # Samples must be further apart than the quanta that they are rounded to.
        smooth = smooth + np.arange(count)[:, None] * step * RNG.uniform(3, 100, 2000)
        samples = np.rint(smooth / step) * step
    else:
        errors = RNG.normal(size=smooth.shape) if kind == "normal" else RNG.uniform(-1, 1, smooth.shape) * math.sqrt(3)
        samples = smooth + sizes * errors
    ratio = ecnoise.ecnoise(samples) / sizes
    assert 0.7 < np.median(ratio) < 1.3
    # Quanta in step with the samples show nothing: that is why noise is measured in several directions.
    assert np.mean((ratio > 1 / 4) & (ratio < 4)) > (0.75 if kind == "quantised" else 0.97)


def test_exact_values_have_no_noise_and_scales_do_not_matter():
    line = np.arange(9.0) * 0.5 + 3
    assert ecnoise.ecnoise(line) == 0
    samples = RNG.normal(size=(9, 50))
    plain = ecnoise.ecnoise(samples)
    for exponent in (-600, 600):
        assert np.array_equal(ecnoise.ecnoise(np.ldexp(samples, exponent)), np.ldexp(plain, exponent))
    assert [ecnoise.ecnoise(samples[:, i]) for i in range(50)] == pytest.approx(plain, rel=1e-12)


def test_samples_of_a_function_that_rounds_its_argument_are_taken_further_apart():
    asked = []

    def sample(place):
        asked.append(place)
        return np.array(float(np.exp(np.float32(1 + place))))

    found = float(ecnoise.measured(sample, 9, (2.0**-40, 2.0**-30, 2.0**-22)))
    assert (len(asked), max(asked)) == (3 * 9, 9 * 2.0**-22)
    assert math.e * 2**-24 / 4 < found < math.e * 2**-22
    assert np.isnan(ecnoise.measured(lambda place: np.array(math.nan if place > 3 else place), 7, (1.0,)))
