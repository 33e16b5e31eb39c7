"""Shell scripts on a machine reached by SSH, with a real SSH server."""

import itertools
import os
import shutil
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError, SiteError
from deephpc.remote_shell import MarkedStream, RemoteShell, check_destination, parse_ssh_settings, render_command
from tests.fakes.samples import A_TENTH
from tests.fakes.ssh_server import ssh_server
from tests.fakes.waiting import DEADLINE_S, wait_until

RECORDED = """\
user alice
hostname login.example.org
port 2222
identitiesonly no
stricthostkeychecking ask
identityfile ~/.ssh/id_rsa
identityfile "/keys/my key"
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile /home/alice/.ssh/known_hosts
proxyjump bob@gate:2200
"""


@pytest.fixture(scope="module")
def login(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def shell(login):
    login.configure()
    with RemoteShell("login", login.config) as opened:
        yield opened


def collect(shell, script, **more):
    out, err = bytearray(), bytearray()
    done = shell.run(script, out.extend, err.extend, **more)
    return done.code, bytes(out), bytes(err), done.greeting


def test_streams_and_exit_code_pass_through_without_banners_and_noise(shell):
    script = "printf 'a\\0\\377\\n'; printf 'b\\n' >&2; exit 7"
    assert collect(shell, script) == (7, b"a\0\xff\n", b"b\n", "")
    assert collect(shell, "true", prepare="echo noise; greeting='deephpc 1 2'") == (0, b"", b"", "deephpc 1 2")


def test_much_output_arrives_whole(shell):
    code, out, err, _ = collect(shell, "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2")
    assert (code, len(out), len(err)) == (0, 3_000_000, 2_000_000)


def test_what_runs_there_is_told_when_the_connection_ends(login, shell, tmp_path):
    mark = tmp_path / "ended"
    script = f"exec 3<&0; (cat <&3; echo ended >{mark}) & exec 3<&-; echo begun; sleep 600"
    begun = threading.Event()

    def follow():
        with pytest.raises(SiteError, match="broke off"):
            shell.run(script, lambda _: begun.set(), lambda _: None)

    following = threading.Thread(target=follow)
    following.start()
    assert begun.wait(DEADLINE_S)
    shell.close()
    following.join(DEADLINE_S)
    wait_until(mark.exists, "what runs there to be told")


def test_a_silent_connection_counts_as_lost_and_the_next_script_has_another(shell):
    with pytest.raises(SiteError, match="broke off") as caught:
        collect(shell, "sleep 600", silence_s=0.2)
    assert caught.value.transient
    assert collect(shell, "echo hi", silence_s=DEADLINE_S)[1] == b"hi\n"


def test_a_machine_that_is_not_known_is_refused(login):
    login.configure(UserKnownHostsFile="/dev/null")
    with (
        RemoteShell("login", login.config) as shell,
        pytest.raises(SiteError, match="not in your known_hosts") as caught,
    ):
        collect(shell, "true")
    assert "ssh login" in caught.value.hint


def test_a_machine_with_another_key_is_refused(login, tmp_path):
    key = login.known_hosts.read_text().split()
    other = tmp_path / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    other.write_text(f"{key[0]} {(tmp_path / 'key.pub').read_text()}")
    for strict in ("ask", "no"):
        login.configure(UserKnownHostsFile=str(other), StrictHostKeyChecking=strict)
        with RemoteShell("login", login.config) as shell, pytest.raises(SiteError, match="another key") as caught:
            collect(shell, "true")
        assert "somebody may listen in" in caught.value.hint


def test_a_user_without_a_key_is_told(login, tmp_path):
    login.configure(IdentityFile=str(tmp_path / "none"))
    with (
        RemoteShell("login", login.config) as shell,
        pytest.raises(SiteError, match="login refuses you") as caught,
    ):
        collect(shell, "true")
    assert "ssh login" in caught.value.hint


def test_a_machine_that_does_not_answer_is_told(login):
    login.configure(Port="1")
    with (
        RemoteShell("login", login.config) as shell,
        pytest.raises(SiteError, match="login cannot be reached") as caught,
    ):
        collect(shell, "true")
    assert caught.value.transient


def test_a_host_that_does_not_exist_is_told(login):
    with (
        RemoteShell("alice@no-such-host.invalid", login.config) as shell,
        pytest.raises(SiteError, match=r"no-such-host\.invalid cannot be reached"),
    ):
        collect(shell, "true")


def test_the_name_under_which_a_key_is_known_is_respected(login, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("cluster " + login.known_hosts.read_text().split(" ", 1)[1])
    login.configure(UserKnownHostsFile=str(known), HostKeyAlias="cluster")
    with RemoteShell("login", login.config) as shell:
        assert collect(shell, "echo hi")[1] == b"hi\n"


def test_a_login_shell_that_ends_at_once_is_told_with_its_words(tmp_path):
    with ssh_server(tmp_path) as server:
        (server.home / ".bash_profile").write_text("echo 'over quota' >&2\nexit 5\n")
        with RemoteShell("login", server.config) as shell, pytest.raises(SiteError, match=r"exit 5.*over quota"):
            collect(shell, "true")


@pytest.mark.parametrize("name", ["bash", "dash", "zsh", "tcsh", "fish"])
def test_any_login_shell_understands_the_command(name, tmp_path):
    program = shutil.which(name)
    if program is None and name in ("zsh", "tcsh", "fish"):
        program = shutil.which("sh")
    command = render_command("""printf '%s|' 'it'"'"'s' "$HOME" '!x' '$y'; exit 3""", "MARK", "greeting=hi")
    done = subprocess.run(
        [program, "-c", command], capture_output=True, env={**os.environ, "HOME": str(tmp_path)}, check=False
    )
    assert done.stdout.endswith(f"MARK hi\nit's|{tmp_path}|!x|$y|".encode())
    assert done.returncode == 3


@A_TENTH
@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.integers(0, 120), max_size=6))
def test_a_mark_is_found_wherever_the_pieces_end(noise, rest, cuts):
    whole = noise + b"MARK-1 hello\n" + rest
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    got = bytearray()
    stream = MarkedStream(b"MARK-1", got.extend)
    for begin, end in itertools.pairwise(edges):
        stream.feed(whole[begin:end])
    assert (bytes(got), stream.greeting) == (rest, "hello")


def test_what_ssh_says_of_a_machine_is_understood():
    found = parse_ssh_settings(RECORDED)
    assert (found.host, found.port, found.user, found.jump) == ("login.example.org", 2222, "alice", "bob@gate:2200")
    assert found.known_hosts[0] == "/home/alice/.ssh/known_hosts"
    assert len(found.known_hosts) == 3
    assert not found.trusts_unknown
    assert found.uses_agent
    assert parse_ssh_settings("stricthostkeychecking false\nproxycommand none\n").trusts_unknown


@A_TENTH
@given(st.text(max_size=10))
def test_no_destination_becomes_an_option(text):
    try:
        check_destination(text)
    except InputError as error:
        assert error.hint
    else:
        assert not text.startswith("-")
        assert not set(text) & set(" \n\t,:/")
