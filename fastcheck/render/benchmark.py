"""Results of the short benchmark, as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from fastcheck.common.extras import installing
from fastcheck.render.page import print_table

_HEADINGS = (
    *("layer", "tensor", "dimensions", "seconds", "a second", "of limit"),
    *("forward", "audit", "PyTorch", "ratio"),
)
_WIDE = 110
"""Width of the table of layers, in columns of text."""


def write_benchmark(results: dict[str, Any], out: Console) -> None:
    """Print the results of `fastcheck.workloads.benchmark.run`."""
    described, roofline, scaling = results["machine"], results["limit"], results["scaling"]
    vectors = f"{roofline['simd_bits']}-bit vectors" if roofline["simd_bits"] else "vectors of unknown width"
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    out.print(f"{described['processor']} ({described['target']}), {results['threads']} threads, {vectors}")
    out.print(versions)
    out.print(f"limit of this machine: {roofline['elements_per_second'] / 1e9:.1f} G elements per second")
    print_table(out, _HEADINGS, [_cells(row) for row in results["layers"]], wide=_WIDE)
    steps = "; ".join(
        f"{row['threads']} {'thread' if row['threads'] == 1 else 'threads'} {row['seconds']:.3f} s"
        f" ({row['speedup']:.2f}x)"
        for row in scaling["rows"]
    )
    out.print(f"{scaling['network']} {scaling['layer']}, {scaling['tensor']}: {steps}")
    out.print(_LEGEND)
    if all(row["torch_seconds"] is None for row in results["layers"]):
        out.print(f"PyTorch is not installed, so there is no comparison with it: {installing('torch')}")


_LEGEND = """
Seconds are medians of the time to prepare, difference and judge every dimension. An element is one output moved by
one dimension; the limit is the vectors' rate on data in the L1 cache. PyTorch: its own backward pass for the same
tensor, in float64, with as many threads. Ratio: seconds of the check divided by seconds of that pass."""


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
