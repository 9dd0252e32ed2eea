"""Hypothesis profiles: the whole search by default, a short one for passes that run kernels slowly."""

import os

from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("whole", max_examples=500, **_COMMON)
settings.register_profile("short", max_examples=12, **_COMMON)
settings.load_profile(os.environ.get("FASTCHECK_TESTS", "whole"))
