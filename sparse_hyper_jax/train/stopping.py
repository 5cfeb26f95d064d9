"""Signals that ask a run to stop are noted, and heeded where nothing is lost.

Ctrl-C (SIGINT) and a polite end of the process (SIGTERM) take effect after the next checkpoint,
which training then writes as soon as it can. There they do what they would have done without this:
as a rule, raise ``KeyboardInterrupt`` and end the process. A second Ctrl-C is not kept waiting.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """What has been asked for so far; made by :func:`noted_signals`."""

    def __init__(self, *, quiet: bool):
        self.asked = 0
        """Number of the signal, 0 if there was none."""

        self.quiet = quiet
        self.handlers: dict[int, Any] = {}

    def deliver(self, number: int) -> None:
        """Let a signal do what it does without this, and note no further ones.

        Args:
            number: of the signal, which another process of the run may have received.
        """
        self.restore()
        signal.raise_signal(number)

    def install(self) -> None:
        """Note signals from now on, except those that the process ignores."""
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):
                self.handlers[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Put back what was there before; doing it again does nothing."""
        while self.handlers:
            signal.signal(*self.handlers.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            self.deliver(number)
            return
        self.asked = self.asked or number
        if not self.quiet:
            # A signal may come while the same stream is being written to.
            with contextlib.suppress(RuntimeError):
                name = signal.Signals(number).name
                print(f"\n{name}: saving first; Ctrl-C stops at once", file=sys.stderr)


@contextlib.contextmanager
def noted_signals(*, quiet: bool) -> Iterator[Stopping]:
    """Note signals within the block; only in the main thread, where alone they arrive.

    Args:
        quiet: say nothing when one arrives.
    """
    stopping = Stopping(quiet=quiet)
    if threading.current_thread() is threading.main_thread():
        stopping.install()
    try:
        yield stopping
    finally:
        stopping.restore()
