"""The layers of a `fastcheck.Network`."""

from fastcheck.networks.layers import *  # noqa: F403
