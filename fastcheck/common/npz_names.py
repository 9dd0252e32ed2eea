"""Names of arrays in an ``.npz`` file: those that a reader knows, and what to do about others."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import decides, is_configuration, remark
from fastcheck.common.naming import brief, closest, listed, nearest, offered, quoted, refuse_unknown

_SIMPLE = re.compile(r"[\w.]+")
"""Names that an option of the command line can hold as they are."""

_POSITIONAL = re.compile(r"arr_\d+")
"""Names that NumPy gives to arrays without one."""

_ROOM = 120
"""Characters of names in a refusal, at most: shortened, they would be other names."""


class Wanted(NamedTuple):
    """The arrays that a reader knows, and what the user says of their names.

    Attributes
    ----------
    keys : tuple of str
    families : tuple of str
        Beginnings of further names.
    names : mapping of str to str, optional
        Keys by the names that they have in the file. None where a user cannot say so.
    ignore_extra : bool
        Whether to ignore other arrays.
    given : collection of str
        Keys whose values are given as options, which override the file's.
    configured : tuple of str
        Keys that a configuration in the file, such as ``conv_param``, has under names of its own.
    by_options : bool
        Whether the user gives names and values as options of the command line, not as arguments in Python.
    """

    keys: tuple[str, ...]
    families: tuple[str, ...] = ()
    names: Mapping[str, str] | None = None
    ignore_extra: bool = False
    given: Collection[str] = ()
    configured: tuple[str, ...] = ()
    by_options: bool = False

    def chosen(self, file: str, keys: tuple[str, ...]) -> dict[str, str]:
        """Return the names in a file of the keys that it has.

        Raises
        ------
        FastcheckError
            If a name that the user gives is not there, or an array has another name and is not to be ignored.
        """
        names = dict(self.names or {})
        for ours, theirs in names.items():
            refuse_unknown("a name in keys (--keys)", ours, self.keys)
            if theirs not in keys:
                raise FastcheckError(f"{file} has no key {quoted(theirs)}{nearest(theirs, keys)}, given for {ours}")
        others = [key for key in keys if key not in names.values() and key not in names]
        known = [key for key in others if key in self.keys or key.startswith(self.families)]
        said = {*known, *names, *self.given}
        extra = [key for key in others if key not in known and not self._settled(key, said)]
        if names:  # other arrays are the user's own business, unless one may change what is computed
            extra = [key for key in extra if closest(key, self.keys) or decides(key)]
        if extra and not self.ignore_extra:
            raise FastcheckError(f"{file} has the unknown key{self._refusal(extra, said)}")
        return names | {key: key for key in known}

    def _settled(self, key: str, said: Collection[str]) -> bool:
        """Whether the user has said by other means what a key says."""
        if is_configuration(key):
            return bool(self.configured) and not self._unsaid(said)
        return _likely(key, self.keys) in self.given

    def _unsaid(self, said: Collection[str]) -> list[str]:
        """Return the keys of a configuration that nothing else gives."""
        return [key for key in self.configured if key not in said]

    def _refusal(self, extra: list[str], said: Collection[str]) -> str:
        """Return the end of a refusal of names: which they are, and what to do."""
        if all(map(_POSITIONAL.fullmatch, extra)):
            return f" {quoted(extra[0])}: name the arrays, as in np.savez(file, {self.keys[0]}=..., {self.keys[1]}=...)"
        configuration = next(filter(is_configuration, extra), "")
        numbers = " and ".join(map(self._option, self._unsaid(said)))
        meanings = {} if self.names is None else self._meanings(extra, said)
        if not meanings:
            if configuration and numbers:
                return f" {quoted(configuration)}: give its numbers as {numbers}"
            return self._of_other(extra)
        pairs = self._pairs({**(self.names or {}), **meanings})
        if configuration and numbers:
            pairs += f", and {brief(configuration, 20)}'s numbers as {numbers}"
        if len(extra) == 1:
            return f" {quoted(extra[0])} (did you mean {next(iter(meanings))!r}?): rename it, or give {pairs}"
        few = 2 if configuration else 3
        return f"s {listed((quoted(key, 20) for key in extra), few)}: rename them, or give {pairs}"

    def _meanings(self, extra: list[str], said: Collection[str]) -> dict[str, str]:
        """Return the names that mean absent keys, by these."""
        absent = [key for key in self.keys if key not in said]
        meanings: dict[str, str] = {}
        for key in extra:
            ours = _likely(key, absent)
            if ours is not None and not remark(key) and _SIMPLE.fullmatch(key):
                meanings.setdefault(ours, key)
        return meanings

    def _of_other(self, extra: list[str]) -> str:
        """Return the end of a refusal of names of which none means an absent key."""
        first = next(filter(remark, extra), extra[0])
        if remark(first):
            return f" {quoted(first)}: {remark(first)}"
        beginnings = (family + key.partition(".")[2] for key in extra for family in self.families if "." in key)
        message = f" {quoted(first)}{nearest(first, (*self.keys, *beginnings))}"
        if self.names is None:
            return f"{message}: expected {offered(self.keys)}"
        ours = closest(first, self.keys)
        if ours in self.configured:
            return f"{message}: give {self._option(ours)}"
        ignoring = "--ignore-extra" if self.by_options else "ignore_extra=True"
        return f"{message}: expected {offered(self.keys)}; {ignoring} ignores it"

    def _option(self, key: str) -> str:
        return f"--{key}" if self.by_options else key

    def _pairs(self, names: Mapping[str, str]) -> str:
        """Return names as the user can give them; dots stand for those beyond `_ROOM`."""
        options, room = list[str](), _ROOM
        for ours, theirs in names.items():
            room -= len(ours) + len(theirs)
            if room < 0:
                options.append("...")
                break
            options.append(f"{ours}={theirs}" if self.by_options else f"{ours}={theirs!r}")
        return f"--keys {','.join(options)}" if self.by_options else f"keys=dict({', '.join(options)})"


def _likely(key: str, known: Collection[str]) -> str | None:
    """Return the known key that a name means, or is nearly spelt as."""
    return closest(key, known, cutoff=0.7)
