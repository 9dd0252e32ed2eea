"""Ctrl-C is counted even where the exception is lost."""

import signal
import sys
import threading

import pytest

from fastcheck.common.interrupts import listening, sigint_blocked


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
        assert not interrupts.interrupted
        interrupts.raise_if_interrupted()
        _Loses(lambda: signal.raise_signal(signal.SIGINT))
        assert interrupts.interrupted
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_if_interrupted()
        assert printed == []
        _Loses(lambda: 1 / 0)
        assert [told.exc_type for told in printed] == [ZeroDivisionError]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_within_another_has_heard_what_that_one_lost(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda told: None)
    with listening():
        _Loses(lambda: signal.raise_signal(signal.SIGINT))
        with listening() as within:
            assert within.interrupted
    with listening() as later:
        assert not later.interrupted


def test_a_handler_of_the_programs_own_is_left_alone(monkeypatch):
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        own = signal.getsignal(signal.SIGINT)
        with listening():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals have no masks")
def test_what_is_started_in_a_deaf_block_hears_no_interrupt():
    masks = []
    thread = threading.Thread(target=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    with sigint_blocked():
        thread.start()
    thread.join()
    assert signal.SIGINT in masks[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
