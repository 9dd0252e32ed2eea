"""Widths of vectors: what has kernels compiled to another one than this machine's.

python tests/helpers/widths.py other COMMAND...   runs a command at the next narrower width, 256 bits on a machine that
                                                  has 512; where there is none, nothing
python tests/helpers/widths.py 128 COMMAND...     runs it at that one
"""

import os
import platform
import sys

import llvmlite.binding as llvm

WITHOUT = {256: ("-avx512f",), 128: ("-avx512f", "-avx")}
"""What takes wider vectors from LLVM, the widest width first: a feature goes with all that need it."""


def environment(*changes):
    """Return what has Numba compile for this processor, its features changed: the last mention of one counts."""
    features = ",".join((llvm.get_host_cpu_features().flatten(), *changes))
    return {"NUMBA_CPU_NAME": llvm.get_host_cpu_name(), "NUMBA_CPU_FEATURES": features}


def narrower():
    """Return the widths below this machine's own, by the environment of each, the widest first."""
    features = llvm.get_host_cpu_features() if platform.machine() == "x86_64" else {}
    return {bits: environment(*off) for bits, off in WITHOUT.items() if features.get(off[-1].removeprefix("-"))}


if __name__ == "__main__":
    asked, *command = sys.argv[1:]
    found = narrower()
    bits = next(iter(found), None) if asked == "other" else int(asked)
    if bits not in found:
        print(f"this machine has no narrower width: {asked}", file=sys.stderr)
        sys.exit(asked != "other")
    print(f"{bits} bits: {' '.join(command)}", file=sys.stderr, flush=True)
    os.execvpe(command[0], command, os.environ | found[bits])
