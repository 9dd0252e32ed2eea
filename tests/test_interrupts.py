"""Ctrl-C is counted even where the exception is lost."""

import signal
import sys

import pytest

from fastcheck.interrupts import listening


class _Loses:
    """Where an object is finalised, exceptions are printed and dropped: as in a compiler's callbacks."""

    def __init__(self, raise_it):
        self._raise_it = raise_it

    def __del__(self):
        self._raise_it()


def test_a_lost_interrupt_is_heard_and_not_printed(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with listening() as interrupts:
        assert not interrupts.heard
        interrupts.raise_if_heard()
        _Loses(lambda: signal.raise_signal(signal.SIGINT))
        assert interrupts.heard
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_if_heard()
        assert printed == []
        _Loses(lambda: 1 / 0)
        assert [told.exc_type for told in printed] == [ZeroDivisionError]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_programs_own_is_left_alone(monkeypatch):
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        own = signal.getsignal(signal.SIGINT)
        with listening():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
