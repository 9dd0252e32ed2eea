"""Checks of published layers, re-exported from `fastcheck.workloads.zoo`."""

from fastcheck.workloads.zoo import *  # noqa: F403
