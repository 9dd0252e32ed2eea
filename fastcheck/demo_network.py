"""The network of the demo, re-exported from `fastcheck.workloads.demo_network`."""

from fastcheck.workloads.demo_network import *  # noqa: F403
