"""Kinds of layers that have mistakes in common."""

from __future__ import annotations

RELU = ("relu",)
KINKED = ("relu", "leaky_relu", "prelu")
SMOOTH = ("elu", "gelu", "silu", "tanh", "sigmoid", "softplus")
EVERY_ACTIVATION = (*KINKED, *SMOOTH)
MAX, AVERAGE = ("max_pool",), ("avg_pool", "global_avg_pool")
BATCH = ("batch_norm",)
NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
WEIGHTED = ("dense", "conv", "conv_transpose")
CONVOLUTIONS = ("conv", "conv_transpose")
LEARNT = (*WEIGHTED, "prelu", "embedding", *NORMS)
JOINS = ("add", "concat")
ANY = (
    *(*EVERY_ACTIVATION, *MAX, *AVERAGE, *NORMS, *WEIGHTED, "softmax", "dropout", "flatten"),
    *JOINS,
)
