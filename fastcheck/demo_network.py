"""The network of the demonstration: see `fastcheck.workloads.demo_network`."""

from fastcheck.workloads.demo_network import *  # noqa: F403
