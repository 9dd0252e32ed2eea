"""`check_network`, the public check of a whole network, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.common.progress import ProgressHook
from fastcheck.engine.sampling import Dims
from fastcheck.engine.settings import Settings, usable_directions
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.job import Gradient, prepare
from fastcheck.networks.network import Network
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport


@refuse_unknown_keywords
def check_network(
    network: Network,
    params: Any,
    grads: Gradient,
    x: Any,
    y: Any,
    *,
    loss: float | None = None,
    data_grads: Gradient = None,
    masks: Any = None,
    points: int | None = None,
    burn_in: int = 0,
    learning_rate: float = 0.05,
    only: Sequence[str] | None = None,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    evaluator: Literal["auto", "network", "full"] = "auto",
    kinks: Literal["widen", "exclude"] = "widen",
    directions: int | Literal["auto"] = "auto",
    precision: str | None = None,
    explain: bool = False,
    threads: int | None = None,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | None = None,
) -> NetworkReport:
    """Difference a whole network through its loss, and check the gradient of every parameter.

    A regularised network is checked in two phases: the data loss alone, then the whole objective.

    Parameters
    ----------
    network : Network
    params : mapping
        Arrays by "layer.tensor", or by layer and tensor: NumPy's or PyTorch's, in float64, float32, float16 or
        bfloat16. PyTorch's counters of batches (``num_batches_tracked``) are ignored, and running
        statistics of batch normalisations that are not frozen.
    grads : mapping, or callable of (params, x, y) that returns one
        The gradient of the whole objective, regularisation included, named as ``params``.
    x : array, shape (N, ...)
    y : array
        Classes of shape (N,) for softmax and hinge, else an array shaped as the output.
    loss : float, optional
        The loss of your forward pass at this point, with or without regularisation. It is compared first; if it
        differs, the check stops.
    data_grads : as ``grads``, optional
        The gradient with regularisation switched off. Without it, the first phase subtracts from ``grads`` whatever
        they contain of the regularisation's gradient: all of it, none, half, twice or with the opposite sign, tensor by
        tensor. The second phase passes where that is all of it.
    masks : mapping of dropout layers to arrays of zeros and ones, optional
        The analytic pass's masks. A dropout layer without a mask is off.
    points : int, optional
        Number of data points to use, a seeded sample. By default all, or 8 where the gradients are functions.
    burn_in : int
        Steps of plain SGD by the reference gradient before the check; the gradients must be functions.
    learning_rate : float
        Learning rate of these steps.
    only : sequence of str, optional
        Layers and tensors to check.
    dims, step, kinks, threads, seed, keep, progress : optional
        As in `fastcheck.check`. With ``step="auto"``, each tensor's step is a power of two that perturbs its layer's
        results by about 2^-17 of their size, and a dimension that crosses a kink is retried with smaller steps.
    evaluator : {"auto", "network", "full"}
        ``network``, the choice of ``"auto"``, evaluates only what a dimension changes; ``full`` evaluates the whole
        network, twice.
    directions : int or "auto"
        As in `fastcheck.check`; a direction takes four forward passes and more where a step is searched for, and both
        phases share them.
    precision : str, optional
        Precision of the analytic pass, where the gradients' dtype does not show it ("tf32", "bfloat16", ...).
    explain : bool
        Name the units that the worst dimensions cross, and sweep the step there: in the failing tensors nearest the
        loss, or else in the first inconclusive ones, or else in the first layer.

    Returns
    -------
    NetworkReport
        True if every phase passed.

    Raises
    ------
    FastcheckError
        If an argument is invalid, the layers' shapes do not fit together, or the loss is not finite at the point
        itself.
    """
    settings = Settings.of(
        NetworkCase.evaluators,
        evaluator=evaluator,
        kinks=kinks,
        step=step,
        seed=seed,
        threads=threads,
        progress=progress,
        dims=dims,
        keep=keep or explain,
        directions=usable_directions(directions),
    )
    job = prepare(
        network,
        params,
        grads,
        x,
        y,
        settings,
        loss=loss,
        data_grads=data_grads,
        masks=masks,
        points=points,
        burn_in=burn_in,
        learning_rate=learning_rate,
        only=only,
        precision=precision,
    )
    from fastcheck.engine import coordinator  # imports Numba

    reports = job.run(lambda phase: coordinator.run(job.pipelines[phase], job.settings(phase)))
    explanations = job.explanations(reports) if explain else ()
    return job.report(reports if keep else {name: _light(report) for name, report in reports.items()}, explanations)


def _light(report: Report) -> Report:
    """Return a report without the arrays that were kept for explanations alone."""
    return replace(report, tensors={name: replace(tensor, kept=None) for name, tensor in report.tensors.items()})
