"""The declared output of a convolution beside the one that its operands give, and how far apart both may be."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import Precision
from fastcheck.convolutions import error_bars, passes
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.scaling import ScaledOperands
from fastcheck.metrics import tally
from fastcheck.reports.tensor_report import ForwardReport

BLOCK = 4096
"""Number of outputs that are compared with declared ones at a time."""

UNNAMED = "the declared output is not that of this convolution"
"""The bug of a forward pass that nothing explains."""


@dataclass(frozen=True)
class Outputs:
    """The declared and the computed output of a case that declares one.

    Attributes
    ----------
    case : ConvCase
    computed, magnitude : float64 arrays
        What the operands give, and the sums of the sizes of its terms.
    """

    case: ConvCase
    computed: np.ndarray
    magnitude: np.ndarray

    @classmethod
    def of(cls, case: ConvCase, pool: Executor) -> Outputs:
        """Run the forward passes of a case."""
        scaled, geometry = ScaledOperands.of(case.plain.case), case.plain.case.geometry
        output, magnitude = (run(scaled, geometry, pool) for run in (passes.output, passes.magnitude))
        return cls.unscaled(case, scaled, output, magnitude)

    @classmethod
    def unscaled(cls, case: ConvCase, scaled: ScaledOperands, output: np.ndarray, magnitude: np.ndarray) -> Outputs:
        """Return the outputs of a case from those of the scaled operands of its plain case."""
        with np.errstate(over="ignore"):
            computed, size = (np.ldexp(array, scaled.exponents["bias"]) for array in (output, magnitude))
        refuse_overflow(size)
        return cls(case, computed, size)

    @property
    def declared(self) -> np.ndarray:
        """The declared output."""
        assert self.case.output is not None
        return self.case.output

    @property
    def precision(self) -> str:
        """The precision of the declared output."""
        assert self.case.output_dtype is not None
        return self.case.declared_precision("output") or self.case.output_dtype.newbyteorder("=").name

    def bar(self, precision: str | None = None) -> np.ndarray:
        """Return the most that rounding explains, for each output: in a precision, or in that which was declared."""
        dtype, case = self.case.output_dtype, self.case
        assert dtype is not None
        of = Precision.of(dtype, precision or case.declared_precision("output"), (case.input, case.weight))
        return error_bars.forward_bar(self.computed, self.magnitude, case.geometry.met, of)

    def compared(self) -> ForwardReport:
        """Compare both, by a bound on what their arithmetic can explain."""
        every = np.arange(self.computed.size)
        arrays = (every, self.declared.ravel(), self.computed.ravel(), self.bar().ravel())
        # In blocks, since a dot product of millions of entries depends on the number of BLAS's threads.
        blocks = range(0, self.computed.size, BLOCK)
        compared = tally.merge(tally.fold(*(a[i : i + BLOCK] for a in arrays)) for i in blocks)
        if compared.beyond:
            return ForwardReport("fail", compared.norm_ratio, self.unnamed())
        return ForwardReport("pass", compared.norm_ratio, None)

    def unnamed(self) -> dict[str, str]:
        """Return what is said of a mismatch that nothing explains."""
        parameters = f"stride, padding, {'output_padding, ' * self.case.geometry.transposed}dilation, groups"
        return {
            "bug": UNNAMED,
            "evidence": f"the difference is {self.largest()}",
            "try": f"check {parameters} and the order of the axes (N, C, then space)",
        }

    def largest(self) -> str:
        """Return where the largest difference is, in words."""
        # Halved, since a difference of the largest numbers would overflow.
        apart = np.abs(self.declared / 2 - self.computed / 2)
        index = index_of(int(np.argmax(apart)), apart.shape)
        return (
            f"largest at index {list(index)}: declared {self.declared[index]:.6g}, computed {self.computed[index]:.6g}"
        )


def refuse_overflow(outputs: np.ndarray | None) -> None:
    """Refuse outputs that are not finite."""
    if outputs is not None and not np.isfinite(outputs).all():
        raise FastcheckError("the forward pass overflows float64: scale input, weight or bias down")
