"""Numeric gradients as files beside the ledger: an ``.npz`` for each shard, joined into one ``.npy`` per tensor."""

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
from fastcheck.engine.shard_results import ShardResult

_LONGEST_NAME = 100
"""Characters of a folder's name that come from the case's name."""


class NumericFiles:
    """The numeric gradients of one case.

    Parameters
    ----------
    folder : Path
        The output folder.
    name, key : str
        Name and key of the case.

    Attributes
    ----------
    folder : Path
        The case's folder. Its name is the case's, with everything but letters, digits and ``_.-`` percent-encoded,
        followed by the start of the key.
    """

    def __init__(self, folder: Path, name: str, key: str) -> None:
        readable = quote(name.encode("utf-8", "surrogatepass"), safe="")[:_LONGEST_NAME]
        self.folder = folder / NUMERIC / f"{readable}-{key[:12]}"
        self._pieces = self.folder / "shards"

    def has(self, shard_id: ShardId) -> bool:
        """Whether a shard's values are on disk."""
        return self._piece(shard_id).is_file()

    def keep(self, shard_id: ShardId, result: ShardResult) -> None:
        """Write a shard's values.

        Raises
        ------
        FastcheckError
            If they cannot be written.
        """
        assert result.kept is not None
        stream = io.BytesIO()
        np.savez(stream, dims=result.kept.dims, numeric=result.kept.numeric)
        self._write(self._piece(shard_id), stream.getvalue())

    def finish(self, shapes: dict[tuple[str, str], tuple[int, ...]]) -> None:
        """Join the shards' values into one file per phase and tensor, with nan for dimensions not differenced.

        Raises
        ------
        FastcheckError
            If a file cannot be written.
        """
        for (phase, tensor), shape in shapes.items():
            values = np.full(math.prod(shape), np.nan)
            # Of a function's case, a later check may be the one that differences the tensor: "2, weight".
            for path in self._pieces_of(_stem(phase, tensor)) or self._pieces_of(f"[1-9]*, {_stem('', tensor)}"):
                piece = npz.read_npz(path)
                values[piece["dims"]] = piece["numeric"]
            stream = io.BytesIO()
            np.save(stream, values.reshape(shape))
            self._write(self.folder / f"{_stem(phase, tensor)}.npy", stream.getvalue())
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._pieces)

    def _pieces_of(self, stem: str) -> list[Path]:
        return list(self._pieces.glob(f"{stem}.shard-*.npz"))

    def _piece(self, shard_id: ShardId) -> Path:
        return self._pieces / f"{_stem(shard_id.phase, shard_id.tensor)}.shard-{shard_id.number}.npz"

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FastcheckError(f"{path.parent} cannot be created: {error.strerror or error}") from None
        writing.write_bytes(path, data)


def _stem(phase: str, tensor: str) -> str:
    return quote(f"{phase}, {tensor}" if phase else tensor, safe=" ,")
