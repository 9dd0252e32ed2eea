"""The judgement on a gradient by what a program wrote: its files are found and read, and become a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcheck.common.arguments import positive
from fastcheck.common.arrays import Floating, refuse_non_finite
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed
from fastcheck.common.progress import ProgressHook
from fastcheck.functions.state import Arrays
from fastcheck.metrics import probe_health
from fastcheck.metrics.health import HealthFinding
from fastcheck.probes import directions, files
from fastcheck.probes.along import Differencer, errors_along, errors_of
from fastcheck.probes.evaluated import evaluate, start_of
from fastcheck.probes.files import Source
from fastcheck.probes.manifest import NAME, Manifest, read
from fastcheck.probes.outcome import Outcome
from fastcheck.reports.report import Report


def judge(
    folder: str | Path,
    *,
    outputs: Sequence[str] = (),
    grads: Sequence[str] = (),
    grad_output: Sequence[str] = (),
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    progress: ProgressHook,
) -> Report:
    """Judge a gradient by what a program returned at the points of a folder.

    Parameters
    ----------
    folder : path
        What `fastcheck probe` wrote.
    outputs, grads, grad_output : sequence of str
        Files, NAME=FILE, archives or folders. By default, files in ``folder``.
    noise, relative_noise : float, optional
        Accuracy of the outputs: each may be off by ``noise``, or by ``relative_noise`` times its size.
    precision : str, optional
        The arithmetic that made the gradients, if their type does not show it.

    Raises
    ------
    FastcheckError
        If a file is missing, damaged or of another size, or an output is not finite at the start point.
    """
    absolute = 0.0 if noise is None else positive("noise", noise)
    relative = 0.0 if relative_noise is None else positive("relative_noise", relative_noise)
    began, place = time.perf_counter(), Path(folder)
    manifest = read(place)
    found = files.find("outputs", [one.name for one in manifest.outputs], outputs, place)
    sources = {name: _there(source, f"output {name}", place / name) for name, source in found.items()}
    cotangents = _cotangents(place, manifest, grad_output)
    given = _gradients(place, manifest, grads, precision)
    analytic = {name: np.nan_to_num(one.values.astype(np.float64), posinf=0, neginf=0) for name, one in given.items()}
    start = start_of(place, manifest)
    sizes = directions.sizes(start)
    with np.errstate(all="ignore"):  # what overflows shows nothing, and is inconclusive
        evaluated = evaluate(place, manifest, sources, cotangents, analytic, (absolute, relative), progress)
        errors = errors_of(analytic, {name: precision or one.precision for name, one in given.items()}, sizes)
        differencer = Differencer(manifest, evaluated, errors_along(manifest, analytic, errors, evaluated.moves))
        outcome = Outcome(place, manifest, evaluated, differencer, given, analytic, start, sizes)
        stated = [probe_health.declared_accuracy(absolute, relative)] if absolute or relative else []
        return outcome.report([*stated, *_older(place, sources)], began)


def _there(source: Source | None, what: str, path: Path) -> Source:
    if source is None:
        option = "--outputs" if what.startswith("output") else "--grads"
        raise FastcheckError(f"{what} is missing: expected {path}.bin or .npy from your program, or {option} FILE")
    return source


def _cotangents(place: Path, manifest: Manifest, given: Sequence[str]) -> Arrays:
    """Return the cotangents by output: the user's, else those of the folder, else 1 for a single number."""
    names = [output.name for output in manifest.outputs]
    found = files.find("grad_output", names, given, place)
    stored = {one.name.removeprefix("grad_"): one for one in manifest.cotangents}
    cotangents = {}
    for output in manifest.outputs:
        source = found[output.name]
        if source is None:
            if output.name in stored:
                path = place / stored[output.name].file
                raise FastcheckError(
                    f"{path} is missing: expected the cotangent of `fastcheck probe`, or --grad-output"
                )
            cotangents[output.name] = np.ones(output.shape)
            continue
        values = files.array(source, f"output {output.name}", output.shape).values.astype(np.float64)
        refuse_non_finite(str(source), values)
        cotangents[output.name] = values
    return cotangents


def _gradients(place: Path, manifest: Manifest, given: Sequence[str], precision: str | None) -> dict[str, Floating]:
    names = [tensor.name for tensor in manifest.tensors]
    found = files.find("grads", names, given, place)
    missing = [name for name, source in found.items() if source is None]
    if missing and len(missing) < len(names):
        there = ",".join(name for name in names if name not in missing)
        raise FastcheckError(
            f"the gradient of {listed(missing, 6)} is missing: expected {place}/grad_{missing[0]}.bin or .npy, or "
            f"--grads {missing[0]}=FILE (to check the others alone, probe with --only {there})"
        )
    shapes = {tensor.name: tensor.shape for tensor in manifest.tensors}
    return {
        name: files.array(_there(source, f"gradient of {name}", place / f"grad_{name}"), name, shapes[name], precision)
        for name, source in found.items()
    }


def _older(place: Path, sources: dict[str, Source]) -> list[HealthFinding]:
    """Return the finding that outputs are older than the points."""
    written = (place / NAME).stat().st_mtime
    older = [str(source.path) for source in sources.values() if source.path.stat().st_mtime < written]
    return [probe_health.older_outputs(older)] if older else []
