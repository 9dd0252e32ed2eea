"""Command lines with any options and values; none begins long work."""

import ledger_files
from conv_files import cases
from mutation import BEYOND, FLOATS, INTEGERS, TEXTS
from npy_files import archive
from report_files import reports
from trials import Trial

from fastcheck.batch.ledger.schema import NAME
from fastcheck.cli import main as cli

_LONG = ("demo", "zoo", "bench")
"""Commands that begin work whatever they are given: they get an option that no command has."""

_APART = ("--dask", "--isolate", "--burn-in", "--plot", "--version")
"""Options that start processes, train, or draw: they have tests of their own."""

_ANY = (
    *map(str, (*INTEGERS, *BEYOND, *FLOATS)),
    *(text for text in TEXTS if text not in ("\0", "\ud800")),  # which no system passes on
    *(
        "1,2",
        "1,,2",
        "0:1",
        "1:2,3:4",
        "1:2:3",
        "all",
        "auto",
        "same",
        "valid",
        "1e-3",
        "1_0",
        "٣",
        "0x10",
        "8GiB",
        "1.5 kb",
    ),
    *(
        "9" * 310,
        "9" * 5000,
        "1e-400",
        "-0",
        "+1",
        "1e-1,1e-2,1e-3,1e-4",
        "nan,nan",
        "fail",
        "pass,x",
        "*",
        "[",
        "[!a]",
    ),
)

_FILES = (
    *(
        "layer.npz",
        "net.toml",
        "suite.toml",
        "report.json",
        "suite.json",
        "out",
        "net.params.npz",
        "net.grads.npz",
        "net.data.npz",
    ),
    *("absent", "new.json", "new.csv", "absent/x", ".", "", "\udcff", "x" * 300, "/proc/x", "-", "--", "layer.npz/x"),
)


def prepare():
    """Return what makes a command line, in a folder that has a file of every kind."""
    beside = ledger_files.beside() | {"layer.npz": archive(cases()[0])}
    beside |= {"report.json": reports()[0].encode(), "suite.json": reports()[-1].encode()}
    ledger = ledger_files.base()

    def make(rng, folder):
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        (folder / "out").mkdir()
        (folder / "out" / NAME).write_bytes(ledger)
        return Trial(_arguments(rng))

    return make


_LIKELY = {
    "conv": ["layer.npz", "--dims", "8"],
    "sweep": ["layer.npz", "--steps", "1,1e-3,1e-6,1e-9", "--dims", "1"],
    "compare": ["net.grads.npz", "net.grads.npz"],
    "network": [
        "net.toml",
        *(part for key in ("params", "grads", "data") for part in (f"--{key}", f"net.{key}.npz")),
        "--dims",
        "8",
    ],
    "run": ["suite.toml", "--dry-run"],
    "show": ["out"],
    "diff": ["out", "out"],
}
"""What each command can do as it stands."""


def _arguments(rng):
    name = rng.choice((*cli.cli.commands, rng.choice(_ANY)))
    if name not in cli.cli.commands:
        return [name, *rng.choices(_ANY, k=rng.randrange(3))]
    arguments = list(_LIKELY.get(name, ())) if rng.random() < 0.8 else rng.choices(_FILES, k=rng.randrange(3))
    for _ in range(rng.choice((1, 1, 2, 3))):
        arguments += _option(rng, cli.cli.commands[name])
    if rng.random() < 0.1:
        rng.shuffle(arguments)
    return [name, *arguments, *(["--no-such"] if name in _LONG else rng.choice((["--threads", "1"], [])))]


def _option(rng, command):
    options = [one for one in command.params if one.opts[0].startswith("--") and one.opts[0] not in _APART]
    option = rng.choice(options)
    if getattr(option, "is_flag", False):
        return [option.opts[0]]
    choices = getattr(option.type, "choices", ())
    value = rng.choice((*choices, *_ANY) if choices else _ANY)
    return [option.opts[0], rng.choice(_FILES) if "path" in str(option.name) or rng.random() < 0.1 else value]
