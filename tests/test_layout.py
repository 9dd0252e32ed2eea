"""Tests lie where the code lies: tests/ROOM/test_MODULE.py, or in the file that `COVERS` names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

OTHERS = {"helpers", "hardening", "kernels"}
"""Folders of tests/ that are no rooms of fastcheck: what tests share, files made wrong, and tests of kernels/."""

COVERS = {
    "test_check": "functions/case functions/entry functions/evaluator engine/settings",
    "test_command": "__main__ common/version",
    "test_extremes": "convolutions/scaling",
    "test_imports": "demo_network jax layers torch zoo",
    "common/test_array_file": "npz convolutions/npz_case",
    "common/test_meanings": (
        "keywords npz_names convolutions/layout convolutions/likely_causes convolutions/shapes functions/form "
        "networks/likely_causes"
    ),
    "metrics/test_health": "functions/state functions/ties",
    "metrics/test_verdict": "judged regime",
    "probes/test_judge": "along blame evaluated outcome metrics/probe_health",
    "probes/test_probe": "directions files manifest cli/probe",
    "reports/test_network_report": "reader render/network render/page render/text",
    "reports/test_report": "mismatch tensor_report render/report convolutions/forward",
    "reports/test_digit_map": "axes",
    "reports/test_figure": "common/drawing",
    "reports/test_outline": "facts layout notes readable wording render/outline",
    "diagnosis/test_checked": "diagnosed",
    "engine/test_sampling": "metrics/reach",
    "engine/test_shard_results": "coordinator pipeline common/packing common/progress",
    "convolutions/test_copies": "copies_evaluators",
    "convolutions/test_delta": "audit cost delta_input delta_weight lowering packing engine/differences",
    "convolutions/test_delta_curved": "closer slopes table_evaluator engine/folding",
    "convolutions/test_directions": "gradient_errors",
    "convolutions/test_entries": "relabelled",
    "convolutions/test_error_bars": "pipeline steps common/precision engine/magnitudes engine/steps",
    "convolutions/test_geometry": "common/arguments",
    "diagnosis/test_fitted": (
        "evidence factors hypotheses rearranged diagnosis/patterns/pattern diagnosis/patterns/penalties "
        "diagnosis/patterns/places diagnosis/patterns/scales diagnosis/patterns/table diagnosis/patterns/values"
    ),
    "diagnosis/test_functions": (
        "around counts marks diagnosis/patterns/assigned diagnosis/patterns/attention "
        "diagnosis/patterns/contributions diagnosis/patterns/cotangents diagnosis/patterns/slopes "
        "diagnosis/patterns/stale diagnosis/patterns/sums diagnosis/patterns/terms diagnosis/patterns/weights"
    ),
    "diagnosis/test_forward": "forward_catalogue variant_vjp",
    "diagnosis/test_shape": "cover index_words",
    "diagnosis/test_blind_spots": "render/blind_spots",
    "diagnosis/test_convolutions": (
        "catalogue evidence problem replay trial diagnosis/mistakes/arithmetic diagnosis/mistakes/bias "
        "diagnosis/mistakes/left_out diagnosis/mistakes/memory_order diagnosis/mistakes/overwritten "
        "diagnosis/mistakes/pairing diagnosis/mistakes/placing diagnosis/mistakes/strides "
        "diagnosis/mistakes/turned diagnosis/mistakes/variant"
    ),
    "frameworks/test_jax_check": "jax_functions jax_trees",
    "frameworks/test_torch_check": "torch_functions torch_in_place torch_modules torch_tensors metrics/autograd_health",
    "functions/test_coloured": "moves colour",
    "functions/test_cotangents": "layouts new_memory metrics/vjp_health",
    "functions/test_parts": "conjugates",
    "functions/test_verdicts": "noise opinions",
    "functions/test_directions": "engine/coverage engine/culprits engine/directions",
    "functions/test_vjp": "vjp_case",
    "networks/test_check": "round_off_noise",
    "networks/test_diagnosed": (
        "culprits search suspects networks/mistakes/activations networks/mistakes/branches "
        "networks/catalogue/activations networks/catalogue/branches networks/catalogue/hypothesis "
        "networks/catalogue/kinds networks/catalogue/losses networks/catalogue/normalisations "
        "networks/catalogue/pools networks/catalogue/table networks/catalogue/weights "
        "networks/mistakes/convolutions networks/mistakes/learnt networks/mistakes/losses "
        "networks/mistakes/norms networks/mistakes/pooling networks/mistakes/row"
    ),
    "networks/test_error_bars": "analytic flips local_errors retries",
    "networks/test_file": "common/naming common/toml",
    "networks/test_program": "partial passes",
    "networks/test_proofs": (
        "audit case differenced differencer evaluator full hygiene job loss_check network penalty pipeline"
    ),
    "sweeps/test_sweep": "curve interpretation opening quotients report render/curves render/plot render/sweep",
    "batch/test_diff": "render/diff",
    "batch/test_results": "cli/show render/batch render/escape render/suite render/suite_csv",
    "batch/suite/test_file": "case entries folder grid keys kinds",
    "batch/ledger/test_ledger": "lock schema",
    "batch/run/test_kills": "check_one cluster",
    "batch/run/test_runner": "estimates jobs local numeric plan planned stop cli/batch render/plan",
    "batch/run/test_user_calls": "sources user_code engine/hosting",
    "workloads/test_benchmark": "roofline render/benchmark",
    "workloads/test_demo": "common/extras",
    "workloads/test_zoo": "adapters/torch",
    "kernels/test_conv": "convolutions/passes",
    "cli/test_main": "output types common/errors common/writing reports/files render/dimensions_csv common/progress",
    "cli/test_network": "networks/npz_data networks/training",
}
"""Modules without a test file of their own name, by the file that covers them: of the same room, or as ROOM/MODULE."""


def _names(folder, pattern="*.py"):
    """Return the files of a folder, as ROOM/NAME."""
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob(pattern)}


MODULES = {name for name in _names(ROOT / "fastcheck") if not name.endswith("__init__")}
FILES = _names(ROOT / "tests", "test_*.py")


def _breaches(modules, files, covers):
    """Yield every breach of the rule, in few words."""
    listed = {_beside(file, name): file for file, names in covers.items() for name in names.split()}
    for module in sorted(modules | set(listed)):
        own = _beside(module, f"test_{Path(module).name}") in files
        if module not in modules:
            yield f"{module}: listed, and no module"
        elif own == (module in listed):
            yield f"{module}: {'listed, and has its own test file' if own else 'no test file'}"
    for file in sorted(set(covers) - files):
        yield f"{file}: listed, and no test file"
    rooms = {str(Path(module).parent) for module in modules} | OTHERS
    for folder in sorted({str(Path(file).parent) for file in files} - rooms):
        yield f"{folder}: no room"


def _beside(file, name):
    """Return ROOM/NAME, in the room of this file where the name has none."""
    return name if "/" in name else (Path(file).parent / name).as_posix()


def test_every_module_has_its_test_file_in_its_room():
    assert list(_breaches(MODULES, FILES, COVERS)) == []


TREE = {"check", "sweeps/sweep", "sweeps/curve"}, {"test_check", "sweeps/test_sweep"}, {"sweeps/test_sweep": "curve"}
"""A small tree in order: its modules, test files and list."""


@pytest.mark.parametrize(
    ("modules", "files", "covers", "breach"),
    [
        ({"sweeps/new"}, {}, {}, "sweeps/new: no test file"),
        ({}, {}, {"test_check": "sweeps/gone"}, "sweeps/gone: listed, and no module"),
        ({}, {}, {"test_check": "sweeps/sweep"}, "sweeps/sweep: listed, and has its own test file"),
        ({"sweeps/new"}, {}, {"sweeps/test_gone": "new"}, "sweeps/test_gone: listed, and no test file"),
        ({}, {"nowhere/test_sweep"}, {}, "nowhere: no room"),
    ],
)
def test_a_planted_breach_is_found(modules, files, covers, breach):
    assert list(_breaches(*TREE)) == []
    assert list(_breaches(TREE[0] | {*modules}, TREE[1] | {*files}, TREE[2] | covers)) == [breach]


TEXTS = [
    *(ROOT / ".ci" / "run", ROOT / "pyproject.toml", *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")),
    *(path for folder in ("fastcheck", "kernels", "tests", "bench") for path in (ROOT / folder).rglob("*.py")),
]

_CITED = re.compile(r"\b((?:tests|bench)/[a-z0-9_/]*)(?:\{([a-z0-9_,]+)\})?([a-z0-9_]*\.py)\b")


def _cited(text):
    """Yield the files of tests/ and bench/ that a text names; braces stand for several, as in a shell."""
    for start, names, end in _CITED.findall(text):
        yield from (f"{start}{name}{end}" for name in names.split(","))


def test_what_texts_cite_is_there():
    cited = {name: path for path in TEXTS if path != Path(__file__) for name in _cited(path.read_text())}
    assert {name: path for name, path in cited.items() if not (ROOT / name).is_file()} == {}
    assert len(cited) > 30


def test_a_file_that_is_cited_is_found():
    text = "`tests/a/b.py`, tests/test_{c,d}.py and bench/e.md"
    assert list(_cited(text)) == ["tests/a/b.py", "tests/test_c.py", "tests/test_d.py"]
