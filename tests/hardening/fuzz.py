"""Files, folders and command lines made wrong by the thousand: each run must end in order.

python tests/hardening/fuzz.py --files 20000              all kinds, a table at the end
python tests/hardening/fuzz.py --kind npz --first 137 --files 1 --keep DIR   one file again, kept in DIR

A file depends on its kind, the seed and its number alone. The exit status is 1 if anything was found.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import command_lines
import conv_files
import gradient_files
import ledger_files
import network_files
import probe_files
import report_files
import suite_files
import trials

KINDS = {
    "npz": conv_files.prepare,
    "compare": gradient_files.prepare,
    "network": network_files.prepare,
    "suite": suite_files.prepare,
    "ledger": ledger_files.prepare,
    "probes": probe_files.prepare,
    "report": report_files.prepare,
    "command": command_lines.prepare,
}
"""What makes the files of each kind: prepare() returns make(rng, folder), which fills a folder for a `Trial`."""


def search(kind, numbers, seed=0, keep=None, timed=False):
    """Run the files of a kind with these numbers.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    numbers : iterable of int
    seed : int
    keep : Path, optional
        Where the folder of the first file of each finding goes.
    timed : bool
        Whether a file that takes long is ended.

    Returns
    -------
    statuses : Counter
    found : dict
        Of each place that something was found at: how often, the number of the first file, and the `Finding`.
    """
    make = KINDS[kind]()
    statuses, found = Counter(), {}
    for number in numbers:
        name = f"{kind} {seed} {number}"
        with tempfile.TemporaryDirectory() as folder:
            trial = make(random.Random(name), Path(folder))
            with contextlib.chdir(folder):
                status, findings = trials.run(trial, timed)
        statuses[status] += 1
        for finding in findings:
            times, first, told = found.get(finding.where, (0, number, finding))
            found[finding.where] = times + 1, first, told
            kept = None if keep is None or times else keep / name.replace(" ", "-")
            if kept is not None and not kept.exists():
                kept.mkdir(parents=True)
                make(random.Random(name), kept)
                (kept / "arguments.txt").write_text(ascii(trial.arguments))
    return statuses, found


def main(arguments=None):
    """Search, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="by default all; may be repeated")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where files go that something is found with")
    asked = parser.parse_args(arguments)
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="fastcheck-found-"))
    lines, everything = [], []
    for kind in asked.kind or KINDS:
        start = time.perf_counter()
        numbers = range(asked.first, asked.first + asked.files)
        statuses, found = search(kind, numbers, asked.seed, keep, timed=True)
        counts = "".join(f"{statuses[status]:>8}" for status in trials.STATUSES)
        lines.append(f"{kind:<9}{asked.files:>8}{counts}{len(found):>10}{time.perf_counter() - start:>9.0f}")
        everything += [(kind, *one) for one in found.values()]
        print(lines[-1], flush=True)
    for kind, times, first, finding in everything:
        print(f"\n{kind}: {finding.where} ({times} times), first {keep / f'{kind}-{asked.seed}-{first}'}")
        print(f"  {finding.told.strip()}")
    heads = "".join(f"{status:>8}" for status in trials.STATUSES)
    print(f"\n{'kind':<9}{'files':>8}{heads}  findings  seconds", *lines, sep="\n")
    return bool(everything)


if __name__ == "__main__":
    sys.exit(main())
