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


def _newer():
    """Layers that do not stand in `_module`, one of them in two places."""
    torch.manual_seed(1)
    twice = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
    body = nn.Sequential(nn.ConvTranspose2d(3, 6, 2, 2, 3, output_padding=1), twice, nn.PReLU(6), twice, nn.Tanh())
    norms = nn.Sequential(nn.GroupNorm(3, 6), nn.Softmax(1), nn.InstanceNorm2d(6, affine=True))
    pools = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True), nn.Flatten())
    return nn.Sequential(body, norms, pools, nn.Linear(54, 5)).double()


def test_a_module_in_two_places_shares_its_parameters():
    module = _newer()
    network = fastcheck.torch.from_sequential(module)
    assert [layer.shares for layer in network.layers if layer.kind == "conv"] == [None, "0.1"]
    assert {"0.1.weight", "0.3.weight"} <= module.state_dict().keys()
    grads = _grads(module, X, nn.functional.cross_entropy)
    assert "0.3.weight" not in grads
    assert fastcheck.check_network(network, module.state_dict(), grads, X, Y, dims=40).passed
    grads["0.1.weight"] = grads["0.1.weight"] * 1.001
    assert fastcheck.check_network(network, module.state_dict(), grads, X, Y, dims=40).verdict == "fail"
    other = {**module.state_dict(), "0.3.weight": 2 * module[0][1].weight.detach()}
    with pytest.raises(FastcheckError, match=r"params has the name '0\.3\.weight'"):
        fastcheck.check_network(network, other, grads, X, Y)


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
        (nn.Sequential(nn.Softmax(2)), "dim is 2: expected 1"),
        (nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), "track_running_stats is True: expected False"),
        (nn.Sequential(nn.AvgPool2d(2, divisor_override=3)), "divisor_override is 3: expected None"),
    ],
)
def test_what_a_network_does_not_have_is_refused(module, words):
    with pytest.raises(FastcheckError, match=words):
        fastcheck.torch.from_sequential(module)


@pytest.mark.parametrize("name", ["a.weight", "a.bias", "a.", "x", "a.running_mean"])
def test_layers_may_not_have_names_of_tensors(name):
    with pytest.raises(FastcheckError, match="has the name"):
        fastcheck.Network([fastcheck.layers.Tanh(name=name)])
