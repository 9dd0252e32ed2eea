"""The field guide to wrong gradients, docs/bugs.md, written from the tables that name bugs.

python docs/bugs.py [--check]

What a bug is called, where to look and what hides it come from the tables of `fastcheck.diagnosis` and
`fastcheck.networks.catalogue`, lines of code with each bug from docs/bug_examples.toml. How a convolution's bugs look
is what reports say of the first of some layers in which `tests/helpers/planted_backward.py` plants one with an effect.
--check writes nothing, and ends with status 1 where the page says something else.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))
import planted_backward
from broken_layers import Layer, operands

import fastcheck
from fastcheck.diagnosis import catalogue, forward_catalogue
from fastcheck.diagnosis.patterns.table import PATTERNS
from fastcheck.networks.catalogue import activations, branches, losses, normalisations, pools, weights

PAGE, EXAMPLES = (Path(__file__).parent / name for name in ("bugs.md", "bug_examples.toml"))

Example = Mapping[str, str]
"""Lines of code, "wrong" and "right", and a "title" where the table has none without the words of a case."""

LAYERS = {
    "3x3, padding 1": Layer((2, 3, 8, 8), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "3x3, padding 1, stride 2": Layer((2, 3, 8, 8), (4, 3, 3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1),
    "3x3, padding 2, dilation 2": Layer((2, 3, 8, 8), (4, 3, 3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 1),
    "3x3, padding 1, two groups": Layer((2, 4, 8, 8), (6, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "2x5, padding (1, 0) and (2, 1), stride (2, 1), dilation (1, 2)": Layer(
        (2, 3, 8, 12), (4, 3, 2, 5), (2, 1), ((1, 0), (2, 1)), (1, 2), 1
    ),
}
"""Layers in which bugs are planted, by words for them."""

NETWORKS: dict[str, tuple[ModuleType, str]] = {
    "Losses": (losses, "p = softmax(z); dz = (p - onehot(y)) / N"),
    "Activations and dropout": (activations, "dx = g * (x > 0); dx = g * mask / (1 - p)"),
    "Pooling": (pools, "dx[n, c, argmax] += g[n, c, o]; dx[n, c, window] += g[n, c, o] / K**2"),
    "Normalisations": (
        normalisations,
        "g = v * weight; dx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)); dweight = sum(v * x_hat)",
    ),
    "Layers with weights": (weights, "dx = g @ w; dw += g.T @ x; np.add.at(dtable, ids, g)"),
    "Branches, order and softmax": (branches, "da += g; db += g; dx = g.reshape(x.shape); dz = s * (g - sum(s * g))"),
}
"""Tables of networks' mistakes by their headings, with lines of a right backward pass."""


def examples() -> dict[str, dict[str, Example]]:
    """Return the lines of code with each bug, by table."""
    return tomllib.loads(EXAMPLES.read_text())


def sections() -> dict[str, str]:
    """Return the parts of the page that are written here, by the names of their marks."""
    of = examples()
    return {
        "gradients of convolutions": "\n".join(_convolutions(of["convolution"])),
        "outputs of convolutions": "\n".join(_outputs(of["forward"])),
        "any gradient": "\n".join(_fitted(of["fitted"])),
        "networks": "\n".join(_networks()),
    }


def _convolutions(code: Mapping[str, Example]) -> Iterator[str]:
    for one in catalogue.CATALOGUE:
        hidden = ", or where ".join(words for _, words in one.hidden)
        yield from _entry(one.bug, code[one.name], one.advice, looks_of(one.name), hidden)


def _outputs(code: Mapping[str, Example]) -> Iterator[str]:
    for one in forward_catalogue.FORWARD_CATALOGUE:
        yield from _entry(one.bug, code[one.name], one.advice)


def _fitted(code: Mapping[str, Example]) -> Iterator[str]:
    for one in PATTERNS:
        example = code[one.name]
        advice = "" if "{advice}" in one.advice else re.sub(r"\{(\w+)\}", r"*\1*", one.advice)
        yield from _entry(example.get("title", one.bug), example, advice)


def _entry(bug: str, example: Example, advice: str, looks: str = "", hidden: str = "") -> Iterator[str]:
    """Yield the lines of a bug."""
    yield f"#### {bug[0].upper()}{bug[1:]}"
    yield ""
    if looks:
        yield f"- *Looks like*: {looks}."
    yield f"- *Code*: `{example['wrong']}` for `{example['right']}`"
    if advice:
        yield f"- *Where*: {advice}."
    if hidden:
        yield f"- *Hidden* where {hidden}."
    yield ""


def _networks() -> Iterator[str]:
    for heading, (module, right) in NETWORKS.items():
        yield from (f"### {heading}", "", f"Right: `{right}`", "", "| what the program did | in | where to look |")
        yield "|---|---|---|"
        (table,) = (value for name, value in vars(module).items() if name == module.__name__.rpartition(".")[2].upper())
        for one in table:
            yield f"| {one.bug} | {_kinds(one.kinds)} | {one.advice.replace('|', chr(92) + '|')} |"
        yield ""


def _kinds(kinds: tuple[str, ...]) -> str:
    """Return the kinds of layers or losses that can have a mistake, in words."""
    every = "mean" in kinds
    words = (
        "any loss"
        if "sum" in kinds
        else "any averaged loss"
        if every
        else ", ".join(kind.replace("_", " ") for kind in kinds[:4])
    )
    return words + (" and more" if len(kinds) > 4 and not every else "")


def looks_of(name: str) -> str:
    """Return what reports say of a mistake of convolutions, in the first layer in which it has an effect."""
    for words, layer in LAYERS.items():
        for plant in planted_backward.PLANTS.get(name, ()):
            case = _planted(plant, layer)
            if case is not None:
                report = fastcheck.check(case, dims="all", directions=0)
                wrong = [_of_tensor(tensor, one) for tensor, one in report.tensors.items() if one.verdict == "fail"]
                return f"{'; '.join(wrong)} ({words})"
    return ""


def _planted(plant: Any, layer: Layer) -> fastcheck.ConvCase | None:
    """Return a layer with a bug in its backward pass, None where it has no effect."""
    x, w, v = operands(layer, np.random.default_rng(0))
    right = planted_backward.backward(x, w, v, **layer.arguments)
    wrong = plant(layer, x, w, v, right)
    grads = {} if wrong is None else {name: wrong[name] for name in ("input", "weight", "bias")}
    if all(np.allclose(grads[name], right[name], rtol=1e-9, atol=1e-9) for name in grads):
        return None
    return fastcheck.ConvCase(x, w, np.zeros(len(w)), **layer.arguments, grad_output=v, grads=grads)


def _of_tensor(name: str, tensor: Any) -> str:
    """Return how much of a tensor is wrong, and where."""
    shape = (tensor.diagnosis or {}).get("shape", "")
    every = tensor.beyond_error_bar == tensor.dims_checked
    signs = shape.partition("; ")[2] if every else shape
    entries = "all" if every else f"{tensor.beyond_error_bar:,} of {tensor.dims_checked:,}"
    return f"{name} wrong in {entries} entries" + (f", {signs}" if signs else "")


def written(page: str) -> str:
    """Return the page with all parts as they should be."""
    for mark, text in sections().items():
        start, end = f"<!-- {mark}: written by docs/bugs.py -->\n", "<!-- end -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{text.strip()}\n\n{end}{rest.partition(end)[2]}"
    return page


def main() -> int:
    """Run it."""
    page = PAGE.read_text()
    new = written(page)
    if sys.argv[1:] == ["--check"]:
        if new != page:
            print("docs/bugs.md is out of date: run python docs/bugs.py", file=sys.stderr)
        return int(new != page)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
