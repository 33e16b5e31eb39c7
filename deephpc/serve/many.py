"""Predicts many inputs on one server, a few at a time; one that fails stops none of the others."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from deephpc.errors import DeephpcError
from deephpc.serve.client import Client
from deephpc.serve.prediction import Prediction

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def predict_each(
    client: Client, inputs: Iterable[Sequence[tuple[str, str]]], *, accept: str | None = None, at_once: int = 4
) -> Iterator[Prediction | DeephpcError]:
    """Yield the answer to each input, or why there is none, in the order of the inputs.

    Parameters
    ----------
    inputs
        Names and texts of the arguments of each prediction.
    at_once
        How many predictions the server is asked for at a time; DEEPaaS works on one and queues the others.
    """

    def predict(pairs: Sequence[tuple[str, str]]) -> Prediction | DeephpcError:
        try:
            return client.predict_texts(pairs, accept)
        except DeephpcError as error:
            return error

    return each_of(predict, inputs, at_once)


def each_of(work: Callable[[_Item], _Result], items: Iterable[_Item], at_once: int) -> Iterator[_Result]:
    """Yield what `work` makes of each item, in their order, several at a time.

    No more than `2 * at_once` items are under way or waiting to be taken, so neither list needs to fit into memory.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
