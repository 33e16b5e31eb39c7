"""Several threads that work through a list to which its own items may add; one file's failure spares the others."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from deephpc.data.storage import Unfit, is_of_one_file
from deephpc.errors import DataError
from deephpc.retries import Stopped

#: How long threads may take to notice that they are to stop.
_LAST_MOMENT_S = 2.0
#: After so many files that failed, and none that did not, it is no matter of single files.
_MANY = 16
_Work = Callable[[], None]


@dataclass
class Crew:
    """The threads of one transfer.

    Parameters
    ----------
    parallel
        How many work at once.
    """

    parallel: int
    stop: threading.Event = field(default_factory=threading.Event)
    _waiting: deque[_Work] = field(default_factory=deque)
    _busy: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _fatal: BaseException | None = None
    failures: dict[str, DataError] = field(default_factory=dict)
    """What is wrong with single files, by path."""
    has_success: bool = False
    """Whether any file was moved, or was there."""

    def add_first(self, work: Iterable[_Work]) -> None:
        """Put work before all that waits."""
        with self._changed:
            self._waiting.extendleft(reversed(list(work)))
            self._changed.notify_all()

    def check(self) -> None:
        """Raise `Stopped` when all is to end."""
        if self.stop.is_set():
            raise Stopped

    @contextmanager
    def sparing_others(self, path: str) -> Iterator[None]:
        """Note what is wrong with one file, and let the others go on.

        Raises
        ------
        DataError
            It concerns them too, or not one was moved before many failed.
        """
        try:
            yield
        except DataError as error:
            if not is_of_one_file(error):
                raise
            with self._changed:
                self.failures.setdefault(path, error)
                if len(self.failures) > _MANY and not self.has_success:
                    raise

    def share(self, work: Sequence[_Work]) -> None:
        """Do pieces of work in the thread that calls and in those that are idle; raises what the first failure raised.

        Whoever waits here waits only for pieces that somebody is doing, so that nobody waits for ever.
        """
        pieces = deque(work)
        turn = threading.Condition()
        state: dict[str, int] = {"doing": 0}
        errors: list[BaseException] = []

        def help_out() -> None:
            while True:
                with turn:
                    if not pieces or errors or self.stop.is_set():
                        return
                    piece = pieces.popleft()
                    state["doing"] += 1
                try:
                    piece()
                except BaseException as error:  # noqa: BLE001 - raised again by the one that shares
                    errors.append(error)
                finally:
                    with turn:
                        state["doing"] -= 1
                        turn.notify_all()

        self.add_first([help_out] * min(self.parallel - 1, len(pieces) - 1))
        help_out()
        with turn:
            while state["doing"]:
                turn.wait()
        self.check()
        if errors:
            raise errors[0]

    def run(self, work: Iterable[_Work]) -> None:
        """Do all work and return.

        Threads are daemons: one that sits on a silent connection must not keep an interrupted process alive.

        Raises
        ------
        DataError
            What concerns all files.
        """
        self._waiting.extend(work)
        threads = [threading.Thread(target=self._labour, daemon=True) for _ in range(self.parallel)]
        for thread in threads:
            thread.start()
        try:
            with self._changed:
                while (self._waiting or self._busy) and self._fatal is None:
                    self._changed.wait()
        finally:
            self.stop.set()
            with self._changed:
                self._changed.notify_all()
            deadline = time.monotonic() + _LAST_MOMENT_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._fatal is not None:
            raise self._fatal

    def _labour(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self.stop.is_set():
                    self._changed.wait()
                if self.stop.is_set():
                    return
                work = self._waiting.popleft()
                self._busy += 1
            error = self._attempt(work)
            with self._changed:
                self._busy -= 1
                if error is not None and self._fatal is None:
                    self._fatal = error
                if self._fatal is not None or not (self._waiting or self._busy):  # what the one that waits waits for
                    self._changed.notify_all()

    def _attempt(self, work: _Work) -> BaseException | None:
        try:
            work()
        except Stopped:
            return None
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            return error
        return None


def all_failed(failures: Iterable[DataError]) -> DataError:
    """Return the error for files of which not one was moved."""
    errors = sorted(failures, key=lambda each: isinstance(each, Unfit))  # what may be remedied counts
    first = errors[0]
    if len(errors) == 1:
        return first
    return type(first)(f"{first.message}; and {len(errors) - 1} more files failed", first.hint)
