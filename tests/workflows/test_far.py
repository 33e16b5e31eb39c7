"""deephpc on a login node, used from elsewhere over a real SSH server; there it is a double that shows its words."""

import json
import os
import shutil
import signal
import stat
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc import __version__
from deephpc.errors import InputError, ProgramError, SiteError
from deephpc.remote_shell import RemoteShell
from deephpc.serve import Client
from deephpc.workflows.far import FarDeephpc, FarServer, render_call, render_search
from deephpc.workflows.reach_server import ServerEnded
from tests.fakes.samples import A_TENTH
from tests.fakes.ssh_server import ssh_server
from tests.fakes.waiting import DEADLINE_S, wait_until
from tests.node.gateway_process import gateway

#: What stands for deephpc there: `--version`, or the answer that lies ready, and the words it was called with.
_DEEPHPC = """#!/bin/sh
if [ "$1" = --version ]; then echo "deephpc VERSION"; exit; fi
printf '%s\\0' "$@" >"$HOME/words"
[ ! -e "$HOME/stays" ] || { trap 'touch "$HOME/told"; exit 143' TERM; echo begun; while :; do sleep 0.1; done; }
cat "$HOME/talk" >&2 2>/dev/null
cat "$HOME/answer" 2>/dev/null
exit "$(cat "$HOME/code" 2>/dev/null || echo 0)"
"""


class There:
    """The login node, and what its deephpc will answer."""

    def __init__(self, server) -> None:
        self.server = server
        self.home = server.home
        self.told = []
        self.install()

    def install(self, place: str = "bin/deephpc", version: str = __version__) -> None:
        path = self.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_DEEPHPC.replace("VERSION", version))
        path.chmod(0o755)

    def will(self, answer: str, talk: str = "", code: int = 0) -> None:
        for name, text in (("answer", answer), ("talk", talk), ("code", str(code))):
            (self.home / name).write_text(text)

    def words(self) -> list[str]:
        return (self.home / "words").read_bytes().decode().split("\0")[:-1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ssh")
    with ssh_server(folder, environ={"LANG": "C.UTF-8"}) as running:
        yield running


@pytest.fixture
def there(server):
    shutil.rmtree(server.home / "deephpc-env", ignore_errors=True)
    for name in ("stays", "told", "words", "answer", "talk", "code"):
        (server.home / name).unlink(missing_ok=True)
    return There(server)


@pytest.fixture
def far(there):
    with RemoteShell("login", there.server.config) as shell:
        yield FarDeephpc(shell, None, there.told.append)


def collect(far, *words):
    out, err = bytearray(), bytearray()
    return far.run(words, out.extend, err.extend), bytes(out), bytes(err)


def test_words_streams_and_exit_code_pass_through_and_noise_does_not(far, there):
    there.will("an answer\n", "some talk\n", 5)
    words = ("jobs", "it's", 'a "b"', "", "$HOME `id`", "größe", "two\nlines", "\x1b[1m", "--", "-f", "\\n", "!x")
    assert collect(far, *words) == (5, b"an answer\n", b"some talk\n")
    assert there.words() == list(words)
    assert there.told == []


def test_another_version_is_told_once(far, there):
    there.install(version="9.9.9")
    there.will("")
    collect(far, "jobs")
    collect(far, "jobs")
    assert there.told == [f"note: deephpc is 9.9.9 on login and {__version__} here"]


def test_it_is_found_where_it_is_usually_installed_or_where_the_settings_say(far, there):
    (there.home / "bin" / "deephpc").unlink()
    with pytest.raises(SiteError, match="there is no deephpc on login") as caught:
        collect(far, "jobs")
    assert "far_program" in caught.value.hint
    there.will("found\n")
    there.install("deephpc-env/bin/deephpc")
    assert collect(far, "jobs")[1] == b"found\n"
    there.install("it's/here/deephpc")
    with RemoteShell("login", there.server.config) as shell:
        for place in ("~/it's/here/deephpc", f"{there.home}/it's/here/deephpc"):
            assert collect(FarDeephpc(shell, place, there.told.append), "jobs")[1] == b"found\n"
        with pytest.raises(SiteError, match="~/nowhere"):
            collect(FarDeephpc(shell, "~/nowhere", there.told.append), "jobs")


def test_an_answer_is_read_and_its_talk_is_told(far, there):
    there.will('{"state": "RUNNING"}', "s is not ready yet: warming\n")
    assert far.ask(["tunnel", "s"]) == {"state": "RUNNING"}
    assert there.words() == ["--json", "tunnel", "s"]
    assert there.told == ["s is not ready yet: warming"]


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (3, SiteError), (6, ProgramError), (139, SiteError)])
def test_its_error_is_ours(far, there, code, kind):
    there.will("", "error: no run named 'x' is recorded\n  hint: `deephpc jobs` lists the runs\n", code)
    with pytest.raises(kind) as caught:
        far.ask(["tunnel", "x"])
    assert (caught.value.message, caught.value.hint) == (
        "no run named 'x' is recorded",
        "`deephpc jobs` lists the runs",
    )
    assert there.told == []


def test_an_answer_that_is_no_json_is_told(far, there):
    there.will("[1, 2")
    with pytest.raises(SiteError, match="no JSON"):
        far.ask(["jobs"])


def test_it_is_told_to_end_when_the_connection_ends(there):
    (there.home / "stays").touch()
    begun = threading.Event()
    with RemoteShell("login", there.server.config) as shell:
        far = FarDeephpc(shell, None, there.told.append)

        def follow():
            with pytest.raises(SiteError, match="broke off"):
                far.run(["logs", "-f"], lambda _: begun.set(), lambda _: None)

        following = threading.Thread(target=follow)
        following.start()
        assert begun.wait(DEADLINE_S)
    following.join(DEADLINE_S)
    wait_until((there.home / "told").exists, "the far deephpc to be told")


def test_small_files_are_read_and_missing_ones_are_empty(far, there):
    (there.home / "it's a file").write_bytes(b"\xff\n")
    assert far.read(f"{there.home}/it's a file", "/nowhere/at-all") == (b"\xff\n", b"")


def test_a_server_there_is_brought_here_in_private_files(far, there, tmp_path):
    with gateway() as running:
        running.wait_for_stage("ready")
        there.will(json.dumps({"run_id": "demo-1a2b", "folder": str(running.folder)}))
        (tmp_path / "private").mkdir(mode=0o700)
        server = FarServer(far, ["--site", "x"], "demo", tmp_path / "private")
        reached = server.wait()
        assert there.words() == ["--json", "--site", "x", "tunnel", "demo", "--dry-run"]
        assert reached.address.token == running.address.token
        for path in (tmp_path / "private").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        with Client.of_run(reached.folder) as client:
            assert client.models() == ("demo_module",)
        endpoint = reached.address.endpoint
        assert server.stands(endpoint)
        assert not server.stands(endpoint.model_copy(update={"port": 1}))
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_end()
        assert not server.stands(endpoint)


def test_a_server_that_ended_there_has_ended_here(far, there, tmp_path):
    there.will("", "error: the server s has ended (TIMEOUT)\n  hint: start another\n", 2)
    with pytest.raises(ServerEnded, match="has ended"):
        FarServer(far, [], "s", tmp_path).wait()


def test_what_cannot_be_read_is_told(far, there, tmp_path):
    (there.home / "endpoint.json").write_text('{"schema": "deephpc.endpoint/99"}')
    there.will(json.dumps({"folder": str(there.home)}))
    with pytest.raises(SiteError, match="cannot be read"):
        FarServer(far, [], "s", tmp_path).wait()


_WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=4)


@A_TENTH
@given(_WORDS)
def test_any_words_arrive_as_they_are(tmp_path_factory, words):
    show = tmp_path_factory.getbasetemp() / "show"
    if not show.exists():
        show.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo v; exit; }\nprintf \'%s\\0\' "$#" "$@"\n')
        show.chmod(0o755)
    script = f"{render_search(str(show))}; {render_call(words)}"
    assert "\n" not in script
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as shell:
        shown = shell.stdout.read()  # its input stays open until it has ended
    assert shell.returncode == 0
    assert shown.decode().split("\0")[:-1] == [str(len(words)), *words]
