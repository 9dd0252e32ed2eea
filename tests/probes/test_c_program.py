"""The example in C: compiled, run and judged, in both precisions, and the page that walks through it."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fastcheck.cli.main import status

ROOT = Path(__file__).parent.parent.parent
SOURCE, PAGE = ROOT / "docs" / "examples" / "perceptron.c", ROOT / "docs" / "any-language.md"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = pytest.mark.skipif(CC is None, reason="there is no C compiler here: cc, gcc or clang")

INPUTS = {"x": "8x12", "w": "12x10", "b": "10", "v": "10x4"}


def _program(folder, name, *options):
    subprocess.run([CC, "-O2", *options, SOURCE, "-lm", "-o", folder / name], check=True)

    def run(*arguments):
        subprocess.run([folder / name, *arguments], check=True, cwd=folder)

    return run


@pytest.mark.parametrize(("type", "option"), [("float64", "-DREAL=double"), ("float32", "-DREAL=float")])
def test_the_right_gradient_passes_and_the_wrong_one_fails(tmp_path, capsys, type, option):
    right, wrong = _program(tmp_path, "right", option), _program(tmp_path, "wrong", option, "-DWRONG")
    right("start")
    inputs = [f"{tmp_path / name}.bin:{type}:{shape}" for name, shape in INPUTS.items()]
    probes = str(tmp_path / "probes")
    assert status(["probe", *inputs, "--output", "y=8x4", "--out", probes]) == 0
    right("evaluate", "probes")
    assert status(["judge", probes]) == 0
    wrong("evaluate", "probes")
    capsys.readouterr()
    assert status(["judge", probes]) == 1
    assert "w[3, 4] alone explains it" in " ".join(capsys.readouterr().out.split())


def _words(text):
    """Numbers depend on the processor and the mathematics library."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d,.]*(e-?\d+)?", "N", text)).strip()


def test_the_page_shows_what_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SOURCE, tmp_path)
    compared = 0
    for code, shown in re.findall(r"```sh\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE.read_text(), re.DOTALL):
        capsys.readouterr()
        for line in code.replace("\\\n", "").splitlines():
            if line.startswith("fastcheck"):
                status(shlex.split(line, comments=True)[1:])
            else:
                subprocess.run(line.replace("cc ", f"{CC} ", 1), shell=True, check=True)
        if shown:
            printed, pieces = _words(capsys.readouterr().out), map(_words, shown.split("…"))
            assert re.fullmatch(r"\s*\w+\s*".join(map(re.escape, pieces)), printed), printed
            compared += 1
    assert compared >= 3
