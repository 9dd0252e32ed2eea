"""Kernels, used: as a program, of "convolutions" or "networks"; prints which ones, and whether the cache had them."""

import importlib
import json
import pkgutil
import sys
from concurrent.futures import ThreadPoolExecutor

import network_examples
import numpy as np
import torch_network
from layer_examples import case, layer

import fastcheck
import fastcheck_kernels
from fastcheck.convolutions import passes


def convolutions():
    """Check convolutions of every rank, dtype and form by every evaluator."""
    for made in (
        case(layer((2, 4, 9, 9), (6, 2, 3, 3), stride=2, padding=1, groups=2)),
        case(layer((1, 3, 20), (4, 3, 5), dilation=2), dtype=np.float32),
        case(layer((1, 2, 4, 5, 6), (2, 2, 2, 2, 2))),
        case(layer((1, 4, 3, 3), (256, 4, 3, 3), padding=1)),
        case(layer((1, 4, 3, 3), (2, 4, 3, 3))),
    ):
        for evaluator in ("local", "full", "delta"):
            assert fastcheck.check(made, dims=30, evaluator=evaluator).passed
        with ThreadPoolExecutor(1) as pool:
            passes.backward(made.geometry, made.input, made.weight, made.grad_output, pool)


def network():
    """Check a network by both evaluators, and explain what it finds."""
    made, params, x, y, masks = network_examples.CASES["cnn"](0)
    grads = torch_network.gradients(made, params, x, y, masks)[1]
    for evaluator in ("network", "full"):
        assert fastcheck.check_network(made, params, grads, x, y, dims=30, evaluator=evaluator, explain=True).passed


USES = {"convolutions": convolutions, "networks": network}


def kernels():
    """Return every kernel that this process has compiled or loaded."""
    names = [module.name for module in pkgutil.iter_modules(fastcheck_kernels.__path__, "fastcheck_kernels.")]
    modules = [importlib.import_module(name) for name in names]
    return {kernel for module in modules for kernel in vars(module).values() if getattr(kernel, "signatures", None)}


if __name__ == "__main__":
    USES[sys.argv[1]]()
    used = kernels()
    print(
        json.dumps(
            {
                "signatures": {kernel.py_func.__name__: len(kernel.signatures) for kernel in used},
                "hits": sum(sum(kernel.stats.cache_hits.values()) for kernel in used),
                "misses": sum(sum(kernel.stats.cache_misses.values()) for kernel in used),
            }
        )
    )
