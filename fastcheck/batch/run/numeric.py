"""Numeric gradients as ``.npy`` files beside the ledger: a file for each shard, and one a tensor in the end."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np

from fastcheck.batch.ledger.schema import NUMERIC
from fastcheck.batch.run.check_one import ShardId
from fastcheck.common import npz, writing
from fastcheck.common.errors import FastcheckError
from fastcheck.engine.shard_results import Part

_LONGEST = 100


class NumericFiles:
    """Those of one case.

    Parameters
    ----------
    folder : Path
        The output folder.
    name, key : str
        The case's.

    Attributes
    ----------
    folder : Path
        Of this case, named after it with everything but letters, digits and ``_.-`` percent-encoded, and its key.
    """

    def __init__(self, folder: Path, name: str, key: str) -> None:
        readable = quote(name.encode("utf-8", "surrogatepass"), safe="")[:_LONGEST]
        self.folder = folder / NUMERIC / f"{readable}-{key[:12]}"
        self._pieces = self.folder / "shards"

    def has(self, place: ShardId) -> bool:
        """Tell whether a shard's values are there."""
        return self._piece(place).is_file()

    def keep(self, place: ShardId, part: Part) -> None:
        """Write a shard's values.

        Raises
        ------
        FastcheckError
            If they cannot be written.
        """
        assert part.kept is not None
        stream = io.BytesIO()
        np.savez(stream, dims=part.kept.dims, numeric=part.kept.numeric)
        self._write(self._piece(place), stream.getvalue())

    def finish(self, shapes: dict[tuple[str, str], tuple[int, ...]]) -> None:
        """Put the shards' values together, one file for each phase and tensor: nan where nothing was differenced.

        Raises
        ------
        FastcheckError
            If one cannot be written.
        """
        for (phase, tensor), shape in shapes.items():
            values = np.full(math.prod(shape), np.nan)
            for path in self._pieces.glob(f"{_stem(phase, tensor)}.shard-*.npz"):
                piece = npz.read_npz(path)
                values[piece["dims"]] = piece["numeric"]
            stream = io.BytesIO()
            np.save(stream, values.reshape(shape))
            self._write(self.folder / f"{_stem(phase, tensor)}.npy", stream.getvalue())
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._pieces)

    def _piece(self, place: ShardId) -> Path:
        return self._pieces / f"{_stem(place.phase, place.tensor)}.shard-{place.number}.npz"

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FastcheckError(f"{path.parent} cannot be made: {error.strerror or error}") from None
        writing.write_bytes(path, data)


def _stem(phase: str, tensor: str) -> str:
    return quote(f"{phase}, {tensor}" if phase else tensor, safe=" ,")
