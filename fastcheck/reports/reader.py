"""Reports read back from their JSON. Every value is checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import shown
from fastcheck.common.precision import PRECISIONS
from fastcheck.metrics.health import HealthFinding
from fastcheck.metrics.judged import EXIT_CODES, Verdict
from fastcheck.reports.report import SCHEMA, Report
from fastcheck.reports.suite_report import Explanation, HygieneLine, NetworkReport, SuiteReport
from fastcheck.reports.tensor_report import Entry, ForwardReport, TensorReport

MOST_LEVELS = 32
"""Nested objects and lists at most; the reports of a suite with networks have about a dozen levels."""


def from_json(text: str) -> Report | SuiteReport:
    """Read a JSON report of one case, of a network, or of several cases of both kinds.

    Keys beyond those of schema 1 may be missing.

    Raises
    ------
    FastcheckError
        If the text is not a report of this schema, or a value is missing or of the wrong kind.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FastcheckError(f"the report is not JSON: {error}") from None
    return from_data(data)


def from_data(data: Any) -> Report | SuiteReport:
    """Read a report from Python objects, as `from_json` reads it from text.

    Raises
    ------
    FastcheckError
        If they are not a report of this schema, or a value is missing or of the wrong kind.
    """
    _refuse_deep(data)
    if not isinstance(data, dict) or "schema" not in data:
        raise FastcheckError("the report is not one of fastcheck's: it has no 'schema'")
    if type(data["schema"]) is not int or data["schema"] != SCHEMA:
        raise FastcheckError(f"the report has schema {shown(data['schema'])}: this version reads schema {SCHEMA}")
    top = _Reader(data, "report")
    if "cases" in data and "hygiene" not in data:
        return _decode_suite(top)
    return _decode_case(top)


def run_part(data: Any) -> dict[str, Any]:
    """Check the part of a report or a ledger that depends on the machine and the moment, and return it.

    Values may be missing or None, but where there are seconds there must be threads.

    Raises
    ------
    FastcheckError
        If a value is of the wrong kind.
    """
    run = _Reader(data, "run")
    readers: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("threads", "peak_bytes"), run.count),
        **dict.fromkeys(("seconds", "audit_seconds", "forward_seconds"), run.seconds),
        "target": run.text,
        "versions": run.texts_by_name,
    }
    known = {key for key in readers if run.data.get(key) is not None}
    if "seconds" in known:
        known.add("threads")
    return run.data | {key: readers[key](key) for key in known}


def _refuse_deep(data: Any, levels: int = MOST_LEVELS) -> None:
    """Refuse data nested more deeply than any report, so that functions which walk through a report may recurse."""
    if isinstance(data, (dict, list)):
        if not levels:
            raise FastcheckError(f"the report is damaged: it is nested more than {MOST_LEVELS} levels deep")
        for entry in data.values() if isinstance(data, dict) else data:
            _refuse_deep(entry, levels - 1)


STATUSES = ("done", "note", "warn")
"""Statuses of the good-practice checklist's lines."""

CROSSINGS = ("sign", "winner", "hinge")
"""Kinds of kinks that units cross."""

_Suite = TypeVar("_Suite", bound=SuiteReport)
_Case = TypeVar("_Case", Report, Report | NetworkReport)

_MISSING = object()


class _Reader:
    """Reads typed values from a JSON object, and names the one that is damaged."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise FastcheckError(f"the report is damaged: {where} is not an object")
        self.data, self.where = data, where

    def _take(self, key: str, good: Callable[[Any], bool], expected: str, default: Any) -> Any:
        value = self.data.get(key, default)
        if value is _MISSING or not good(value):
            state = "missing" if value is _MISSING else shown(value)
            raise FastcheckError(f"the report is damaged: {self.where}.{key} is {state}: expected {expected}")
        return value

    def text(self, key: str, default: Any = None) -> str:
        default = _MISSING if default is None else default
        return str(self._take(key, _is_text, "text", default))

    def texts(self, key: str) -> list[str]:
        def good(value: Any) -> bool:
            return isinstance(value, list) and all(_is_text(entry) for entry in value)

        return list(self._take(key, good, "a list of texts", _MISSING))

    def texts_by_name(self, key: str) -> dict[str, str]:
        def good(value: Any) -> bool:
            return isinstance(value, dict) and all(_is_text(entry) for pair in value.items() for entry in pair)

        return dict(self._take(key, good, "texts by name", _MISSING))

    def one_of(self, key: str, choices: tuple[str, ...]) -> Any:
        return self._take(key, lambda value: value in choices, f"one of {', '.join(choices)}", _MISSING)

    def verdict(self, key: str) -> Verdict:
        return self.one_of(key, tuple(EXIT_CODES))

    def count(self, key: str, default: Any = None) -> int:
        default = _MISSING if default is None else default
        return int(self._take(key, _is_count, "a count", default))

    def flag(self, key: str, default: Any = None) -> bool:
        default = _MISSING if default is None else default
        return bool(self._take(key, lambda value: isinstance(value, bool), "true or false", default))

    def number(self, key: str) -> float:
        return float(self._take(key, _is_number, "a number", _MISSING))

    def seconds(self, key: str) -> float:
        def good(value: Any) -> bool:
            return type(value) in (int, float) and 0 <= value < 2**63

        return float(self._take(key, good, "a number of seconds", _MISSING))

    def number_or_none(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def number_or_positions(self, key: str) -> float | tuple[tuple[int, ...], ...]:
        """Return the value that decides on one side of a kink: a number, or positions in a map."""

        def good(value: Any) -> bool:
            return _is_number(value) or (
                isinstance(value, list) and all(isinstance(entry, list) and _is_counts(entry, 1) for entry in value)
            )

        value = self._take(key, good, "a number, or a list of lists of counts", _MISSING)
        return tuple(tuple(position) for position in value) if isinstance(value, list) else float(value)

    def object(self, key: str) -> dict[str, Any]:
        return self._take(key, lambda value: isinstance(value, dict), "an object", _MISSING)

    def objects(self, key: str) -> list[_Reader]:
        entries = self._take(key, lambda value: isinstance(value, list), "a list", _MISSING)
        return [_Reader(entry, f"{self.where}.{key}[{position}]") for position, entry in enumerate(entries)]

    def counts(self, key: str, default: Any = None) -> tuple[int, ...]:
        default = _MISSING if default is None else default

        def good(value: Any) -> bool:
            return isinstance(value, (list, tuple)) and all(_is_count(entry) for entry in value)

        return tuple(self._take(key, good, "a list of counts", default))


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode("utf-8") or True)
    except UnicodeEncodeError:
        return False


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_counts(value: Any, depth: int = 2) -> bool:
    """Whether a value is a count, or a nested list of counts: a stride, a shape, pairs of paddings."""
    return _is_count(value) or (depth > 0 and type(value) is list and all(_is_counts(v, depth - 1) for v in value))


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float or value in ("nan", "inf", "-inf")


def _decode_suite(top: _Reader) -> SuiteReport:
    return _agreeing(
        top, SuiteReport(_decode_cases(top, _decode_case), top.flag("interrupted", False), _decode_run(top))
    )


def _decode_case(data: _Reader) -> Report | NetworkReport:
    return _decode_network(data) if "hygiene" in data.data else _decode_report(data)


def _decode_network(top: _Reader) -> NetworkReport:
    phases = _decode_cases(top, _decode_report)
    if not phases:
        raise FastcheckError("the report is damaged: it has no phases")
    report = NetworkReport(
        phases,
        top.flag("interrupted", False),
        _decode_run(top),
        tuple(_decode_line(line) for line in top.objects("hygiene")),
        tuple(_decode_explanation(one) for one in top.objects("explanations")),
    )
    return _agreeing(top, report)


def _agreeing(top: _Reader, suite: _Suite) -> _Suite:
    """Return a report of several cases, after checking that its stated verdict is that of its cases."""
    if top.verdict("verdict") != suite.verdict:
        raise FastcheckError(f"the report is damaged: its verdict is not that of its cases, {suite.verdict}")
    return suite


def _decode_cases(top: _Reader, decode: Callable[[_Reader], _Case]) -> dict[str, _Case]:
    cases: dict[str, _Case] = {}
    for case in top.objects("cases"):
        name = case.text("name")
        if name in cases:
            raise FastcheckError(f"the report is damaged: two cases are named {shown(name)}")
        cases[name] = decode(case)
    return cases


def _decode_line(data: _Reader) -> HygieneLine:
    return HygieneLine(data.text("topic"), data.one_of("status", STATUSES), data.text("text"))


def _decode_explanation(data: _Reader) -> Explanation:
    return Explanation(
        tensor=data.text("tensor"),
        index=data.counts("index"),
        analytic=data.number("analytic"),
        numeric=data.number("numeric"),
        digits=data.number("digits"),
        step=data.number("step"),
        crossings=tuple(_decode_crossing(one) for one in data.objects("crossings")),
        quiet_step=data.number_or_none("quiet_step"),
        quiet_numeric=data.number_or_none("quiet_numeric"),
        quiet_digits=data.number_or_none("quiet_digits"),
        sweep=_decode_swept(_Reader(data.object("sweep"), f"{data.where}.sweep")),
        words=data.text("words"),
    )


def _decode_crossing(data: _Reader) -> dict[str, Any]:
    unit = data.counts("unit")
    if len(unit) < 2:
        raise FastcheckError(f"the report is damaged: {data.where}.unit is {list(unit)}: expected at least two counts")
    head = {"layer": data.text("layer"), "kind": data.one_of("kind", CROSSINGS), "unit": unit}
    return head | {side: data.number_or_positions(side) for side in ("minus", "at", "plus")}


def _decode_report(top: _Reader) -> Report:
    for name in top.object("tensors"):
        if not _is_text(name):
            raise FastcheckError("the report is damaged: a tensor's name is not valid text")
    return Report(
        verdict=top.verdict("verdict"),
        seed=top.count("seed"),
        requested=dict(top.object("requested")),
        interrupted=top.flag("interrupted"),
        forward=None if top.data.get("forward") is None else _decode_forward(_Reader(top.data["forward"], "forward")),
        tensors={name: _decode_tensor(_Reader(entry, name)) for name, entry in top.object("tensors").items()},
        run=_decode_run(top),
        operands=_decode_operands(_Reader(top.object("operands"), "operands")) if "operands" in top.data else None,
        error=top.text("error") if "error" in top.data else None,
        health=tuple(_decode_finding(one) for one in top.objects("health")) if "health" in top.data else (),
        directions=_decode_directions(_Reader(top.object("directions"), "directions"))
        if "directions" in top.data
        else None,
        structure=_decode_structure(_Reader(top.object("structure"), "structure")) if "structure" in top.data else None,
    )


def _decode_directions(data: _Reader) -> dict[str, Any]:
    counts = {key: data.count(key) for key in ("count", "guards", "dims", "calls", "failing")}
    limits = {
        key: {name: _Reader({name: value}, key).number(name) for name, value in data.object(key).items()}
        for key in ("limit_of_detection", "relative_limit")
    }
    named = {name: list(_Reader({name: dims}, "named").counts(name)) for name, dims in data.object("named").items()}
    along = {"along": [_decode_along(one) for one in data.objects("along")]} if "along" in data.data else {}
    return counts | {"chance_of_missing": data.number("chance_of_missing")} | limits | {"named": named} | along


def _decode_along(data: _Reader) -> dict[str, Any]:
    numbers = {key: data.number(key) for key in ("analytic", "numeric", "error_bar", "step")}
    return {"tensors": data.texts("tensors"), **numbers, "verdict": data.verdict("verdict")}


def _decode_structure(data: _Reader) -> dict[str, Any]:
    found = {}
    for name in data.data:
        one = _Reader(data.object(name), name)
        words = None if one.data.get("structure") is None else one.text("structure")
        keys = ("colours", "calls", "audited", "alone", "detecting")
        found[name] = {"structure": words} | {key: one.count(key) for key in keys if key in one.data}
    return found


def _decode_finding(data: _Reader) -> HealthFinding:
    verdict = None if data.data.get("verdict") is None else data.verdict("verdict")
    tensors = tuple(data.texts("tensors")) if "tensors" in data.data else ()
    return HealthFinding(data.text("name"), data.text("words"), data.text("advice", ""), verdict, tensors)


def _decode_run(top: _Reader) -> dict[str, Any]:
    return run_part(top.object("run"))


def _decode_operands(data: _Reader) -> dict[str, Any]:
    of_networks: dict[str, Callable[[str], Any]] = {
        "layers": data.texts,
        "regularised": lambda key: _decode_penalties(data, key),
        "data_loss": data.number,
    }
    operands = {}
    for name, value in data.data.items():
        if name not in of_networks and not (_is_text(name) and (_is_counts(value) or _is_text(value))):
            where = f"{data.where}.{shown(name)}"
            raise FastcheckError(f"the report is damaged: {where} is neither a count, a list of counts nor text")
        operands[name] = of_networks[name](name) if name in of_networks else value
    return operands


def _decode_penalties(data: _Reader, key: str) -> dict[str, Any]:
    """Read the regularisation of each tensor."""
    penalties = {}
    for name, entry in data.object(key).items():
        penalty = _Reader(entry, f"{data.where}.{key}.{shown(name)}")
        if not _is_text(name):
            raise FastcheckError("the report is damaged: a tensor's name is not valid text")
        penalties[name] = {part: penalty.number(part) for part in ("l2", "l1")}
    return penalties


def _decode_forward(data: _Reader) -> ForwardReport:
    diagnosis = None
    if data.data.get("diagnosis") is not None:
        reader = _Reader(data.data["diagnosis"], "forward.diagnosis")
        diagnosis = {key: reader.text(key) for key in ("bug", "evidence", "try")}
        diagnosis |= {key: reader.text(key) for key in ("shape", "gradients") if key in reader.data}
    return ForwardReport(data.verdict("verdict"), data.number("norm_ratio"), diagnosis)


def _decode_tensor(data: _Reader) -> TensorReport:
    digits = _Reader(data.object("digits"), f"{data.where}.digits")
    evaluator = None if data.data.get("evaluator") is None else data.text("evaluator")
    step = data.number("step") if evaluator is not None else data.number_or_none("step")
    return TensorReport(
        verdict=data.verdict("verdict"),
        reason=data.text("reason", data.verdict("verdict")),
        advice=data.text("advice", ""),
        shape=data.counts("shape", ()),
        evaluator=evaluator,
        step=step,
        dims_total=data.count("dims_total"),
        dims_checked=data.count("dims_checked"),
        unresolved=data.count("unresolved"),
        kinks=data.count("kinks"),
        excluded=data.count("excluded"),
        non_finite=data.count("non_finite", 0),
        norm_ratio=data.number("norm_ratio"),
        max_ratio=data.number("max_ratio"),
        max_ratio_resolved=data.number("max_ratio_resolved"),
        sign_mismatches=data.count("sign_mismatches"),
        beyond_error_bar=data.count("beyond_error_bar"),
        audit=_decode_audit(_Reader(data.object("audit"), f"{data.where}.audit")),
        digits={
            "min": digits.number_or_none("min"),
            "median": digits.number_or_none("median"),
            "histogram": list(digits.counts("histogram")),
        },
        first_beyond=None if data.data.get("first_beyond") is None else data.counts("first_beyond"),
        worst=tuple(_decode_entry(entry) for entry in data.objects("worst")),
        diagnosis=data.object("diagnosis") if data.data.get("diagnosis") is not None else None,
        sweep=tuple(_decode_swept(entry) for entry in data.objects("sweep")) if "sweep" in data.data else (),
        undecided=data.count("undecided", 0),
        subgradients=data.count("subgradients", 0),
        at_kink=data.count("at_kink", 0),
        regime=data.text("regime", ""),
        explained=_decode_explained(data),
        precision=None if data.data.get("precision") is None else data.one_of("precision", PRECISIONS),
    )


def _decode_explained(data: _Reader) -> dict[str, Any]:
    decoded = {}
    explained = data.object("explained") if "explained" in data.data else {}
    for name in explained:
        entry = _Reader(explained[name], f"{data.where}.explained.{name}")
        parts = _Reader(entry.object("parts"), f"{entry.where}.parts")
        decoded[name] = asdict(_decode_entry(entry)) | {"parts": {key: parts.number(key) for key in parts.data}}
    return decoded


def _decode_swept(data: _Reader) -> dict[str, Any]:
    numbers = {key: data.number_or_none(key) for key in ("order", "slope")}
    best = {key: data.number(key) for key in ("best_step", "best_error")}
    return {
        "index": data.counts("index"),
        **numbers,
        **best,
        "reading": data.text("reading"),
        "words": data.text("words"),
    }


def _decode_audit(data: _Reader) -> dict[str, Any]:
    audit = data.data | {key: data.count(key, 0) for key in ("dims", "disagreements")}
    if data.data.get("direction") is not None:
        direction = _Reader(data.data["direction"], f"{data.where}.direction")
        audit["direction"] = {key: direction.number(key) for key in ("delta", "full", "difference", "error_bar")}
    return audit


def _decode_entry(data: _Reader) -> Entry:
    return Entry(
        index=data.counts("index"),
        analytic=data.number("analytic"),
        numeric=data.number("numeric"),
        difference=data.number("difference"),
        same_sign=data.flag("same_sign"),
        ratio=data.number("ratio"),
        error_bar=data.number_or_none("error_bar"),
        verdict=None if data.data.get("verdict") is None else data.verdict("verdict"),
    )
