"""The demo of a whole network: a small CNN on real digits, its hand-written backward pass first right, then wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastcheck.common.progress import ProgressHook
from fastcheck.engine.sampling import Dims
from fastcheck.metrics.judged import Verdict
from fastcheck.networks.check import check_network
from fastcheck.networks.layers import Conv, Dense, Flatten, MaxPool, ReLU
from fastcheck.networks.network import Network
from fastcheck.reports.suite_report import NetworkReport
from fastcheck.workloads.demo import needing_demo_extra

Arrays = dict[str, np.ndarray]

L2 = 1e-3

NETWORK = Network(
    [
        *(Conv(8, 3, padding=1), ReLU(), MaxPool(2)),
        *(Conv(16, 3, padding=1), ReLU(), MaxPool(2)),
        *(Flatten(), Dense(32), ReLU(), Dense(10)),
    ],
    l2=L2,
)
"""conv-relu-pool twice, then dense-relu-dense, with softmax cross-entropy and L2 regularisation."""

TRAINING_STEPS, LEARNING_RATE = 80, 0.1
"""Number of SGD steps before the check, and their learning rate."""

LARGE_BATCH, SMALL_BATCH = 512, 8
"""Numbers of data points: that of a large training batch, and the few that a check should use."""

STEP = 1e-5
"""The step that is commonly used."""


@dataclass(frozen=True)
class NetworkScene:
    """One check of the demo: its story and moral, how the network is checked, and the verdict that it must give."""

    story: str
    points: int
    step: float | str
    explain: bool
    wrong_winner: bool
    expected: Verdict
    moral: str = ""


SCENES = (
    NetworkScene(
        f"1. The usual check: h = {STEP:g}, a batch of {LARGE_BATCH} digits, all parameters. The backward pass is\n"
        "correct. Most weights agree to 10 digits, but some of conv1 to 3 or fewer. Is that a bug?",
        LARGE_BATCH,
        STEP,
        True,
        False,
        "pass",
    ),
    NetworkScene(
        f"2. The same backward pass, checked as good practice asks: {SMALL_BATCH} digits, and a step for each layer,\n"
        "reduced where a unit would cross its kink.",
        SMALL_BATCH,
        "auto",
        False,
        False,
        "pass",
    ),
    NetworkScene(
        "3. The same network with a real bug: the first max-pool passes its gradient to the last entry of each window\n"
        "that is not the largest. conv1 again agrees to few digits only, but no step improves that, and so it fails.",
        SMALL_BATCH,
        "auto",
        True,
        True,
        "fail",
        "This failure is meant: the bug was planted, and fastcheck found it. The demo ends as it should.",
    ),
)


def run(
    *, threads: int | None, seed: int, say: Callable[[NetworkReport | str], None], progress: ProgressHook | None
) -> int:
    """Run the demo; return 0 if every scene has the expected verdict, 1 if not, 130 if it was interrupted.

    Parameters
    ----------
    threads : int or None
    seed : int
        Random seed for the parameters, the training and the data points.
    say : callable
        Called with each text and each report.
    progress : callable or None

    Raises
    ------
    FastcheckError
        If the extra ``demo`` is not installed.
    """
    as_expected = True
    if progress is not None:
        progress("training on scikit-learn's digits (the first run compiles the kernels)", 0, 0)
    x, y = digits()
    params = trained(x, y, seed)
    # The speed that is shown is not the compiler's.
    checked(SCENES[1], params, x, y, threads=threads, dims=len(params))
    for scene in SCENES:
        say(f"\n{scene.story}\n\n")
        report = checked(scene, params, x, y, threads=threads, seed=seed, progress=progress)
        say(report)
        if report.interrupted:
            return report.exit_code
        as_expected &= report.verdict == scene.expected
        if scene.moral and report.verdict == scene.expected:
            say(f"\n{scene.moral}\n")
    return 0 if as_expected else 1


def checked(
    scene: NetworkScene,
    params: Arrays,
    x: np.ndarray,
    y: np.ndarray,
    *,
    threads: int | None = None,
    seed: int = 0,
    dims: Dims = "all",
    progress: ProgressHook | None = None,
) -> NetworkReport:
    """Check a scene."""

    def grads(params: Arrays, x: np.ndarray, y: np.ndarray) -> Arrays:
        data_grads = backward(params, x, y, wrong_winner=scene.wrong_winner)
        return {name: grad + L2 * params[name] * name.endswith("weight") for name, grad in data_grads.items()}

    return check_network(
        NETWORK,
        params,
        grads,
        x,
        y,
        points=scene.points,
        step=scene.step,  # type: ignore[arg-type]
        dims=dims,
        explain=scene.explain,
        threads=threads,
        seed=seed,
        progress=progress,
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits: float64 from 0 to 1, shape (1797, 1, 8, 8), and their classes.

    Raises
    ------
    FastcheckError
        If the extra ``demo`` is not installed.
    """
    with needing_demo_extra():
        from sklearn.datasets import load_digits
    dataset = load_digits()
    return dataset.images[:, None] / 16.0, dataset.target


def trained(x: np.ndarray, y: np.ndarray, seed: int) -> Arrays:
    """Return parameters after a short training on the digits."""
    from fastcheck.networks import training  # imports Numba
    from fastcheck.networks.case import Point

    point = Point.of(NETWORK, NETWORK.initial(x.shape[1:], seed), x, y)
    return training.burn_in(point, TRAINING_STEPS, LEARNING_RATE, seed)


def backward(params: Arrays, x: np.ndarray, y: np.ndarray, *, wrong_winner: bool = False) -> Arrays:
    """Return the gradient of the mean cross-entropy, as one would write it by hand in NumPy.

    Parameters
    ----------
    params : dict of str to array
    x : array, shape (N, 1, 8, 8)
    y : int array, shape (N,)
    wrong_winner : bool
        Plant the bug: the first pooling layer takes another entry of each window for the largest.
    """
    z1 = _conv(x, params["conv1.weight"], params["conv1.bias"])
    p1, back1 = _pool(np.maximum(z1, 0), wrong_winner)
    z2 = _conv(p1, params["conv2.weight"], params["conv2.bias"])
    p2, back2 = _pool(np.maximum(z2, 0))
    flat = p2.reshape(len(x), -1)
    z3 = flat @ params["dense1.weight"].T + params["dense1.bias"]
    a3 = np.maximum(z3, 0)
    z4 = a3 @ params["dense2.weight"].T + params["dense2.bias"]

    e = np.exp(z4 - z4.max(axis=1, keepdims=True))
    d4 = (e / e.sum(axis=1, keepdims=True) - np.eye(10)[y]) / len(x)
    d3 = d4 @ params["dense2.weight"] * (z3 > 0)
    d2 = back2((d3 @ params["dense1.weight"]).reshape(p2.shape)) * (z2 > 0)
    d1 = back1(_conv_input(d2, params["conv2.weight"])) * (z1 > 0)
    return {
        "conv1.weight": _conv_weight(x, d1),
        "conv1.bias": d1.sum(axis=(0, 2, 3)),
        "conv2.weight": _conv_weight(p1, d2),
        "conv2.bias": d2.sum(axis=(0, 2, 3)),
        "dense1.weight": d3.T @ flat,
        "dense1.bias": d3.sum(axis=0),
        "dense2.weight": d4.T @ a3,
        "dense2.bias": d4.sum(axis=0),
    }


def _patches(x: np.ndarray) -> np.ndarray:
    """Return the 3x3 neighbourhoods, with zeros outside the image: (N, channels, height, width, 3, 3)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))


def _conv(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nchwij,fcij->nfhw", _patches(x), w, optimize=True) + b[:, None, None]


def _conv_weight(x: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.einsum("nchwij,nfhw->fcij", _patches(x), d, optimize=True)


def _conv_input(d: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.einsum("nfhwij,fcij->nchw", _patches(d), w[:, :, ::-1, ::-1], optimize=True)


def _pool(a: np.ndarray, wrong_winner: bool = False) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the largest entry of each 2x2 window, and the backward pass."""
    n, c, h, w = a.shape
    windows = a.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    winner = windows.argmax(axis=-1)
    receiver = np.where(winner == 3, 2, 3) if wrong_winner else winner

    def back(d: np.ndarray) -> np.ndarray:
        spread = d[..., None] * (np.arange(4) == receiver[..., None])
        return spread.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(a.shape)

    return windows.max(axis=-1), back
