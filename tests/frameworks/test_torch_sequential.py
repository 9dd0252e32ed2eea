"""from_sequential: a sequential module is the network that it computes, with its own parameters' names."""

import numpy as np
import pytest
import torch
from torch import nn

import fastcheck
from fastcheck import FastcheckError

X = torch.randn(4, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 4])


def _module():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.LeakyReLU(0.1))
    pools = nn.Sequential(nn.AvgPool2d(2, stride=1), nn.MaxPool2d(2, padding=1), nn.GELU(), nn.Identity())
    return nn.Sequential(body, pools, nn.Dropout(0.0), nn.Flatten(), nn.Linear(54, 5)).double()


def _grads(module, x, loss):
    named = dict(module.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss(module(x), Y), list(named.values())), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_a_module_and_its_network_have_the_same_gradient(training):
    module = _module().train(training)
    network = fastcheck.torch.from_sequential(module)
    grads = _grads(module, X, nn.functional.cross_entropy)
    assert next(iter(grads)) == "0.0.weight"
    assert fastcheck.check_network(network, module.state_dict(), grads, X, Y, dims=40).passed
    grads["4.weight"] = grads["4.weight"] * 1.001
    report = fastcheck.check_network(network, module.state_dict(), grads, X, Y, dims=40)
    assert report.verdict == "fail"


def test_options_are_those_of_a_network():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2), nn.Tanh()).double()
    network = fastcheck.torch.from_sequential(module, "squared_error", l2=0.1, reduction="sum")
    target = torch.ones(4, 2, dtype=torch.float64)
    weight = module[2].weight
    value = ((module(X) - target) ** 2).sum() / 2 + 0.05 * (weight**2).sum()
    grads = dict(zip(("2.weight", "2.bias"), torch.autograd.grad(value, [weight, module[2].bias]), strict=True))
    assert fastcheck.check_network(network, module.state_dict(), grads, X, target).passed
    wrong = {name: np.zeros_like(grad) for name, grad in grads.items()}
    assert not fastcheck.check_network(network, module.state_dict(), wrong, X, target).passed


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(2, 2), "module is 'Linear': expected a torch.nn.Sequential"),
        (nn.Sequential(nn.Tanh(), nn.LSTM(3, 3)), "module '1' is LSTM: no layer of a network is one"),
        (nn.Sequential(nn.BatchNorm2d(3, affine=False)), r"module '0' \(BatchNorm2d\): affine is False: expected True"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2)), "output_size is 2: expected 1"),
        (nn.Sequential(nn.Flatten(2)), "start_dim is 2: expected 1"),
    ],
)
def test_what_a_network_does_not_have_is_refused(module, words):
    with pytest.raises(FastcheckError, match=words):
        fastcheck.torch.from_sequential(module)


@pytest.mark.parametrize("name", ["a.weight", "a.bias", "a.", "x", "a.running_mean"])
def test_layers_may_not_have_names_of_tensors(name):
    with pytest.raises(FastcheckError, match="has the name"):
        fastcheck.Network([fastcheck.layers.Tanh(name=name)])
