"""How a signal stops a run: after the current step, with its state saved."""

import signal
import time
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a scheduler's request, a terminal that was closed


class StopRequest:
    """In a `with` block, turns Ctrl-C, SIGTERM or SIGHUP into a request to stop after the current step.

    A second one stops immediately, unless it is SIGHUP, which may come from both terminal and shell. Signals within
    `grace` seconds of the first count as the same one. Ignored signals, as SIGHUP is under nohup, stay ignored.
    """

    def __init__(self, say: Callable[[str], None], grace: float = 0.0):
        self.signal, self.say, self.grace, self.time = 0, say, grace, 0.0
        self.before = {}

    def __enter__(self) -> "StopRequest":
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self.before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
        for number in self.before:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame) -> None:
        if self.signal and number != signal.SIGHUP and time.monotonic() - self.time >= self.grace:
            raise KeyboardInterrupt
        if self.signal:
            return
        self.signal, self.time = number, time.monotonic()
        self.say("\nFinishing this step and saving. Press Ctrl-C again to quit immediately.")
