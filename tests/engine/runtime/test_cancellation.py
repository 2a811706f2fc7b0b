"""A first signal asks for a stop, a second one stops at once, and afterwards signals mean what they meant before."""

from __future__ import annotations

import signal

import pytest
from headwater.engine.runtime.cancellation import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before, stop = signal.getsignal(number), StopRequest()
    with stop:
        assert not stop.requested()
        signal.raise_signal(number)
        assert stop.requested() and "stopping after the current step" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before and stop.requested()
