"""deephpc on a login node, used from a laptop: its commands passed on, and its servers brought here."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deephpc import __version__
from deephpc.errors import DataError, DeephpcError, EngineError, InputError, ProgramError, SiteError
from deephpc.quoting import quote_for_bash
from deephpc.remote_shell import Emit, RemoteShell
from deephpc.serve.connection import load_address
from deephpc.serve.endpoint import ENDPOINT, TOKEN, Endpoint, keep
from deephpc.workflows.reach_server import Reached, ServerEnded

_BY_CODE: dict[int, type[DeephpcError]] = {
    error.exit_code: error for error in (InputError, SiteError, EngineError, DataError, ProgramError)
}
_NOT_THERE = 127
_LOOKS_APART_S = 15.0
_READS_WITHIN_S = 20.0
_ASKS_APART_S = 60.0
#: Where README.md has people install it; a login shell need not have that on PATH.
_USUAL_PLACE = '"$HOME"/deephpc-env/bin/deephpc'


class FarDeephpc:
    """deephpc on a machine reached by SSH.

    Parameters
    ----------
    program
        Where it lies there; None to look on PATH of a login shell.
    tell
        Takes what the user should know, line by line.
    """

    def __init__(self, shell: RemoteShell, program: str | None, tell: Callable[[str], None]) -> None:
        self._shell = shell
        self._program = program
        self._tell = tell
        self._is_checked = False

    @property
    def host(self) -> str:
        """The machine, as ssh knows it."""
        return self._shell.destination

    def run(self, words: Sequence[str], out: Emit, err: Emit) -> int:
        """Run a command there and return its exit code; the streams pass through.

        Raises
        ------
        SiteError
            The machine cannot be reached, or deephpc is not there.
        """
        done = self._shell.run(render_call(words), out, err, prepare=render_search(self._program))
        if not done.greeting:
            looked = self._program or "PATH of its login shell, ~/deephpc-env"
            raise SiteError(
                f"there is no deephpc on {self.host} (looked at {looked})",
                'install it there, or say where it lies: far_program = "/path/to/deephpc" in config.toml here',
            )
        self._compare(done.greeting)
        return done.code

    def ask(self, words: Sequence[str]) -> dict[str, Any]:
        """Run a command there and return its JSON answer; its talk is passed on as it comes.

        Raises
        ------
        DeephpcError
            What the command there failed with.
        """
        answer, talk = bytearray(), _Talk(self._tell)
        code = self.run(["--json", *words], answer.extend, talk.feed)
        if code != 0:
            message = talk.error or f"deephpc on {self.host} ended with {code}"
            raise _BY_CODE.get(code, SiteError)(message, talk.hint)
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SiteError(f"deephpc on {self.host} gave no JSON answer", "is it of the same version as here?")
        return found

    def read(self, *paths: str) -> tuple[bytes, ...]:
        """Return the contents of small files there; empty for one that is not there.

        Raises
        ------
        SiteError
            The machine cannot be reached.
        """
        content = bytearray()
        script = "; ".join(f"cat -- {quote_for_bash(path)} 2>/dev/null; printf '\\0'" for path in paths)
        self._shell.run(script, content.extend, _drop, silence_s=_READS_WITHIN_S)
        return tuple(bytes(content).split(b"\0")[: len(paths)])

    def _compare(self, greeting: str) -> None:
        """Tell of another version there, once."""
        version = greeting.rpartition(" ")[2]
        if not self._is_checked and version != __version__:
            self._tell(f"note: deephpc is {version} on {self.host} and {__version__} here")
        self._is_checked = True


class FarServer:
    """A server of a run that deephpc on a login node knows.

    Parameters
    ----------
    private
        A folder (0700) for its certificate and token.
    """

    def __init__(self, far: FarDeephpc, words: Sequence[str], server: str, private: Path) -> None:
        self.looks_apart_s = _LOOKS_APART_S
        self._far = far
        self._words = tuple(words)
        self._server = server
        self._private = private
        self._folder = ""
        self._next_question = 0.0

    def wait(self) -> Reached:
        """Wait until it is ready, and bring its certificate and token here.

        Raises
        ------
        ServerEnded
            It never will be, or there is none.
        SiteError
            The login node cannot be reached, or what it says cannot be read.
        """
        try:
            told = self._far.ask([*self._words, "tunnel", self._server, "--dry-run"])
        except InputError as error:
            raise ServerEnded(error.message, error.hint) from error
        self._folder = str(told.get("folder", ""))
        self._server = str(told.get("run_id", self._server))
        endpoint, token = self._far.read(f"{self._folder}/{ENDPOINT}", f"{self._folder}/{TOKEN}")
        keep(self._private, self._parse(endpoint), token.decode("ascii", "replace").strip())
        self._next_question = time.monotonic() + _ASKS_APART_S
        return Reached(load_address(self._private), self._private)

    def stands(self, endpoint: Endpoint) -> bool:
        """Whether it is still published there, and now and then whether its job runs; yes where nobody answers."""
        try:
            (text,) = self._far.read(f"{self._folder}/{ENDPOINT}")
            if not text or self._parse(text) != endpoint:
                return False
            if time.monotonic() < self._next_question:
                return True
            self._next_question = time.monotonic() + _ASKS_APART_S
            job = self._far.ask([*self._words, "jobs", "show", self._server]).get("job", {})
            return bool(job.get("state") == "RUNNING")
        except SiteError:
            return True

    def _parse(self, text: bytes) -> Endpoint:
        try:
            return Endpoint.model_validate_json(text)
        except ValidationError as error:
            raise SiteError(
                f"what {self._far.host} says of the server {self._server} cannot be read",
                "is deephpc of the same version there and here?",
            ) from error


class _Talk:
    """Tells what comes on stderr line by line, all but an error and its hint."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.error = self.hint = ""
        self._tell = tell
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        if line.startswith("error: "):
            self.error = line.removeprefix("error: ")
        elif self.error and re.match(r"  hint: ", line):
            self.hint = line.removeprefix("  hint: ")
        else:
            self._tell(line)


def render_search(program: str | None) -> str:
    """Return a line of bash that finds deephpc as `$found` and has its version for the greeting (pure)."""
    if program is None:
        look = f"found=$(command -v deephpc) || found={_USUAL_PLACE}"
    else:
        begins = program.startswith("~/")
        look = (
            "found="
            + ('"$HOME"/' if begins else "")
            + quote_for_bash(program.removeprefix("~/") if begins else program)
        )
    return f'{look}; [ -x "$found" ] && greeting=$("$found" --version </dev/null)'


def render_call(words: Sequence[str]) -> str:
    """Return a line of bash that runs `$found`, and ends it when the connection does (pure).

    Without a terminal nothing tells a far program that we are gone; the end of its shell's standard input does.
    """
    called = " ".join(quote_for_bash(word) for word in words)
    return "; ".join(
        (
            f'[ -n "${{greeting-}}" ] || exit {_NOT_THERE}',
            "exec 3<&0 </dev/null",
            f'"$found" {called} 3<&- & program=$!',
            "{ cat <&3; kill -TERM $program; } >/dev/null 2>&1 & watcher=$!",
            "exec 3<&-",
            "wait $program; code=$?",
            "kill $watcher 2>/dev/null",
            "exit $code",
        )
    )


def _drop(_data: bytes) -> None:
    pass
