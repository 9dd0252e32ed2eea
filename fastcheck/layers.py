"""Layers of a `fastcheck.Network`, re-exported from `fastcheck.networks.layers`."""

from fastcheck.networks.layers import *  # noqa: F403
