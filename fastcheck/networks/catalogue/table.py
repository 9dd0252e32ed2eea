"""All mistakes of a network's backward pass, by what they happen in."""

from __future__ import annotations

from fastcheck.networks.catalogue.activations import ACTIVATIONS
from fastcheck.networks.catalogue.branches import BRANCHES
from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.catalogue.losses import LOSSES
from fastcheck.networks.catalogue.normalisations import NORMALISATIONS
from fastcheck.networks.catalogue.pools import POOLS
from fastcheck.networks.catalogue.weights import WEIGHTS

CATALOGUE: tuple[Hypothesis, ...] = (*LOSSES, *ACTIVATIONS, *POOLS, *NORMALISATIONS, *WEIGHTS, *BRANCHES)
"""Mistakes by kind of layer, or loss; "mean" and "sum" stand for any loss with that reduction."""
