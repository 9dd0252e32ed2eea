"""Replays of the catalogue's mistakes against the gradients of a convolution that failed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fastcheck.common import machine
from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.catalogue import CATALOGUE
from fastcheck.diagnosis.evidence import Diagnosis, Failed
from fastcheck.diagnosis.other_function import of_other_function
from fastcheck.diagnosis.problem import of_case
from fastcheck.diagnosis.trial import Trial, diagnosed


def replayed(case: ConvCase, failed: Failed) -> list[Diagnosis]:
    """Name the mistakes that make the gradients that failed, by making them again.

    Parameters
    ----------
    case : ConvCase
    failed : mapping of str to Evidence
        The tensors that failed.

    Returns
    -------
    list of Diagnosis
        Every mistake whose replay equals a gradient within its bars, those that explain most tensors first, then as in
        the catalogue. Several for one tensor make the same array. Empty where nothing known does.
    """
    if not failed:
        return []
    with ThreadPoolExecutor(machine.default_threads()) as pool, np.errstate(over="ignore", invalid="ignore"):
        problem = of_case(case, pool)
        trials = [Trial(case, problem, evidence, pool, CATALOGUE) for evidence in failed.values()]
        return of_other_function(case, failed, list(diagnosed(trials, CATALOGUE)), pool)
