"""The command `fastcheck network`, which checks a whole network, or trains it a little before a check."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any, NamedTuple

import click
import numpy as np
from click.core import ParameterSource

from fastcheck.cli.output import check_paths, deliver_report, deliver_table, say
from fastcheck.cli.types import (
    Names,
    dims_option,
    directions_option,
    evaluator_option,
    examples,
    json_option,
    kinks_option,
    map_option,
    precision_option,
    seed_option,
    step_option,
    table_option,
    threads_option,
    verbose_option,
)
from fastcheck.common import machine, npz
from fastcheck.common.arguments import positive
from fastcheck.common.errors import FastcheckError
from fastcheck.networks import likely_causes, npz_data
from fastcheck.networks.case import EVALUATORS, Point
from fastcheck.networks.check import check_network
from fastcheck.networks.file import read_network
from fastcheck.networks.job import fitting
from fastcheck.networks.network import Network

_TRAINING_OPTIONS = ("learning_rate", "save_path")
"""Options that are valid only with --burn-in."""


@click.command("network")
@click.argument("network_path", metavar="NET.toml")
@click.option("--params", "params_path", metavar="P.npz", required=True, help='Arrays named "layer.tensor".')
@click.option("--grads", "grads_path", metavar="G.npz", help="Gradient of the whole objective, named as in --params.")
@click.option(
    "--data",
    "data_path",
    metavar="D.npz",
    required=True,
    help="Arrays x and y; optionally loss, and mask.LAYER for each dropout layer.",
)
@click.option("--data-grads", "data_grads_path", metavar="G0.npz", help="Gradient with regularisation switched off.")
@click.option("--loss", type=float, help="Loss computed by your forward pass; overrides the key in --data.")
@click.option("--only", type=Names(), help="Layers and tensors to check: conv1,dense1.bias. Default: all.")
@dims_option("auto", "Dimensions to check; a number is divided among the tensors.")
@directions_option
@step_option
@evaluator_option(EVALUATORS)
@kinks_option
@precision_option
@click.option("--explain", is_flag=True, help="Name the units that the worst dimensions push across a kink.")
@threads_option
@seed_option("Random seed for the sample, or for the batches of --burn-in.")
@table_option
@json_option
@verbose_option
@map_option
@click.option(
    "--burn-in", type=click.IntRange(min=1), metavar="N", help="Without --grads: train for N steps of SGD, then stop."
)
@click.option("--learning-rate", type=float, default=0.05, show_default=True, help="Learning rate of --burn-in.")
@click.option("--save-params", "save_path", metavar="F.npz", help="Output file for the parameters after --burn-in.")
@examples("fastcheck network net.toml --params params.npz --grads grads.npz --data data.npz --explain")
def network_command(
    network_path: str,
    params_path: str,
    data_path: str,
    grads_path: str | None,
    burn_in: int | None,
    learning_rate: float,
    save_path: str | None,
    **options: Any,
) -> int:
    """Check the gradients of a whole network, from its loss down to every parameter.

    NET.toml has a [[layer]] table for each layer. With regularisation there are two phases; the first checks the data
    loss alone.

    A freshly initialised network hides mistakes: --burn-in 20 --save-params F.npz trains it a little first. Compute
    the gradients at the parameters in F.npz, and check them there.
    """
    files = _Files(network_path, params_path, data_path)
    if burn_in is None:
        _refuse_given(_TRAINING_OPTIONS, "is valid only with --burn-in")
        if grads_path is None:
            raise FastcheckError("--grads is missing: expected the gradients to check, or --burn-in")
        return _check(files, grads_path, **options)
    if grads_path is not None:
        raise FastcheckError(
            "--burn-in and --grads cannot be combined: training changes the parameters, so the gradients would belong "
            "to other ones; expected --burn-in alone, and then the gradients at the parameters in --save-params"
        )
    _refuse_given(set(options) - {"threads", "seed"}, "is valid only with --grads, not with --burn-in")
    if save_path is None:
        raise FastcheckError("--burn-in needs --save-params: expected a file for the parameters")
    return _train(files, burn_in, learning_rate, save_path, options["seed"])


class _Files(NamedTuple):
    """Paths of a network, its parameters and its data."""

    network: str
    params: str
    data: str

    def read(self, threads: int | None) -> tuple[Network, dict[str, np.ndarray], npz_data.NetworkData]:
        """Return the contents, after checking by the headers alone that the network's results fit in memory."""
        network = read_network(self.network)
        outline = npz_data.network_data_outline(self.data)
        with likely_causes.explaining(network, npz.read_headers(self.params), outline.x):
            point = Point.outline(network, *outline)
        fitting(point, threads or machine.default_threads())
        return network, npz.read_npz(self.params), npz_data.load_network_data(self.data)


def _refuse_given(names: Collection[str], why: str) -> None:
    """Refuse options that were given on the command line and would be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in names and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise FastcheckError(f"{parameter.opts[0]} {why}")


def _check(
    files: _Files,
    grads_path: str,
    data_grads_path: str | None,
    loss: float | None,
    table_path: str | None,
    json_path: str | None,
    verbose: bool,
    mapped: bool,
    **options: Any,
) -> int:
    from fastcheck.common.progress import progress_bar

    check_paths(table_path, json_path, read=(*files, *filter(None, (grads_path, data_grads_path))))
    network, params, data = files.read(options["threads"])
    grads = npz.read_npz(grads_path)
    data_grads = None if data_grads_path is None else npz.read_npz(data_grads_path)
    with progress_bar() as hook:
        report = check_network(
            network,
            params,
            grads,
            data.x,
            data.y,
            loss=data.loss if loss is None else loss,
            data_grads=data_grads,
            masks=data.masks,
            keep=mapped or table_path is not None,
            progress=hook,
            **options,
        )
    deliver_table(list(report.phases.values())[-1], table_path)
    deliver_report(report, files.network, json_path, verbose=verbose, mapped=mapped)
    return report.exit_code


def _train(files: _Files, steps: int, learning_rate: float, save_path: str, seed: int) -> int:
    from fastcheck.networks import training  # imports Numba

    check_paths(save_path, None, read=files, option="--save-params")
    learning_rate = positive("learning_rate", learning_rate)
    network, params, data = files.read(1)
    point = Point.of(network, params, data.x, data.y, data.masks)
    npz.write_npz(save_path, training.burn_in(point, steps, learning_rate, seed) | point.buffers)
    say(_trained(files, steps, save_path, data.loss is not None))
    return 0


def _trained(files: _Files, steps: int, save_path: str, declared: bool) -> str:
    """Return instructions for using the trained parameters."""
    command = ["fastcheck", "network", files.network, "--params", save_path, "--grads", "G.npz", "--data", files.data]
    message = (
        f"{save_path} holds the parameters after {steps:,} step{'s' * (steps > 1)} of SGD. Compute the gradients at "
        "these parameters, then run:\n"
    )
    loss = f"The loss in {files.data} belongs to other parameters: give the new one with --loss.\n" if declared else ""
    return f"{message}  {shlex.join(command)}\n{loss}"
