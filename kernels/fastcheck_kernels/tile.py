"""Products of weights with lanes, in tiles that fill the vector registers.

A tile is `CHANNELS` output channels by `LANES` lanes of one output position. Its accumulators stay in registers while
all input channels and taps go by, in one loop over a list of where they meet: of nested ones the inner is short where
one channel moves, or where there is one tap. Each product takes two vector loads of lanes for `CHANNELS` broadcast
weights. What LLVM makes of the same loops written in Python reached a third of that speed once, so
that the loop is written in LLVM's own language; `_plain` is the same in Python, for runs without compilation.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, codegen, config, types
from numba.extending import intrinsic
from numba.np import arrayobj


def _has(feature):
    """Tell whether kernels are compiled with a feature of the processor: in LLVM's list the last mention counts."""
    listed = (config.CPU_FEATURES or codegen.get_host_cpu_features()).split(",")
    return [one for one in listed if one[1:] == feature][-1:] == ["+" + feature]


_WIDE = _has("avx512f")

CHANNELS = 8 if _WIDE else 6
"""Output channels in a tile. Sixteen vector registers of 256 bits hold twelve accumulators and their operands."""

VECTOR = 8 if _WIDE else 4
"""Lanes in a register."""

LANES = 2 * VECTOR
"""Lanes in a tile: every array's lanes are padded to a multiple of 16, the larger of the two tiles."""

OUT, OUT_PITCH, INIT, SECOND, INIT_PITCH, X, W, COUNT = range(8)
"""Places in ``span``, which says where a tile reads and writes; see `multiply`."""


def _plain_cut(array, start, count):
    """Do in Python what `cut` does."""
    return array[start : start + count]


@intrinsic
def _compiled_cut(typingctx, array, start, count):
    """Return entries of a flat array, as a slice does, but without counting references: less to compile and to run."""
    del typingctx

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        whole, part = context.make_array(kind)(context, builder, args[0]), context.make_array(kind)(context, builder)
        begin = builder.gep(whole.data, [args[1]])
        shape = cgutils.pack_array(builder, [args[2]])
        arrayobj.populate_array(part, begin, shape, whole.strides, whole.itemsize, meminfo=None)
        return part._getvalue()

    return array(array, types.intp, types.intp), codegen


def _plain(out, init, x, w, meets, span):
    """Do in Python what `multiply` does: row k of ``meets`` says where lanes and weights of product k are."""
    total = np.empty((CHANNELS, LANES))
    for r in range(CHANNELS):
        for part, start in ((0, span[INIT]), (1, span[SECOND])):
            at = start + r * span[INIT_PITCH]
            total[r, part * VECTOR : (part + 1) * VECTOR] = init[at : at + VECTOR]
    for k in range(span[COUNT]):
        x_at, w_at = span[X] + meets[k, 0], span[W] + meets[k, 1]
        total += w[w_at : w_at + CHANNELS, None] * x[x_at : x_at + LANES]
    for r in range(CHANNELS):
        at = span[OUT] + r * span[OUT_PITCH]
        out[at : at + LANES] = total[r]


@intrinsic
def _compiled(typingctx, out, init, x, w, meets, span):
    """Do with vector instructions what `multiply` does."""
    del typingctx
    signature = types.void(out, init, x, w, meets, span)

    def codegen(context, builder, signature, args):
        def pointer(place):
            return context.make_array(signature.args[place])(context, builder, args[place]).data

        def at(place):
            return builder.extract_value(args[5], place)

        def vector(base, index):
            return builder.bitcast(builder.gep(base, [index]), ir.VectorType(ir.DoubleType(), VECTOR).as_pointer())

        whole = ir.IntType(64)
        lanes = ir.VectorType(ir.DoubleType(), VECTOR)
        out_data, init_data, x_data, w_data, meets_data = (pointer(place) for place in range(5))
        zero, second = ir.Constant(whole, 0), ir.Constant(whole, VECTOR)
        # Loop-carried values on the stack, which LLVM turns into registers.
        totals = [[cgutils.alloca_once(builder, lanes) for _ in range(2)] for _ in range(CHANNELS)]
        for r in range(CHANNELS):
            jump = builder.mul(at(INIT_PITCH), ir.Constant(whole, r))
            for part, start in enumerate((INIT, SECOND)):
                source = vector(init_data, builder.add(at(start), jump))
                builder.store(builder.load(source, align=8), totals[r][part])
        with cgutils.for_range(builder, at(COUNT)) as loop:
            place = builder.mul(loop.index, ir.Constant(whole, 2))
            x_at = builder.add(at(X), builder.load(builder.gep(meets_data, [place])))
            place = builder.add(place, ir.Constant(whole, 1))
            w_at = builder.add(at(W), builder.load(builder.gep(meets_data, [place])))
            operands = [builder.load(vector(x_data, builder.add(x_at, shift)), align=8) for shift in (zero, second)]
            for r in range(CHANNELS):
                weight = builder.load(builder.gep(w_data, [builder.add(w_at, ir.Constant(whole, r))]))
                first = builder.insert_element(ir.Constant(lanes, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(
                    first,
                    ir.Constant(lanes, ir.Undefined),
                    ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR),
                )
                for part in range(2):
                    product = builder.fmul(spread, operands[part], flags=("contract",))
                    total = builder.fadd(builder.load(totals[r][part]), product, flags=("contract",))
                    builder.store(total, totals[r][part])
        for r in range(CHANNELS):
            jump = builder.add(at(OUT), builder.mul(at(OUT_PITCH), ir.Constant(whole, r)))
            for part, shift in enumerate((zero, second)):
                builder.store(builder.load(totals[r][part]), vector(out_data, builder.add(jump, shift)), align=8)
        return context.get_dummy_value()

    return signature, codegen


multiply = _plain if numba.config.DISABLE_JIT else _compiled  # type: ignore[attr-defined]
cut = _plain_cut if numba.config.DISABLE_JIT else _compiled_cut  # type: ignore[attr-defined]
