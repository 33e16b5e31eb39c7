"""A client of a running DEEPaaS server, for scripts and notebooks: `deephpc.serve.Client`.

with Client.of_run("runs/serve-plankton-91c2") as client:
    client.predict(image=Path("cell.jpg"), top=3).value
"""

import contextlib
import io
import json
import mimetypes
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any

import httpx
from pydantic import JsonValue

from deephpc.errors import EngineError, InputError, ProgramError, SiteError
from deephpc.serve.answers import body_error, fits
from deephpc.serve.connection import Address, load_address, open_session
from deephpc.serve.module_arguments import find_argument, parse_pairs
from deephpc.serve.module_description import ACCEPT
from deephpc.serve.prediction import Prediction
from deephpc.serve.refusals import LOGS, LOOK, check_answer
from deephpc.serve.swagger import (
    Parameter,
    PredictRequest,
    choose_accept,
    choose_model,
    parse_models,
    parse_parameters,
    plan_request,
    predict_path,
)
from deephpc.serve.uploads import SentFile, as_upload, open_upload, texts_of

_STARTS_S = 600.0
_SILENCE_S = 3600.0
"""How long a prediction may take without a sign of life; large models need minutes."""
_LARGEST_ERROR_BYTES = 1 << 20
"""Up to this size an answer in JSON may be no more than an error."""
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

_Build = Callable[[], httpx.Request]


@dataclass(frozen=True)
class Description:
    """A served module: its id, what it says of itself, and the parameters of its predictions."""

    model: str
    metadata: dict[str, Any]
    parameters: tuple[Parameter, ...]


class Client:
    """Speaks with one server; safe to use from several threads, a context manager.

    Parameters
    ----------
    address
        Where the server is reached.
    model
        The module to use; needed only where a server has several.
    patience_s
        How long to wait while the server starts.
    """

    def __init__(self, address: Address, *, model: str | None = None, patience_s: float = _STARTS_S) -> None:
        self._address = address
        self._model = model or address.endpoint.model
        self._patience_s = patience_s
        self._session = open_session(address, _SILENCE_S)
        self._description: Description | None = None

    @classmethod
    def of_run(cls, run_folder: Path | str, *, port: int | None = None, patience_s: float = _STARTS_S) -> "Client":
        """Return an open client for the server of a run, on a machine that sees the run's folder.

        Parameters
        ----------
        port
            Where a tunnel to it begins on this machine; without one the node is reached directly.

        Raises
        ------
        DeephpcError
            The run has no server, its files are not safe, or as `open` does.
        """
        address = load_address(Path(run_folder))
        return cls(address.through(port) if port else address, patience_s=patience_s).open()

    def __enter__(self) -> "Client":
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> "Client":
        """Connect, wait while the server starts, and read what it serves: the first prediction is like all others then.

        Raises
        ------
        DeephpcError
            The server cannot be reached, or as `describe` does.
        """
        try:
            self.describe()
        except BaseException:
            self.close()
            raise
        mimetypes.guess_type("")  # reads the system's table, once, which takes as long as a small prediction
        return self

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def models(self) -> tuple[str, ...]:
        """Return the ids of the modules that are served."""
        return parse_models(self._get("/v2/models/"))

    def describe(self) -> Description:
        """Return what is served and which arguments its predictions take, by the server's own Swagger.

        Raises
        ------
        EngineError
            It is no DEEPaaS server, or serves something else.
        """
        if self._description is None:
            model = choose_model(self.models(), self._model)
            about = self._get(f"/v2/models/{model}/")
            parameters = parse_parameters(self._get("/swagger.json"), model)
            self._description = Description(model, about if isinstance(about, dict) else {}, parameters)
        return self._description

    def predict(self, /, accept: str | None = None, **arguments: Any) -> Prediction:  # noqa: ANN401 - anything a module takes
        """Predict; a file argument takes a path, bytes, an open file or (name, bytes), the others their values.

        Parameters
        ----------
        accept
            Form of the answer, where the module has several; JSON unless told otherwise.
        arguments
            A list, tuple, set or array is sent item by item; None leaves an argument out.

        Raises
        ------
        InputError
            An argument is unknown, missing or not of its type.
        ProgramError
            The module failed, says so in the body of its answer, or answers in another form than `accept`.
        SiteError
            The server cannot be reached.
        """
        declared = [one.argument for one in self.describe().parameters]
        pairs: list[tuple[str, str]] = []
        uploads: dict[str, SentFile] = {}
        for name, value in arguments.items():
            argument = find_argument(name, declared, "")
            upload = as_upload(name, value) if argument.type == "file" and value is not None else None
            if upload is not None:
                uploads[argument.name] = upload
            else:
                pairs += [(argument.name, text) for text in texts_of(value)]
        content = io.BytesIO()
        return Prediction(self._predict(pairs, accept, content, uploads), content.getvalue())

    def predict_texts(self, pairs: Sequence[tuple[str, str]], accept: str | None = None) -> Prediction:
        """Predict with arguments as text, as `--arg NAME=VALUE` gives them.

        Raises
        ------
        DeephpcError
            As `predict` does.
        """
        content = io.BytesIO()
        return Prediction(self._predict(pairs, accept, content), content.getvalue())

    def predict_to(self, output: Path, pairs: Sequence[tuple[str, str]], accept: str | None = None) -> str:
        """Predict, stream the answer into a file, whole or not at all, and return its content type.

        Raises
        ------
        DeephpcError
            As `predict` does, and when the file cannot be written.
        """
        part = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
        try:
            try:
                with part.open("wb") as file:
                    content_type = self._predict(pairs, accept, file)
                part.replace(output)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {output}: {error.strerror}", "choose another --output") from error
        return content_type

    def _predict(
        self,
        pairs: Sequence[tuple[str, str]],
        accept: str | None,
        sink: IO[bytes],
        uploads: Mapping[str, SentFile] = MappingProxyType({}),
    ) -> str:
        """Predict, write the answer as it comes, and return its content type."""
        about = self.describe()
        doubts: list[InputError] = []
        declared = [one.argument for one in about.parameters]
        values = parse_pairs(pairs, declared, "", cwd=Path.cwd(), given=tuple(uploads), in_doubt=doubts)
        accept = accept or _str(values.pop(ACCEPT, None))
        request = plan_request(values, about.parameters, choose_accept(accept, about.parameters))
        with contextlib.ExitStack() as stack:
            files = [(name, open_upload(stack, Path(path))) for name, path in request.files]
            files += uploads.items()
            try:
                answer = stack.enter_context(self._answer(lambda: self._request(about.model, request, files)))
            except InputError as error:  # ours are the better words, and the module's the last one
                raise (doubts or [error])[0] from error
            content_type = str(answer.headers.get("content-type", "")).partition(";")[0].strip()
            if accept is not None and not fits(accept, content_type):
                raise ProgramError(f"{accept} was asked for, and the module answered {content_type}", LOGS)
            start = bytearray()
            for chunk in answer.iter_bytes():
                sink.write(chunk)
                if content_type == "application/json" and len(start) <= _LARGEST_ERROR_BYTES:
                    start += chunk
            _check_body(start)
            return content_type

    def _request(self, model: str, request: PredictRequest, files: list[tuple[str, SentFile]]) -> httpx.Request:
        """Return the request, its files from their beginning."""
        for _, upload in files:
            upload.content.seek(0)
        return self._session.build_request(
            "POST",
            predict_path(model),
            params=list(request.query),
            headers=request.headers,
            data=_grouped(request.form) or None,
            files=files or None,
            json=request.json or None,
        )

    def _get(self, path: str) -> object:
        with self._answer(lambda: self._session.build_request("GET", path)) as answer:
            answer.read()
            try:
                return answer.json()
            except ValueError as error:
                raise EngineError(f"the server's {path} is no JSON", "is it a DEEPaaS server?") from error

    @contextlib.contextmanager
    def _answer(self, build: _Build) -> Iterator[httpx.Response]:
        """Send a request, again while the server starts, and yield a good answer."""
        answer = self._send(build)
        try:
            check_answer(answer)
            yield answer
        except httpx.HTTPError as error:
            raise SiteError(f"{self._address.url} broke off: {_told(error)}", LOOK, transient=True) from error
        finally:
            answer.close()

    def _send(self, build: _Build) -> httpx.Response:
        deadline = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            is_late = time.monotonic() + pause > deadline
            try:
                answer = self._session.send(build(), stream=True)
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or is_late:
                    return answer
                answer.close()
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if is_late or "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise self._unreachable(error) from error
            except httpx.HTTPError as error:  # the request may have had an effect: it is not sent again
                raise SiteError(f"{self._address.url} broke off: {_told(error)}", LOOK, transient=True) from error
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _unreachable(self, error: Exception) -> SiteError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            told = f"{self._address.url} has another certificate than the server of {self._address.endpoint.run_id}"
            return SiteError(told, "refused: somebody else listens there; stop the tunnel, start the server anew")
        return SiteError(f"{self._address.url} cannot be reached: {_told(error)}", LOOK, transient=True)


def _check_body(content: bytearray) -> None:
    """Check that an answer in JSON does not tell of an error."""
    try:
        told = body_error(json.loads(content)) if 0 < len(content) <= _LARGEST_ERROR_BYTES else ""
    except ValueError:
        return
    if told:
        raise ProgramError(f"the module answers: {told[:1000]}", LOGS)


def _str(value: JsonValue) -> str | None:
    return None if value is None else str(value)


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
