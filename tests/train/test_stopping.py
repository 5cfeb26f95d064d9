import signal
import threading

import pytest

from sparse_hyper_jax.train.stopping import SIGNALS, noted_signals


@pytest.fixture(autouse=True)
def _handlers_stay():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_signal_is_noted_and_delivered_later():
    with noted_signals(quiet=True) as stopping:
        assert stopping.asked == 0
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            stopping.deliver(stopping.asked)


def test_signal_of_another_process_is_delivered_here():
    with noted_signals(quiet=True) as stopping, pytest.raises(KeyboardInterrupt):
        stopping.deliver(signal.SIGINT)


def test_the_first_signal_counts_and_a_second_interrupt_is_not_kept_waiting():
    with noted_signals(quiet=True) as stopping:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stopping.asked == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_the_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as behind nohup
    try:
        with noted_signals(quiet=True) as stopping:
            signal.raise_signal(signal.SIGINT)
            assert stopping.asked == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("quiet", [False, True])
def test_it_is_said_that_a_checkpoint_comes_first(capsys, quiet):
    with noted_signals(quiet=quiet):
        signal.raise_signal(signal.SIGTERM)
    output, errors = capsys.readouterr()
    assert output == ""
    assert ("SIGTERM: saving first" in errors) == (not quiet)


def test_other_threads_note_nothing():
    found = []

    def use():
        with noted_signals(quiet=True) as stopping:
            found.append((stopping.handlers, stopping.asked))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [({}, 0)]
