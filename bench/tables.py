"""Sections of results as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

Section = dict[str, Any]


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table whose first column is words and the others numbers."""
    names = list(headings)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _page(section: Section, *tables: str) -> str:
    """Return tables with what they were measured on and by which command."""
    described = section["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    vectors = f", {section['simd_bits']}-bit vectors" if section.get("simd_bits") else ""
    count = section.get("threads", 0)
    threads = f", {count} thread{'s' * (count > 1)}" if count else ""
    where = f"{described['processor']} ({described['target']}), {described['cores']} cores{threads}{vectors}"
    return "\n\n".join([*tables, f"`{section['command']}` on {where}; {versions}."])


def peers(section: Section) -> str:
    rows = section["rows"]
    base = next(row["seconds"] for row in rows if row["name"] == "fastcheck")
    headings = (
        *("checker", "seconds", "times fastcheck", "dimensions checked", "dimensions a second", "peak memory"),
        "what it compares with",
    )
    return _page(section, _table(headings, [_peer(row, base) for row in rows]))


def _peer(row: dict[str, Any], base: float) -> tuple[str, ...]:
    scaled = row["dims_worked"] != row["dims"]
    note = f" (scaled from {row['dims_worked']:,})" if scaled else ""
    single = row["dims"] == 1
    return (
        row["title"],
        _seconds(row["seconds"]) + note,
        f"{row['seconds'] / base:,.1f}x",
        "one direction" if single else f"{row['dims']:,}",
        "-" if single else f"{row['dims'] / row['seconds']:,.0f}",
        _megabytes(row["bytes"]),
        row["compares"],
    )


def network(section: Section) -> str:
    """Every layer, the totals, and the targets that are missed."""
    rows = section["rows"]
    headings = (
        *("layer", "weight", "map", "dimensions", "seconds", "PyTorch", "ratio"),
        *("kernel of limit", "whole of limit", "forward", "audit", "audit / forward"),
    )
    total, torch, forward, audit = (
        sum(row["alike"] * row[name] for row in rows)
        for name in ("seconds", "torch_seconds", "forward_seconds", "audit_seconds")
    )
    dims = sum(row["alike"] * row["dims"] for row in rows)
    last = ("all", "", "", f"{dims:,}", f"{total:.3f}", f"{torch:.3f}", f"{total / torch:.2f}x", "", "")
    sums = (*last, f"{forward:.3f}", f"{audit:.3f}", f"{audit / forward:.1f}")
    return _page(section, _table(headings, [*map(_layer, rows), sums]), _shares(section))


def _layer(row: dict[str, Any]) -> tuple[str, ...]:
    alike = f" and {row['alike'] - 1} alike" if row["alike"] > 1 else ""
    strided = f", stride {row['stride']}" if row["stride"] > 1 else ""
    grouped = f", {row['groups']} groups" if row["groups"] > 1 else ""
    return (
        row["layer"] + alike,
        _shape(row["weight"]) + strided + grouped,
        _shape(row["input"][2:]),
        f"{row['dims']:,}",
        f"{row['seconds']:.4f}",
        f"{row['torch_seconds']:.4f}",
        f"{row['seconds'] / row['torch_seconds']:.2f}x",
        f"{row['kernel_share_of_limit']:.0%}",
        f"{row['share_of_limit']:.0%}",
        f"{row['forward_seconds']:.4f}",
        f"{row['audit_seconds']:.4f}",
        f"{row['audit_seconds'] / row['forward_seconds']:.1f}",
    )


def _shares(section: Section) -> str:
    """Tell how the layers stand to the limit, weighted by what they take."""
    rows = section["rows"]

    def together(seconds: str) -> float:
        needed = sum(row["alike"] * row["elements"] / row["limit"] for row in rows)
        return needed / sum(row["alike"] * row[seconds] for row in rows)

    count = sum(row["alike"] for row in rows)
    reached = sum(row["alike"] for row in rows if row["share_of_limit"] >= _wanted(section, row))
    alone = sum(row["alike"] for row in rows if row["kernel_share_of_limit"] >= _wanted(section, row))
    return (
        f"All layers together: {together('kernel_seconds'):.0%} of the limit in the kernel, "
        f"{together('seconds'):.0%} in all. The target of each layer ({_wanted(section, None):.0%}, 50% on maps "
        f"at most 7 wide) is reached by {reached} of {count} layers as a whole, by {alone} in the kernel alone."
    )


def _wanted(section: Section, row: dict[str, Any] | None) -> float:
    if row is not None and row["output"][-1] <= 7:
        return 0.5
    return 0.6 if section["simd_bits"] == 512 else 0.75


def widths(section: Section) -> str:
    headings = ("vectors", "limit, 1 thread", "limit, all threads", "VGG-16 weights", "PyTorch", "ratio", "target")
    return _page(section, _table(headings, map(_width, section["rows"])))


def _width(row: dict[str, Any]) -> tuple[str, ...]:
    one, most = (row["limits"][key] / 1e9 for key in (min(row["limits"], key=int), max(row["limits"], key=int)))
    return (
        f"{row['simd_bits']} bits" + (" (default)" if row["default"] else ""),
        f"{one:.1f} G elements/s",
        f"{most:.1f} G elements/s",
        f"{row['seconds']:.3f} s",
        f"{row['torch_seconds']:.3f} s",
        f"{row['seconds'] / row['torch_seconds']:.2f}x",
        f"{row['target']}x",
    )


def scaling(section: Section) -> str:
    rows = [(str(row["threads"]), f"{row['seconds']:.3f}", f"{row['speedup']:.2f}x") for row in section["rows"]]
    return _page(section, _table(("threads", "seconds", "speed-up"), rows))


def channels(section: Section) -> str:
    headings = ("channels", "weights", "seconds", "ns a weight", "ns a weight, kernel alone")
    return _page(section, _table(headings, map(_channel, section["rows"])))


def _channel(row: dict[str, Any]) -> tuple[str, ...]:
    whole, alone = (1e9 * row[name] / row["dims"] for name in ("seconds", "kernel_seconds"))
    return f"{row['channels']:,}", f"{row['dims']:,}", f"{row['seconds']:.4f}", f"{whole:.1f}", f"{alone:.1f}"


def start(section: Section) -> str:
    rows = [(row["what"], f"{row['seconds']:.2f} s", row["target"]) for row in section["rows"]]
    return _page(section, _table(("start", "seconds", "target"), rows))


def compilation(section: Section) -> str:
    rows = [(f"`{row['kernel']}`", f"{row['seconds']:.2f}") for row in section["rows"]]
    total = sum(row["seconds"] for row in section["rows"])
    return _page(section, _table(("kernel", "seconds"), [*rows, ("all", f"{total:.2f}")]))


CHECKERS = {
    "fastcheck": "fastcheck",
    "gradcheck": "gradcheck, slow",
    "gradcheck, fast mode": "gradcheck, fast",
    "check_grads": "check_grads",
    "norm ratio": "norm ratio at most 1e-9",
    "max ratio": "max ratio below 1e-2",
}


def detection(section: Section) -> str:
    """A summary, and for each dtype how many cases of every error each checker refuses."""
    headings = (
        *("checker", "gradients", "every weight, down to", "one weight, down to", "bugs caught"),
        *("false alarms", "seconds a case"),
    )
    dtypes = {
        row["dtype"]: [each for each in section["rows"] if each["dtype"] == row["dtype"]] for row in section["rows"]
    }
    summary = _table(headings, [_detecting(rows, name) for rows in dtypes.values() for name in CHECKERS])
    return _page(section, summary, *(f"{dtype}:\n\n{_refused(rows)}" for dtype, rows in dtypes.items()))


def _detecting(rows: list[dict[str, Any]], name: str) -> tuple[str, ...]:
    (correct,), bugs = _of_kind(rows, "none"), _of_kind(rows, "bug")
    alarms, cases = correct["refused"][name], correct["cases"]
    always = alarms == cases  # then what it refuses tells nothing
    return (
        CHECKERS[name],
        correct["dtype"],
        "-" if always else _smallest(_of_kind(rows, "every weight"), name),
        "-" if always else _smallest(_of_kind(rows, "one weight"), name),
        "-" if always else f"{sum(row['refused'][name] for row in bugs)} of {sum(row['cases'] for row in bugs)}",
        f"{alarms} of {cases}",
        _seconds(correct["seconds"][name]),
    )


def _smallest(rows: list[dict[str, Any]], name: str) -> str:
    """Return the smallest error that is always caught, as all larger ones are."""
    caught = [row["error"] for row in takewhile(lambda row: row["refused"][name] == row["cases"], rows)]
    return caught[-1] if caught else "none"


def _of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def _refused(rows: list[dict[str, Any]]) -> str:
    labels = {"none": "none: correct", "bug": "bug: "}
    lines = [
        (
            labels.get(row["kind"], f"{row['kind']}: ") + row["error"],
            str(row["cases"]),
            *(str(row["refused"][name]) for name in CHECKERS),
        )
        for row in rows
    ]
    return _table(("error", "cases", *CHECKERS.values()), lines)


def _seconds(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f} MB"


def _shape(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


def whole_network(section: Section) -> str:
    """Every tensor, with how many times faster it is differenced than by each peer."""
    headings = (
        *("tensor", "parameters", "differencing", "whole check", "vmap", "chunk", "loop"),
        *("times vmap", "times the loop", "vmap / whole check"),
    )
    return _page(section, _table(headings, [_tensor(row) for row in section["rows"]]))


def _tensor(row: dict[str, Any]) -> tuple[str, ...]:
    peers = {name: row[f"{name}_seconds"] / row["raw_seconds"] for name in ("vmap", "loop")}
    return (
        row["tensor"],
        f"{row['dims']:,}",
        *(_microseconds(row.get(name)) for name in ("raw_seconds", "seconds", "vmap_seconds")),
        "-" if row["chunk"] is None else f"{row['chunk']:,}",
        f"{row['loop_seconds'] * 1e6:,.0f} us",
        f"{peers['vmap']:,.1f}x",
        f"{peers['loop']:,.0f}x",
        f"{row['vmap_seconds'] / row['seconds']:,.1f}x" if "seconds" in row else "-",
    )


def _microseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:,.2f} us"


def batch(section: Section) -> str:
    """What each measure is, what was found, and the target."""
    rows = {row["name"]: row for row in section["rows"]}
    tiny, mixed, memory, ledger = (rows[name] for name in ("tiny", "mixed", "memory", "ledger"))
    lines = [
        (
            f"{tiny['cases']:,} tiny cases on one thread: longer than a loop of `check`, a case",
            f"{tiny['overhead'] * 1e3:.2f} ms ({tiny['seconds']:.1f} s, {tiny['loop_seconds']:.1f} s)",
            "3 ms",
        ),
        (
            f"{mixed['cases']:,} mixed cases: {mixed['threads']} threads beside one",
            f"{mixed['speedup']:.2f}x ({mixed['seconds']:.1f} s, {mixed['one_seconds']:.1f} s); of "
            f"{len(mixed['speedups'])} pairs {mixed['speedups'][0]:.2f}x to {mixed['speedups'][-1]:.2f}x",
            "1.85x",
        ),
        (
            "peak memory of the mixed cases, beside the budget",
            _megabytes(memory["peak_bytes"]),
            _megabytes(memory["budget"]),
        ),
        (
            f"ledger of {ledger['shards']:,} shards, {ledger['numeric_bytes'] / 1e9:.0f} GB of numeric gradients",
            f"{ledger['ledger_bytes'] / 1e6:.2f} MB",
            "1 MB",
        ),
    ]
    return _page(section, _table(("measure", "found", "target"), lines))


TABLES: dict[str, Callable[[Section], str]] = {
    "peers": peers,
    "vgg16_weight": network,
    "vgg16_input": network,
    "resnet50_weight": network,
    "mobilenet_v2_weight": network,
    "widths": widths,
    "scaling": scaling,
    "channels": channels,
    "start": start,
    "detection": detection,
    "compilation": compilation,
    "digits_cnn": whole_network,
    "cifar_net": whole_network,
    "batch": batch,
}
