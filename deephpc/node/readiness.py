"""Decides when a server is ready: the expected module is served, and a real prediction has succeeded."""

import asyncio
import contextlib
import json
import mimetypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from deephpc.errors import DeephpcError, EngineError, SiteError
from deephpc.node.gateway_standing import NOTE, Standing
from deephpc.node.readiness_samples import Sample, made_up_samples
from deephpc.serve.answers import body_error
from deephpc.serve.module_arguments import parse_pairs
from deephpc.serve.service import Service
from deephpc.serve.swagger import (
    Parameter,
    choose_accept,
    choose_model,
    parse_models,
    parse_parameters,
    plan_request,
    predict_path,
)

_POLL_S, _LONGEST_POLL_S = 0.02, 0.5
_LATE = 0.02
"""How late it may be noticed that the server answers, as a part of what that took."""
_LOOK_S = 1.0
"""How often it is looked where else a server listens."""
_AGAIN = 10
_AGAIN_S = 1.0
_SHOWN_BYTES = 2000
_GIVE_A_SAMPLE = "give the server an input of yours for it: --sample NAME=VALUE, of a file its path, for all it needs"
_WITHOUT_INPUT = f"warmed without input; {_GIVE_A_SAMPLE}"


@dataclass(frozen=True)
class _Answer:
    """What the server said to a prediction."""

    status: int
    text: str
    is_good: bool

    def __str__(self) -> str:
        return f"{self.status}: {self.text}"


@dataclass(frozen=True)
class Ways:
    """How a server is reached while it gets ready."""

    session: aiohttp.ClientSession
    """Connections to the server itself."""
    url: Callable[[URL], URL]
    """Turns a path into an address of the server."""
    owner: Callable[[], int | None]
    """Tells which user listens there."""
    elsewhere: Callable[[], tuple[int, ...]]
    """Tells on which ports the server listens that are not its own."""
    through_gateway: aiohttp.ClientSession
    """Connections that go the way of all later predictions."""


class Readiness:
    """The way of one server to its first prediction.

    Parameters
    ----------
    folder
        The run folder, from which relative paths count.
    """

    def __init__(self, service: Service, folder: Path, ways: Ways, standing: Standing) -> None:
        self._service = service
        self._folder = folder
        self._ways = ways
        self._standing = standing
        self._doing = "does not listen"
        self._model: str | None = None
        self._has_predicted = False
        self._reserve = ""

    async def reach(self) -> str:
        """Go through the stages until the server is ready; return nothing then, else why it never will be."""
        try:
            await asyncio.wait_for(self._go(), self._service.ready_within_s)
        except asyncio.TimeoutError:
            if not self._has_predicted:  # what comes after the first prediction makes others quicker, no more
                return f"the server was not ready within {self._service.ready_within_s:g} s: it {self._doing}"
        except DeephpcError as error:
            return f"{error.message}; {error.hint}" if error.hint else error.message
        self._standing.enter("ready", self._reserve, **self._about())
        return ""

    async def _go(self) -> None:
        self._standing.enter("loading")
        if self._service.kind != "deepaas":
            await self._until_it_answers("/")
            return
        await self._until_it_answers("/v2/models/")
        model = choose_model(parse_models(await self._json("/v2/models/")), self._service.model)
        self._model = model
        self._standing.enter("warming", **self._about())
        if self._service.predicts_first:
            self._doing = "does not answer its first prediction"
            parameters = parse_parameters(await self._json("/swagger.json"), model)
            sample = await self._predict(model, parameters)
            self._has_predicted = True
            await self._predict_again(model, parameters, sample)

    def _about(self) -> dict[str, str]:
        return {} if self._model is None else {"model": self._model}

    async def _until_it_answers(self, path: str) -> None:
        """Wait until the server answers at all; what it says is judged later."""
        began = looked = time.monotonic()
        told = False
        while True:
            if self._service.kind == "command" and time.monotonic() - looked > _LOOK_S:
                looked, told = time.monotonic(), self._tell_of_ports(told)
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with self._ways.session.get(self._ways.url(URL(path)), allow_redirects=False) as answer:
                    self._doing = f"answers {path} with {answer.status}"
                    if answer.status < 500:
                        self._check_owner()
                        return
            await asyncio.sleep(min(max(_POLL_S, _LATE * (time.monotonic() - began)), _LONGEST_POLL_S))

    def _tell_of_ports(self, was_told: bool) -> bool:
        """Say where else the server listens; it may yet listen on its own port, as those do that load a model first."""
        ports = self._ways.elsewhere()
        if not ports:
            return was_told
        self._doing = (
            f"listens on port {', '.join(map(str, ports))} alone, which is not the one it was given: --port-env NAME"
        )
        if not was_told:
            _note(f"so far the server {self._doing}")
        return True

    def _check_owner(self) -> None:
        owner = self._ways.owner()
        if owner not in (None, os.geteuid()):
            raise SiteError(f"user {owner} took the server's port first", "start it again; a socket cannot be taken")

    async def _json(self, path: str) -> object:
        async with self._ways.session.get(self._ways.url(URL(path))) as answer:
            if answer.status != 200:
                raise EngineError(f"the server answers {path} with {answer.status}", "its log may say why")
            return await answer.json(content_type=None)

    async def _predict(self, model: str, parameters: tuple[Parameter, ...]) -> Sample:
        """Have a prediction succeed, with the user's sample or else with one of those made up; return with which."""
        refused = ""
        for sample in self._samples(parameters):
            whose = "your" if self._service.sample else "a made-up"
            answer = await self._ask(model, parameters, sample)
            _note(f"the first prediction, with {whose} sample ({sample}): {answer}")
            if answer.is_good:
                self._reserve = _WITHOUT_INPUT if sample.asks_nothing else ""
                return sample
            if answer.status == 502:  # by the gateway: no other sample will do
                raise EngineError(f"the first prediction of {model} failed: {answer.text}", "its log may say why")
            refused = refused or str(answer)
        hint = "" if self._service.sample else _GIVE_A_SAMPLE
        raise EngineError(f"the first prediction of {model} failed with {refused}", hint)

    async def _predict_again(self, model: str, parameters: tuple[Parameter, ...], sample: Sample) -> None:
        """Be a client for a moment: a second prediction may still compile, the first ten requests grow quicker.

        A slow module predicts once more, a quick one as often as fits into a second; what fails here stops nobody.
        """
        for path in ("/v2/models/", f"/v2/models/{model}/", "/swagger.json"):
            with contextlib.suppress(aiohttp.ClientError):
                async with self._ways.through_gateway.get(URL(path)) as answer:
                    await answer.read()
        until = time.monotonic() + _AGAIN_S
        for number in range(_AGAIN):
            if number and time.monotonic() > until:
                return
            answered = await self._ask(model, parameters, sample)
            if not answered.is_good:
                _note(f"prediction {number + 2} of the same sample: {answered}")
                return

    def _samples(self, parameters: tuple[Parameter, ...]) -> Iterator[Sample]:
        if not self._service.sample:
            yield from made_up_samples([one.argument for one in parameters])
            return
        declared = [one.argument for one in parameters]
        values = parse_pairs(self._service.sample, declared, "--sample ", cwd=self._folder)
        files = {one.name for one in declared if one.type == "file"}
        paths = {name: Path(str(value)) for name, value in values.items() if name in files}
        try:
            contents = {name: (path.name, path.read_bytes()) for name, path in paths.items()}
        except OSError as error:
            raise EngineError(
                f"the sample {error.filename} cannot be read: {error.strerror}", "is it still there?"
            ) from error
        yield Sample({name: value for name, value in values.items() if name not in files}, contents)

    async def _ask(self, model: str, parameters: tuple[Parameter, ...], sample: Sample) -> _Answer:
        request = plan_request(sample.values, parameters, choose_accept(None, parameters))
        form = _form(request.form, sample.files) if request.form or sample.files else None
        asking = self._ways.through_gateway.post(
            URL(predict_path(model)).with_query(request.query),
            headers=request.headers,
            data=form,
            json=request.json or None,
        )
        try:
            async with asking as answer:
                content = await answer.read()
        except aiohttp.ClientError as error:
            raise EngineError(f"the server broke off its first prediction: {error}", "its log may say why") from error
        return _judge(answer.status, answer.content_type, content)


def _judge(status: int, content_type: str, content: bytes) -> _Answer:
    """Return what an answer says, without the wrapping of DEEPaaS or of the gateway."""
    text, error = content[:_SHOWN_BYTES].decode("utf-8", "replace"), ""
    if content_type == "application/json":
        with contextlib.suppress(ValueError):
            said = json.loads(content)
            error = body_error(said)
            wrapped = isinstance(said, dict) and status != 200
            text = error or (str(said.get("message") or said.get("error") or text) if wrapped else text)
    elif not content_type.startswith("text/"):
        text = f"{len(content)} bytes of {content_type}"
    return _Answer(status, " ".join(text.split())[:500], status == 200 and not error)


def _note(text: str) -> None:
    print(f"{NOTE}{text}", file=sys.stderr, flush=True)  # noqa: T201 - the job's log


def _form(fields: Sequence[tuple[str, str]], files: dict[str, tuple[str, bytes]]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for name, value in fields:
        form.add_field(name, value)
    for name, (filename, content) in files.items():
        kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        form.add_field(name, content, filename=filename, content_type=kind)
    return form
