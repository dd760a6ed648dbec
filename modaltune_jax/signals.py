"""Signals that end a process: by an exception, and in training after the step under way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

TERMINATIONS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send some time before they kill."""

STOPS = (signal.SIGINT, *TERMINATIONS)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 was received: what cleans up after Ctrl-C cleans up after them."""


@contextlib.contextmanager
def terminations_raise() -> Iterator[None]:
    """Within, SIGTERM and SIGUSR1 raise `Terminated`, so that `finally` blocks run."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated

    with _handled(TERMINATIONS, handle):
        yield


@contextlib.contextmanager
def stops_wait() -> Iterator[None]:
    """Holds back until the end what would raise."""
    held: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in STOPS}
    raising = {number: handler for number, handler in handlers.items() if callable(handler)}
    with _handled(tuple(raising), lambda *received: held.append(received)):
        yield
    if held:
        number, frame = held[0]
        raising[number](number, frame)


class StopSignals:
    """Within, the first signal of `STOPS` is noted, and the second ends the process at once.

    So does the end of the grace period after the first. A thread of its own sees to both: the main thread
    may be inside XLA for a long time, where Python runs no handler. The exit code is then 128 + signal.

    At the end of the context a signal that was noted, and that nobody has heeded, is raised. Does nothing
    outside the main thread, which is the only one that Python lets handle signals.

    Attributes:
      received: the first signal's number, None so far.
    """

    def __init__(self, grace_seconds: float):
        self.received: int | None = None
        self._grace_seconds = grace_seconds
        self._is_raising = False
        self._exits = contextlib.ExitStack()

    def error(self, message: str = "") -> KeyboardInterrupt:
        """What to raise to end as the signal wants it: plain for Ctrl-C, otherwise `Terminated`."""
        return KeyboardInterrupt(message) if self.received == signal.SIGINT else Terminated(message)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, a signal raises: for work that is done again after a stop."""
        self._is_raising = True
        try:
            if self.received:
                raise self.error()
            yield
        finally:
            self._is_raising = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            reader, writer = socket.socketpair()
            writer.setblocking(False)
            threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
            self._exits.callback(writer.close)  # which ends the thread
            before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            self._exits.callback(signal.set_wakeup_fd, before)
            self._exits.enter_context(_handled(STOPS, self._note))
        return self

    def __exit__(self, kind: type | None, *exc_info: object) -> None:
        self._exits.close()
        if self.received and kind is None:
            raise self.error()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._is_raising:
            raise self.error()

    def _watch(self, reader: socket.socket) -> None:
        with reader:
            first = _next(reader, None)
            if first is None:
                return
            self.received = self.received or first
            os.write(2, b"\nstopping after the step under way; a second signal stops at once\n")
            try:
                if _next(reader, self._grace_seconds) is None:
                    return
                reason = "by a second signal"
            except TimeoutError:
                reason = f"as the {self._grace_seconds:g} s of checkpoint.grace_seconds are over"
        os.write(2, f"\nstopped {reason}: the same command goes on from the last checkpoint\n".encode())
        os._exit(128 + first)


def _next(reader: socket.socket, timeout: float | None) -> int | None:
    """The next signal of `STOPS`; None when the other end was closed."""
    reader.settimeout(timeout)
    while received := reader.recv(1):
        if received[0] in STOPS:
            return received[0]
    return None


@contextlib.contextmanager
def _handled(numbers: tuple[int, ...], handle: Any) -> Iterator[None]:
    """Another handler for these signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: of another language than Python, out of reach.
            signal.signal(number, handler or signal.SIG_DFL)
