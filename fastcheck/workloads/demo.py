"""The demo: the first layers of two published networks on a real photograph, and one real bug."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from fastcheck.common import machine
from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.sampling import Dims
from fastcheck.metrics.judged import Verdict

SIZE = 224
"""Height and width of the input of both networks, in pixels."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Channel statistics that normalise the inputs of both networks."""

_EXHAUSTIVE: Dims = {"weight": "all", "bias": "all", "input": 1024}


@dataclass(frozen=True)
class Scene:
    """One check of the demo.

    Attributes
    ----------
    story, moral : str
        Text printed before the check, and after it.
    geometry, believed : ConvGeometry
        Geometry of the layer, and the one assumed by its backward pass.
    dims : Dims
        Dimensions to check.
    expected : Verdict
        The verdict that the check must give.
    """

    story: str
    geometry: ConvGeometry
    believed: ConvGeometry
    dims: Dims
    expected: Verdict
    moral: str = ""

    def case(self, threads: int | None = None) -> ConvCase:
        """Make the layer's data: the photograph, seeded weights, and gradients by the reference backward pass."""
        from fastcheck.convolutions import passes  # imports Numba

        geometry, image = self.geometry, photograph()
        rng = np.random.default_rng(0)
        weight = rng.normal(0, np.sqrt(2 / geometry.terms), geometry.weight_shape)
        bias = rng.normal(0, 0.1, geometry.weight_shape[0])
        grad_output = rng.normal(0, 1, geometry.output_shape)
        with ThreadPoolExecutor(machine.thread_count(threads)) as pool:
            grads = passes.backward(self.believed, image, weight, grad_output, pool)
            output = passes.convolve(geometry, image, weight, bias, pool)
        return ConvCase(
            image,
            weight,
            bias,
            stride=geometry.stride,
            padding=geometry.padding,
            grad_output=grad_output,
            grads=grads,
            output=output,
        )


@contextmanager
def needing_demo_extra() -> Iterator[None]:
    """Refuse an import that fails: a package of the extra ``demo``."""
    try:
        yield
    except ImportError as error:
        raise FastcheckError(f"the demo needs {error.name}: {installing('demo')}") from None


def photograph(name: str = "china.jpg") -> np.ndarray:
    """Return a photograph from scikit-learn as a normalised batch of one: float64, shape (1, 3, 224, 224).

    Raises
    ------
    FastcheckError
        If the extra ``demo`` is not installed.
    """
    with needing_demo_extra():
        from PIL import Image
        from sklearn.datasets import load_sample_image
    picture = Image.fromarray(load_sample_image(name))
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    scaled = (np.asarray(square, dtype=np.float64) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]


_IMAGE = (1, 3, SIZE, SIZE)
_VGG = ConvGeometry.of(_IMAGE, (64, 3, 3, 3), padding=1)
_STEM = ConvGeometry.of(_IMAGE, (64, 3, 7, 7), stride=2, padding=3)

SCENES = (
    Scene(
        "VGG-16 conv1_1 (3 to 64 channels, 3x3, padding 1) on a photograph of 224x224: a correct backward pass.\n"
        "All weights and biases are differenced, and a sample of the inputs.",
        _VGG,
        _VGG,
        _EXHAUSTIVE,
        "pass",
    ),
    Scene(
        "The ResNet stem (3 to 64 channels, 7x7, stride 2, padding 3) on the same photograph: a correct backward pass.",
        _STEM,
        _STEM,
        _EXHAUSTIVE,
        "pass",
    ),
    Scene(
        "The ResNet stem again, with a backward pass that forgets the stride. This one must fail: it shows what a\n"
        "real bug looks like. (The bias does not depend on the stride, and its gradient is right.)",
        _STEM,
        replace(_STEM, stride=(1, 1)),
        {"weight": 256, "bias": "all", "input": 256},
        "fail",
        "This failure is meant: the bug was planted, and fastcheck found it. The demo ends as it should.",
    ),
)
