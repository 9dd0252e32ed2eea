"""Published layers have the totals that were published, and fit on to each other."""

import math

import pytest

from fastcheck.workloads.published import NETWORKS

# Layers, weights, biases and multiply-adds of one pass. They follow from published parameter counts by subtracting
# classifiers and normalisations: 25,557,032 - 2,049,000 - 53,120 for ResNet-50, 3,504,872 - 1,281,000 - 34,112 for
# MobileNetV2, 28,589,128 - 769,000 - 22,944 (norms and layer scales) - 41,184 biases for ConvNeXt-T. Multiply-adds tell
# arrangements with the same weights apart: with the stride in its first 1x1, ResNet-50 takes 3.8 billion.
TOTALS = {
    "alexnet": (5, 2_332_704, 1_376, 665_784_864),
    "vgg16": (13, 14_710_464, 4_224, 15_346_630_656),
    "resnet50": (53, 23_454_912, 0, 4_087_136_256),
    "mobilenet_v2": (52, 2_189_760, 0, 299_494_272),
    "convnext_t": (58, 27_756_000, 41_184, 4_454_763_264),
    "audio": (43, 624_640, 6_880, 9_994_240_000),
    "c3d": (8, 27_653_184, 2_752, 38_496_632_832),
}

# Layers whose input is the network's own, and those that come after pooling.
FIRST_AND_POOLED = {
    "alexnet": ["conv1", "conv2", "conv3"],
    "vgg16": ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"],
    "resnet50": ["conv1", "layer1.0.conv1"],
    "mobilenet_v2": ["features.0.0"],
    "convnext_t": ["downsample_layers.0.0"],
    "audio": ["causal_layer"],
    "c3d": ["conv1a", "conv2a", "conv3a", "conv4a", "conv5a"],
}

LAST = {
    "alexnet": (256, 13, 13),
    "vgg16": (512, 14, 14),
    "resnet50": (2048, 7, 7),
    "mobilenet_v2": (1280, 7, 7),
    "convnext_t": (768, 7, 7),
    "audio": (256, 16_000),
    "c3d": (512, 2, 7, 7),
}


def test_every_network_is_pinned():
    assert set(NETWORKS) == set(TOTALS) == set(FIRST_AND_POOLED) == set(LAST)
    for network in NETWORKS.values():
        assert "20" in network.source  # a year
        assert len({layer.name for layer in network.layers}) == len(network.layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_totals(name):
    layers = NETWORKS[name].layers
    weights = sum(math.prod(layer.weight_shape) for layer in layers)
    biases = sum(layer.weight_shape[0] for layer in layers if layer.bias)
    products = sum(math.prod(layer.output_shape) * math.prod(layer.weight_shape[1:]) for layer in layers)
    assert (len(layers), weights, biases, products) == TOTALS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_fit_on_to_each_other(name):
    last = NETWORKS[name].layers[0].input_shape
    outputs, entering = set(), []
    for layer in NETWORKS[name].layers:
        if layer.input_shape not in outputs:
            entering.append(layer.name)
            # Pooling leaves the channels, and lengthens no spatial extent.
            assert layer.input_shape[0] == last[0]
            assert all(now <= before for now, before in zip(layer.input_shape[1:], last[1:], strict=True))
        last = layer.output_shape
        outputs.add(last)
    assert entering == FIRST_AND_POOLED[name]
    assert last == LAST[name]


def test_layers_are_as_published():
    def layer(network, name):
        return next(layer for layer in NETWORKS[network].layers if layer.name == name)

    assert layer("alexnet", "conv2").weight_shape == (256, 48, 5, 5)
    assert layer("alexnet", "conv1").output_shape == (96, 55, 55)
    assert layer("vgg16", "conv5_3").input_shape == (512, 14, 14)
    assert [layer("resnet50", f"layer2.0.{part}").stride for part in ("conv1", "conv2", "downsample.0")] == [1, 2, 2]
    assert layer("resnet50", "layer4.2.conv3").weight_shape == (2048, 512, 1, 1)
    assert layer("mobilenet_v2", "features.1.conv.0.0").groups == 32
    assert layer("mobilenet_v2", "features.17.conv.2").weight_shape == (320, 960, 1, 1)
    assert layer("convnext_t", "stages.3.2.dwconv").weight_shape == (768, 1, 7, 7)
    causal = layer("audio", "dilated_stack.layer9.gate")
    assert (causal.dilation, causal.padding, causal.output_shape) == (512, ((512, 0),), (32, 16_000))
    assert layer("c3d", "conv5b").input_shape == (512, 2, 7, 7)
