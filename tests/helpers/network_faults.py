"""Ways to make the gradient of a random network wrong: in its arrays, and in the backward pass that computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch_network
from hard_networks import Arrays, Hard, rounded
from planted_network import MISTAKES
from torch_network import LAYERS

from fastcheck.networks.network import Network

FINE = {"float64": 0.01, "float32": 0.01, "float16": 0.1, "bfloat16": 0.1}
"""The smallest part by which tensors and channels are made wrong, by what the gradient is computed in."""

NEAR_ZERO = 1e-3
"""Times the root mean square of a tensor: smaller derivatives count as zero."""

UNFELT = 1e-12
"""Part of the objective that an entry's whole size changes: where it is less, no difference sees the derivative."""

MOVED = 2.0**-40
"""Relative change of all parameters that shows what derivatives depend on rounding."""

DRAWS, NEARBY, LOST = 8, 1e-3, 0.01
"""Points at which it is seen how well a type holds a gradient, how far their parameters are from the given ones, and
by which part of itself an entry may be off."""

NARROW = (
    *("conv_bias_of_one_sample_only", "max_pool_takes_the_second", "max_pool_overwrites_where_windows_overlap"),
    *("l2_reaches_the_biases", "batch_norm_frozen_uses_the_batch", "batch_norm_frozen_forgets_the_mean"),
)
"""Wrong backward passes that are written for their own case alone."""


@dataclass(frozen=True)
class Planting:
    """A network's right gradient, and what could be wrong about it."""

    hard: Hard
    rng: np.random.Generator

    @property
    def fine(self) -> float:
        """See `FINE`."""
        return FINE[self.hard.computed]

    @cached_property
    def noise(self) -> Arrays:
        """How far entries are from the derivative already, at least; inf where that is zero beside rounding."""
        hard = self.hard
        off = {name: np.abs(hard.grads[name] - truth, dtype=np.float64) for name, truth in hard.truth.items()}
        least = UNFELT * abs(torch_network.objective(hard.network, hard.params, hard.x, hard.y, hard.masks).item())
        for name, truth in hard.truth.items():
            sizes = np.maximum(np.abs(hard.params[name]), np.sqrt(np.mean(hard.params[name] ** 2)) or 1.0)
            off[name][np.abs(truth) * sizes < least] = np.inf
        rng = np.random.default_rng(0)
        for _ in range(3):
            params = {name: array * (1 + MOVED * rng.normal(size=array.shape)) for name, array in hard.params.items()}
            for name, moved in _gradients(hard, hard.network, params).items():
                off[name][np.abs(moved - hard.truth[name]) > 1e-4 * np.abs(hard.truth[name])] = np.inf
        return off

    def telling(self, name: str, part: float) -> np.ndarray:
        """Return which entries of a tensor are wrong if they are off by this part of themselves."""
        sizes = np.abs(self.hard.truth[name])
        large = sizes > NEAR_ZERO * np.sqrt(np.mean(sizes**2))
        found: np.ndarray = large & (part * sizes > 8 * self.noise[name])
        return found

    def is_wrong(self, grads: Arrays) -> bool:
        """Return whether gradients differ from the right ones by more than rounding."""
        size = np.sqrt(np.mean(np.concatenate([truth.ravel() for truth in self.hard.truth.values()]) ** 2))
        for name, right in self.hard.grads.items():
            error = np.abs(grads[name].astype(np.float64) - right)
            if (np.isfinite(self.noise[name]) & (error > 8 * self.noise[name]) & (error > self.fine * size)).any():
                return True
        return False

    def one(self, part: float, names: list[str] | None = None) -> tuple[str, np.ndarray] | None:
        """Return a tensor, by chance, and which entries of it tell of an error of some part; None where none does."""
        names = [*self.hard.grads] if names is None else names
        for name in self.rng.permutation(names):
            found = self.telling(str(name), part)
            if found.any():
                return str(name), found
        return None

    def changed(self, name: str, array: np.ndarray) -> Arrays:
        """Return the right gradients but for one tensor."""
        return {**self.hard.grads, name: array.astype(self.hard.grads[name].dtype)}


Fault = Callable[[Planting], Arrays | None]
"""Returns wrong gradients, or None where it would make none wrong."""


# Arrays


def _whole(factor: float | None) -> Fault:
    """A tensor times a factor, by default 1 % or 10 % too large."""

    def plant(at: Planting) -> Arrays | None:
        by = 1 + at.fine if factor is None else factor
        chosen = at.one(abs(by - 1))
        return None if chosen is None else at.changed(chosen[0], by * at.hard.grads[chosen[0]])

    return plant


def _slice(axis: int) -> Fault:
    """One index along an axis of a tensor, 1 % or 10 % too large."""

    def plant(at: Planting) -> Arrays | None:
        names = [name for name, grad in at.hard.grads.items() if grad.ndim > axis and grad.shape[axis] > 1]
        chosen = at.one(at.fine, names)
        if chosen is None:
            return None
        name, telling = chosen
        here = at.rng.choice(np.unique(np.nonzero(telling)[axis]))
        wrong = at.hard.grads[name].astype(np.float64)
        np.moveaxis(wrong, axis, 0)[here] *= 1 + at.fine
        return at.changed(name, wrong)

    return plant


def _entry(factor: float, types: tuple[str, ...] = tuple(FINE)) -> Fault:
    """One entry times a factor."""

    def plant(at: Planting) -> Arrays | None:
        chosen = at.one(abs(factor - 1)) if at.hard.computed in types else None
        if chosen is None:
            return None
        name, telling = chosen
        wrong = at.hard.grads[name].astype(np.float64)
        wrong.flat[at.rng.choice(np.flatnonzero(telling))] *= factor
        return at.changed(name, wrong)

    return plant


def _rearranged(change: Callable[[np.ndarray], np.ndarray], fits: Callable[[np.ndarray], bool]) -> Fault:
    """A tensor with its entries in other places."""

    def plant(at: Planting) -> Arrays | None:
        names = [name for name, grad in at.hard.grads.items() if fits(grad)]
        chosen = at.one(at.fine, names)
        if chosen is None:
            return None
        wrong = at.changed(chosen[0], change(at.hard.grads[chosen[0]]))
        return wrong if at.is_wrong(wrong) else None

    return plant


# What is computed


def _gradients(
    hard: Hard, network: Network, params: Arrays, replaced: dict[str, Callable] | None = None, computed: str = "float64"
) -> Arrays:
    """Return the gradient of another network, or elsewhere, in some type."""
    dtype = getattr(torch, computed)
    return torch_network.gradients(network, params, hard.x, hard.y, hard.masks, replaced=replaced, dtype=dtype)[1]


def _other(change: Callable[[Hard], Network | None]) -> Fault:
    """The gradient of another network."""

    def plant(at: Planting) -> Arrays | None:
        network = change(at.hard)
        return None if network is None else _rest(at, _gradients(at.hard, network, at.hard.params))

    return plant


def _rest(at: Planting, wrong: Arrays) -> Arrays | None:
    """Return the right gradients with the error of wrong ones, both in float64."""
    hard = at.hard
    found = {name: (grad + (wrong[name] - hard.truth[name])).astype(grad.dtype) for name, grad in hard.grads.items()}
    return found if at.is_wrong(found) else None


def _with(network: Network, names: list[str], share: float = 1.0, reduction: str | None = None) -> Network:
    """Return the same network with a share of its regularisation, or another reduction."""
    penalties = network.penalties(names).items()
    return Network(
        network.layers,
        network.loss,
        l2={name: share * penalty.l2 for name, penalty in penalties},
        l1={name: share * penalty.l1 for name, penalty in penalties},
        margin=network.margin,
        reduction=reduction or network.reduction,
    )


def _other_reduction(hard: Hard) -> Network | None:
    other = "sum" if hard.network.reduction == "mean" else "mean"
    return None if len(hard.x) == 1 else _with(hard.network, [*hard.grads], reduction=other)


def _share(share: float) -> Callable[[Hard], Network | None]:
    def change(hard: Hard) -> Network | None:
        return _with(hard.network, [*hard.grads], share) if hard.network.penalties([*hard.grads]) else None

    return change


def _misses_a_point(tensor: str) -> Fault:
    """Tensors of one name, in all convolutions and dense layers, do without the last data point."""

    def missing(kind: str) -> Callable:
        def forward(layer, inputs, tensors, mask):  # type: ignore[no-untyped-def]
            right = LAYERS[kind](layer, inputs, tensors, mask)
            held = {name: array.detach() if name == tensor else array for name, array in tensors.items()}
            return torch.cat([right[:-1], LAYERS[kind](layer, inputs, held, mask)[-1:]])

        return forward

    def plant(at: Planting) -> Arrays | None:
        replaced = {kind: missing(kind) for kind in ("conv", "dense")}
        return _rest(at, _gradients(at.hard, at.hard.network, at.hard.params, replaced))

    return plant


def _backward(name: str) -> Fault:
    """A wrong backward pass of a kind of layer, a loss or the regularisation."""
    mistake = MISTAKES[name]

    def plant(at: Planting) -> Arrays | None:
        hard = at.hard
        if mistake.kind not in _kinds(hard):
            return None
        return _rest(at, mistake.gradients(hard.network, hard.params, hard.x, hard.y, hard.masks))

    return plant


def _kinds(hard: Hard) -> set[str]:
    """Return the kinds of which the whole backward pass is run."""
    found = {*hard.layers, hard.network.loss, "penalty"}
    if not hard.masks:
        found.discard("dropout")
    if any(layer.kind == "batch_norm" and layer.frozen for layer in hard.network.layers):
        found.discard("batch_norm")
    return found


def _is_square(grad: np.ndarray) -> bool:
    return grad.ndim > 1 and grad.shape[0] == grad.shape[1] > 1


WHOLE: dict[str, Fault] = {
    "a tensor by 1 % (half precision: 10 %)": _whole(None),
    "a tensor halved": _whole(0.5),
    "a tensor's sign": _whole(-1.0),
    "a tensor zero": _whole(0.0),
}
"""Of whole tensors: all of them must be found."""

ARRAYS: dict[str, Fault] = {
    **WHOLE,
    "a filter by 1 % (half precision: 10 %)": _slice(0),
    "a column by 1 % (half precision: 10 %)": _slice(1),
    "an entry by 1e-3": _entry(1 + 1e-3, ("float64", "float32")),
    "an entry by 1e-6": _entry(1 + 1e-6, ("float64",)),
    "an entry's sign": _entry(-1.0),
    "an entry zero": _entry(0.0),
    "a square weight transposed": _rearranged(lambda grad: grad.swapaxes(0, 1), _is_square),
    "filters reversed": _rearranged(lambda grad: grad[::-1], lambda grad: len(grad) > 1),
}

COMPUTED: dict[str, Fault] = {
    "summed for averaged, or averaged for summed": _other(_other_reduction),
    "regularisation forgotten": _other(_share(0.0)),
    "regularisation twice": _other(_share(2.0)),
    "biases miss a data point": _misses_a_point("bias"),
    "weights miss a data point": _misses_a_point("weight"),
    **{name.replace("_", " "): _backward(name) for name in MISTAKES if name not in NARROW},
}

FAULTS = {**ARRAYS, **COMPUTED}
"""By what is wrong."""


def planted(hard: Hard, seed: int, arrays: int, computed: int) -> Iterator[tuple[str, Arrays]]:
    """Yield what is wrong, and wrong gradients: some faults of arrays and some of what computes them, by chance."""
    for kinds, count in ((ARRAYS, arrays), (COMPUTED, computed)):
        at = Planting(hard, np.random.default_rng([seed, count]))
        made = 0
        for kind in at.rng.permutation([*kinds]):
            wrong = kinds[kind](at) if made < count else None
            if wrong is not None:
                made += 1
                yield str(kind), wrong


def slopes(hard: Hard, name: str, place: int) -> tuple[float, float]:
    """Return the interval of the one-sided slopes of the objective at an entry, with room for their own errors."""
    size = np.sqrt(np.mean(hard.params[name] ** 2)) or 1.0
    step = 2.0**-20 * max(abs(hard.params[name].flat[place]), size)

    def objective(by: float) -> float:
        moved = hard.params[name].copy()
        moved.flat[place] += by
        return torch_network.objective(hard.network, {**hard.params, name: moved}, hard.x, hard.y, hard.masks).item()

    below, at, above = (objective(by) for by in (-step, 0.0, step))
    left, right = (at - below) / step, (above - at) / step
    room = 1e-3 * max(abs(left), abs(right)) + 1e-13 * abs(at) / step
    return min(left, right) - room, max(left, right) + room


def has_nothing_to_gain(hard: Hard) -> bool:
    """Return whether no output has a gradient above 1e-6 of what a data point's loss can have: no code shows there."""
    output = torch_network.activations(hard.network, hard.params, hard.x, hard.masks)[-1].detach().requires_grad_()
    losses = torch_network.LOSSES[hard.network.loss](hard.network, output, torch.as_tensor(hard.y))
    (grad,) = torch.autograd.grad(losses.sum(), output)
    scale = 1.0
    if hard.network.loss == "squared_error":
        scale = max(float(output.abs().max()), float(np.abs(hard.y).max()))
    return float(grad.abs().max()) <= 1e-6 * scale


def part_lost(hard: Hard) -> dict[str, float]:
    """Return which part of every tensor's gradient its type holds to no better than 1 %.

    PyTorch's gradient in that type is compared with its gradient in float64, at this point and at points nearby; the
    largest part counts.
    """
    rng, lost = np.random.default_rng(0), dict.fromkeys(hard.truth, 0.0)
    for draw in range(DRAWS):
        moved = {name: 1 + NEARBY * (draw > 0) * rng.normal(size=array.shape) for name, array in hard.params.items()}
        params = {name: rounded(array * moved[name], hard.computed) for name, array in hard.params.items()}
        own = _gradients(hard, hard.network, params, computed=hard.computed)
        for name, truth in _gradients(hard, hard.network, params).items():
            off = np.abs(own[name] - truth)
            lost[name] = max(lost[name], float(np.mean(off > LOST * np.abs(truth))))
    return lost
