"""The short benchmark as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from fastcheck.render.page import print_table

_HEADINGS = (
    *("layer", "tensor", "dimensions", "seconds", "a second", "of limit"),
    *("forward", "audit", "PyTorch", "ratio"),
)
_WIDE = 110
"""Columns that the table of layers needs."""


def write_benchmark(found: dict[str, Any], out: Console) -> None:
    """Print what `fastcheck.workloads.benchmark.run` found."""
    described, limit, scaling = found["machine"], found["limit"], found["scaling"]
    vectors = f"{limit['simd_bits']}-bit vectors" if limit["simd_bits"] else "vectors of unknown width"
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    out.print(f"{described['processor']} ({described['target']}), {found['threads']} threads, {vectors}")
    out.print(versions)
    out.print(f"limit of this machine: {limit['elements_per_second'] / 1e9:.1f} G elements a second")
    print_table(out, _HEADINGS, [_cells(row) for row in found["layers"]], wide=_WIDE)
    steps = "; ".join(
        f"{row['threads']} {'thread' if row['threads'] == 1 else 'threads'} {row['seconds']:.3f} s"
        f" ({row['speedup']:.2f}x)"
        for row in scaling["rows"]
    )
    out.print(f"{scaling['network']} {scaling['layer']}, {scaling['tensor']}: {steps}")
    out.print(_LEGEND)
    if all(row["torch_seconds"] is None for row in found["layers"]):
        out.print('PyTorch is not installed, so nothing is compared with it: pip install "fastcheck[torch]"')


_LEGEND = """
Seconds are medians of preparing, differencing and judging every dimension. An element is one output that one
dimension moves; the limit is what vectors do on data in the L1 cache. PyTorch: its own backward pass for the same
tensor, in float64, with as many threads; ratio: how many of those passes the check costs."""


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    torch, ratio = row["torch_seconds"], row["ratio_to_torch"]
    return (
        f"{row['network']} {row['layer']}",
        row["tensor"],
        f"{row['dims']:,}",
        f"{row['seconds']:.4f}",
        f"{row['dims'] / row['seconds']:,.0f}",
        f"{row['share_of_limit']:.0%}",
        f"{row['forward_seconds']:.4f}",
        f"{row['audit_seconds']:.4f}",
        "-" if torch is None else f"{torch:.4f}",
        "-" if ratio is None else f"{ratio:.1f}x",
    )
