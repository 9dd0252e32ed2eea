"""The command line in this process, and Hypothesis profiles: the whole search by default, a short one for passes that
run kernels slowly."""

import os

import pytest
from hypothesis import HealthCheck, settings

from fastcheck import cli

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("whole", max_examples=500, **_COMMON)
settings.register_profile("short", max_examples=12, **_COMMON)
settings.load_profile(os.environ.get("FASTCHECK_TESTS", "whole"))


@pytest.fixture
def run(capsys):
    """Run the command line in this process and return (exit code, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


@pytest.fixture
def refused(run):
    """Run it on bad input: exit 2, one line on standard error, nothing on standard output. Return that line."""

    def call(*arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("fastcheck: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return call
