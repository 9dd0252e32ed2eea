"""Published layers, checked: see `fastcheck.workloads.zoo`."""

from fastcheck.workloads.zoo import *  # noqa: F403
