"""Whatever a server or a disk does: the data arrive whole, or one clear line says why not."""

import hashlib
import os
import random
import re
import signal
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deephpc.data.manifest import check_entries
from deephpc.data.storage import Changed, Entry, Interrupted, Missing, Refused
from deephpc.errors import DataError, InputError
from deephpc.workflows.data import TransferRequest, carry_out_get, carry_out_put, check_whole
from deephpc.workflows.data_check import list_location
from tests.fakes.waiting import DEADLINE_S, wait_until

from . import command, servers
from .conftest import PATIENT, Desk, Server
from .servers import PASSWORD, Mood, Relay

MIB = 1 << 20
#: What a set is made of whose transfer is killed; larger in `make test-long`.
SMALL_FILES = int(os.environ.get("DEEPHPC_TEST_FILES", "60"))
LARGE_BYTES = int(os.environ.get("DEEPHPC_TEST_LARGE_MIB", "17")) * MIB
Web = tuple[str, Path, Mood]
Relayed = Callable[[Server], Relay]


def ask(source: object, target: object) -> TransferRequest:
    return TransferRequest(source=str(source), target=str(target))


def random_file(path: Path, size: int) -> str:
    rng = random.Random(size)
    content = b"".join(rng.randbytes(min(64 * MIB, size - at)) for at in range(0, size, 64 * MIB))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["webdav", "sftp"])
def test_a_wrong_password_is_refused_and_told_to_nobody(kind: str, desk: Desk, request: pytest.FixtureRequest):
    server: Server = request.getfixturevalue(kind)
    desk.environ = server.remote(password="wr0ng-secret")
    code, out, err = command.run(desk, "data", "ls", server.place)
    assert (code, out) == (5, "")
    assert "refuses the credentials" in err
    assert "wr0ng-secret" not in err
    assert command.is_one_line_and_a_hint(err)


def test_what_is_not_there_is_missing(server: Server, desk: Desk):
    with pytest.raises(Missing, match="nowhere does not exist"):
        carry_out_get(ask(server.place + "/nowhere", desk.tmp / "back"), desk.places())
    assert not (desk.tmp / "back").exists()


def test_connections_that_break_off_are_gone_on_with(server: Server, desk: Desk, relayed: Relayed):
    wanted = random_file(desk.tmp / "large", 12 * MIB)
    carry_out_put(ask(desk.tmp / "large", server.place + "/"), desk.places())
    relay = relayed(server)
    relay.nap_s = 0.002  # slower than the client, as networks are: what is in its buffers is lost with a connection
    relay.cut_after, relay.cuts = 2 * MIB, 3
    carry_out_get(ask(server.place + "/large", desk.tmp / "back" / ""), desk.places())
    assert relay.cuts == 0
    assert sha256(desk.tmp / "back") == wanted
    assert relay.to_client < 16 * MIB


@pytest.mark.slow
def test_uploads_that_break_off_arrive_all_the_same(server: Server, desk: Desk, relayed: Relayed):
    wanted = random_file(desk.tmp / "large", 18 * MIB)
    relay = relayed(server)
    relay.cut_after, relay.cuts = 3 * MIB, 2
    carry_out_put(ask(desk.tmp / "large", server.place + "/"), desk.places())
    assert relay.cuts == 0
    carry_out_get(ask(server.place + "/large", desk.tmp / "back"), desk.places())
    assert sha256(desk.tmp / "back") == wanted


@pytest.mark.slow
def test_a_silent_connection_is_given_up_and_tried_again(server: Server, desk: Desk, relayed: Relayed):
    wanted = random_file(desk.tmp / "large", 4 * MIB)
    carry_out_put(ask(desk.tmp / "large", server.place + "/"), desk.places())
    relay = relayed(server)
    relay.stall_after, relay.stalls = 1 * MIB, 1
    quick = replace(PATIENT, attempts=1000, stall_s=1.0)
    carry_out_get(ask(server.place + "/large", desk.tmp / "back"), desk.places(quick))
    assert relay.stalls == 0
    assert sha256(desk.tmp / "back") == wanted


def test_nobody_listening_ends_with_one_line(desk: Desk):
    with pytest.raises(Interrupted, match="cannot connect"):
        list_location("http://127.0.0.1:9/file", desk.places(), recursive=False)


def test_an_unknown_host_key_is_refused(sftp: Server, desk: Desk):
    (desk.home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(Refused, match="host key"):
        list_location(sftp.place, desk.places(), recursive=False)


def test_a_folder_of_links_is_brought_once(web: Web, desk: Desk):
    url, root, _ = web
    for name in ("set/a b", "set/sub/ü?#.bin", "set/empty"):
        random_file(root / name, len(name) if "empty" not in name else 0)
    first = carry_out_get(ask(f"{url}/set/", desk.tmp / "back"), desk.places())
    second = carry_out_get(ask(f"{url}/set/", desk.tmp / "back"), desk.places())
    assert (first.transferred_files, second.transferred_files) == (3, 0)
    assert command.here(desk.tmp / "back") == ["a b", "empty", "sub", "sub/ü?#.bin"]


def test_a_folder_that_is_not_redirected_to_is_found_without_its_slash(web: Web, desk: Desk):
    url, root, mood = web
    random_file(root / "set/file", 3)
    mood.fail = lambda _, path: 404 if (root / path[1:]).is_dir() and not path.endswith("/") else 0
    carry_out_get(ask(f"{url}/set", desk.tmp / "back"), desk.places())
    assert command.here(desk.tmp / "back") == ["file"]
    with pytest.raises(Missing, match="does not exist"):
        carry_out_get(ask(f"{url}/nowhere", desk.tmp / "back"), desk.places())


def test_a_certificate_of_ones_own_authority_is_trusted_when_named(desk: Desk):
    (desk.tmp / "web").mkdir()
    (desk.tmp / "web" / "file").write_bytes(b"content")
    made = servers.certificate(desk.tmp)
    with servers.web(desk.tmp / "web", made) as (url, _):
        refused = command.run(desk, "data", "get", f"{url}/file")
        desk.environ = {"SSL_CERT_FILE": str(made)}
        code, _, err = command.run(desk, "data", "get", f"{url}/file")
    assert refused[0] == 5
    assert "certificate is not trusted" in refused[2]
    assert (code, err) == (0, "")
    assert (desk.tmp / "file").read_bytes() == b"content"


def test_a_web_remote_of_rclone_is_read_below_its_url(web: Web, desk: Desk):
    url, root, _ = web
    random_file(root / "deep er" / "set" / "file", 5)
    desk.environ = {"RCLONE_CONFIG_PAGES_TYPE": "http", "RCLONE_CONFIG_PAGES_URL": f"{url}/deep er"}
    got = carry_out_get(ask("pages:set/", desk.tmp / "back"), desk.places())
    assert (got.source, got.files) == ("pages:set/", 1)
    assert command.here(desk.tmp / "back") == ["file"]


def test_credentials_of_netrc_go_to_their_host(web: Web, desk: Desk):
    url, root, mood = web
    random_file(root / "file", 5)
    (desk.home / ".netrc").write_text("machine 127.0.0.1 login me password pw\n")
    (desk.home / ".netrc").chmod(0o600)
    carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert set(mood.authorized) == {"Basic bWU6cHc="}


def test_bursts_of_server_errors_are_waited_out(web: Web, desk: Desk):
    url, root, mood = web
    wanted = random_file(root / "file", 3 * MIB)
    left = iter([500, 503, 502, 429])
    mood.fail = lambda method, path: next(left, 0)
    carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert sha256(desk.tmp / "back") == wanted


def test_endless_server_errors_end(web: Web, desk: Desk):
    url, root, mood = web
    random_file(root / "file", 100)
    mood.fail = lambda method, path: 500 if method == "GET" else 0
    with pytest.raises(Interrupted, match="500"):
        carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert not (desk.tmp / "back").exists()


def test_a_body_that_always_breaks_at_the_same_place_ends(web: Web, desk: Desk):
    url, root, mood = web
    random_file(root / "file", 3 * MIB)
    mood.ranges, mood.break_after = False, MIB
    with pytest.raises(Interrupted):
        carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert not (desk.tmp / "back").exists()


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 20 * MIB + 7])
@pytest.mark.parametrize("lacks", ["nothing", "ranges", "etags", "times", "sizes", "all"])
def test_whatever_a_web_server_lacks_files_arrive_whole(web: Web, desk: Desk, lacks: str, size: int):
    url, root, mood = web
    wanted = random_file(root / "file", size)
    for name in ("ranges", "etags", "times", "sizes") if lacks == "all" else (lacks,):
        setattr(mood, name, False)
    got = carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert sha256(desk.tmp / "back") == wanted
    assert (got.files, got.size_bytes) == (1, size)


def test_a_long_range_that_breaks_goes_on_where_it_broke(web: Web, desk: Desk):
    url, root, mood = web
    wanted = random_file(root / "file", 40 * MIB)
    mood.break_after, mood.breaks = 10 * MIB, 1
    got = carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places(parallel=1))
    assert sha256(desk.tmp / "back") == wanted
    assert got.transferred_bytes == 40 * MIB
    assert mood.requests.count(("GET", "/file")) == 3  # the first block, and the rest twice


def test_a_server_without_ranges_that_breaks_once_starts_over(web: Web, desk: Desk):
    url, root, mood = web
    wanted = random_file(root / "file", 20 * MIB)
    mood.ranges, mood.break_after, mood.breaks = False, 12 * MIB, 1
    carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert sha256(desk.tmp / "back") == wanted


@pytest.mark.parametrize("size", [MIB, 20 * MIB])
def test_a_file_that_changes_meanwhile_is_no_file(web: Web, desk: Desk, size: int):
    url, root, mood = web
    random_file(root / "file", size)

    def change(path: str, at: int) -> None:
        mood.on_chunk = lambda path, at: None
        (root / "file").write_bytes(b"x" * (size + 5))

    mood.fail = lambda method, path: change(path, 0) or 0 if method == "GET" else 0
    with pytest.raises(Changed, match="changed while it was transferred"):
        carry_out_get(ask(f"{url}/file", desk.tmp / "back"), desk.places())
    assert command.here(desk.tmp / "back") == []
    assert not list(desk.tmp.glob(".*.part*"))


@pytest.mark.slow
def test_a_local_file_that_changes_while_it_is_sent_does_not_arrive(server: Server, desk: Desk, relayed: Relayed):
    random_file(desk.tmp / "large", 6 * MIB)
    relay = relayed(server)
    relay.stall_after, relay.stalls = MIB, 1

    def change() -> None:
        wait_until(lambda: relay.stalls == 0)
        (desk.tmp / "large").write_bytes(b"changed")
        relay.released.set()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with pytest.raises(DataError, match="changed while it was transferred"):
            carry_out_put(ask(desk.tmp / "large", server.place + "/large"), desk.places())
    finally:
        thread.join()
    desk.know(server)
    listed = list_location(server.place, desk.places(), recursive=True).entries
    assert "large" not in [each.path for each in listed]


def test_one_vanished_file_does_not_keep_the_others_from_coming(web: Web, desk: Desk):
    url, root, mood = web
    for name in "abcde":
        random_file(root / "set" / name, 10)
    mood.fail = lambda method, path: 404 if path.endswith("/c") else 0
    got = carry_out_get(ask(f"{url}/set/", desk.tmp / "back"), desk.places())
    with pytest.raises(DataError, match=r"/set/: c cannot be brought: .*/set/c does not exist"):
        check_whole(got)
    assert command.here(desk.tmp / "back") == ["a", "b", "d", "e"]


def test_a_full_disk_is_one_line_and_what_came_is_kept(web: Web, desk: Desk):
    url, root, mood = web
    wanted = random_file(root / "file", 12 * MIB)
    code, out, err = command.run(desk, "data", "get", f"{url}/file", file_limit_bytes=4 * MIB)
    assert (code, out) == (5, "")
    assert command.is_one_line_and_a_hint(err)
    assert "larger than a file may be" in err
    assert not (desk.tmp / "file").exists()
    mood.sent.clear()
    assert command.run(desk, "data", "get", f"{url}/file")[0] == 0
    assert sha256(desk.tmp / "file") == wanted
    assert mood.sent["/file"] < 9 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_get_goes_on(web: Web, desk: Desk, which: signal.Signals):
    url, root, mood = web
    wanted = random_file(root / "file", 30 * MIB)
    is_over = threading.Event()
    mood.on_chunk = lambda path, at: mood.sent.get(path, 0) < 12 * MIB or is_over.wait()
    with command.start(desk, "data", "get", f"{url}/file") as process:
        wait_until(lambda: kept_in_parts(desk.tmp) > 9 * MIB, "some of it to be here")
        process.send_signal(which)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == (130 if which is signal.SIGINT else -which)
    is_over.set()
    wait_until(lambda: mood.under_way == 0, "the server to see that the client has gone")
    assert not (desk.tmp / "file").exists()
    before, kept = mood.sent["/file"], kept_in_parts(desk.tmp)
    assert command.run(desk, "data", "get", f"{url}/file")[0] == 0
    assert sha256(desk.tmp / "file") == wanted
    assert mood.sent["/file"] - before <= 30 * MIB - kept


@pytest.mark.slow
@pytest.mark.sweep
def test_killed_five_times_at_random_all_files_come_with_little_extra(server: Server, desk: Desk, relayed: Relayed):
    rng = random.Random(5)
    sizes = {f"small/{n // 10}/{n}": rng.randrange(1, 4000) for n in range(SMALL_FILES)} | {"large": LARGE_BYTES}
    wanted = {name: random_file(desk.tmp / "set" / name, size) for name, size in sizes.items()}
    relay = relayed(server)
    relay.nap_s = 0.002
    _until_done(desk, relay, rng, ("data", "put", desk.tmp / "set", server.place + "/set"))
    kept = _until_done(desk, relay, rng, ("data", "get", server.place + "/set", desk.tmp / "back"), desk.tmp / "back")
    assert {name: sha256(desk.tmp / "back" / name) for name in wanted} == wanted
    assert relay.to_client < 1.1 * (sum(sizes.values()) - kept) + MIB
    left = [name for name in command.here(desk.tmp / "back") if ".part" in name]
    assert left == []


@pytest.mark.slow
@pytest.mark.sweep
def test_killed_five_times_at_random_all_files_come_from_a_web_server_with_little_extra(web: Web, desk: Desk):
    url, root, _ = web
    rng = random.Random(6)
    sizes = {f"small/{n // 10}/{n}": rng.randrange(1, 4000) for n in range(SMALL_FILES)} | {"large": LARGE_BYTES}
    wanted = {name: random_file(root / "set" / name, size) for name, size in sizes.items()}
    with servers.relay(int(url.rpartition(":")[2])) as relay:
        relay.nap_s = 0.002
        words = ("data", "get", f"http://127.0.0.1:{relay.port}/set/", desk.tmp / "back")
        kept = _until_done(desk, relay, rng, words, desk.tmp / "back")
        assert relay.to_client < 1.1 * (sum(sizes.values()) - kept) + MIB
    assert {name: sha256(desk.tmp / "back" / name) for name in wanted} == wanted
    assert [name for name in command.here(desk.tmp / "back") if ".part" in name] == []


def _until_done(
    desk: Desk, relay: Relay, rng: random.Random, words: tuple[object, ...], here: Path | None = None
) -> int:
    """Kill a transfer five times, then let it end; return how many bytes were `here` before that, none of it lost.

    What passes the relay afterwards is counted anew.
    """
    kept = 0
    for _ in range(5):
        before, limit = relay.passed, rng.randrange(LARGE_BYTES // 34, LARGE_BYTES // 2)
        with command.start(desk, *words) as process:
            wait_until(lambda: relay.passed - before > limit or process.poll() is not None)  # noqa: B023 - used at once
            process.kill()
            process.communicate()
        if here is not None:
            earlier, kept = kept, kept_bytes(here)
            assert kept >= earlier
    relay.to_client = relay.to_server = 0
    code, _, err = command.run(desk, *words)
    assert code == 0, err
    return kept


def kept_bytes(folder: Path) -> int:
    """Return what the next try need not bring: whole files, and what the states of large ones on their way tell."""
    if not folder.exists():
        return 0
    whole = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return whole + kept_in_parts(folder)


def kept_in_parts(folder: Path) -> int:
    """Return how many bytes of large files on their way are here, as their states tell."""
    states = [path.read_bytes() for path in folder.rglob(".*.part.state") if path.with_suffix("").exists()]
    return sum(count for state in states for count, _ in struct.iter_unpack("<II", state[: len(state) // 8 * 8]))


@pytest.mark.slow
def test_two_processes_with_one_destination_bring_it_once(web: Web, desk: Desk):
    url, root, mood = web
    wanted = random_file(root / "file", 20 * MIB)
    mood.on_chunk = lambda path, at: time.sleep(0.001)
    first, second = (command.start(desk, "data", "get", f"{url}/file") for _ in range(2))
    told = [process.communicate(timeout=DEADLINE_S) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], told
    assert sha256(desk.tmp / "file") == wanted
    assert mood.sent["/file"] == 20 * MIB


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ls", ""), 2, "empty name"),
        (("ls", "x" * 5000), 2, "5000 characters"),
        (("ls", "nope:/x"), 2, "no remote 'nope'"),
        (("ls", "gopher://host/x"), 2, "no storage speaks gopher"),
        (("ls", "gs://bucket/x"), 2, "needs more than deephpc brings"),
        (("ls", "s3://bucket/../x"), 2, "'..'"),
        (("ls", "./nowhere"), 5, "does not exist"),
        (("get", "./nowhere", "x"), 5, "does not exist"),
        (("get", "file", "s3://bucket/x"), 2, "not on this machine"),
        (("put", "s3://bucket/x", "y"), 2, "not on this machine"),
        (("put", "file", "http://127.0.0.1:9/x"), 2, "takes no files"),
        (("put", "dangling", "copy/"), 5, "does not exist"),
        (("get", "folder", "file"), 2, "is a file"),
        (("get", "file", "file/below"), 5, "a file lies where a folder should be"),
        (("get", "fifo", "x"), 5, "neither a file nor a folder"),
        (("get", "file", "/proc/nope/x"), 5, "/proc/nope"),
        (("verify", "file"), 2, "no staged data set"),
        (("verify", "file", "--manifest", "file"), 2, "not a manifest"),
        (("verify", "file", "--manifest", "file", "--against", "file"), 2, "contradict"),
        (("stage", "s3://bucket/x:a b"), 2, "not a plain one"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(
    desk: Desk, monkeypatch, capsys, words: tuple[str, ...], code: int, says: str
):
    (desk.tmp / "file").write_bytes(b"content")
    (desk.tmp / "folder").mkdir()
    (desk.tmp / "folder" / "a").write_bytes(b"a")
    (desk.tmp / "dangling").symlink_to("nowhere")
    os.mkfifo(desk.tmp / "fifo")
    found, out, err = command.run_here(desk, monkeypatch, capsys, "data", *words)
    assert (found, out) == (code, ""), err
    assert says in err
    assert command.is_one_line_and_a_hint(err)


@pytest.mark.parametrize("name", ["../escape", "/absolute", "a/../b", "a//b", "trailing/", "x" * 300, "a\0b"])
def test_names_that_lead_elsewhere_are_refused(name: str):
    with pytest.raises(DataError, match=re.escape("there has a file")):
        check_entries([Entry("fine", 1), Entry(name, 1)], "there")


def test_a_file_that_is_a_folder_too_is_refused():
    with pytest.raises(DataError, match="a file and a folder at once"):
        check_entries([Entry("a", 1), Entry("a/b", 1)], "there")


def test_credentials_in_a_url_are_never_told(web: Web, desk: Desk, monkeypatch, capsys):
    url, _, mood = web
    mood.fail = lambda method, path: 403
    secret = url.replace("http://", "http://me:t0psecret@") + "/file?signature=s1gned"
    for words in (("ls", secret), ("get", secret), ("stage", secret), ("stage", secret, "--dry-run")):
        code, out, err = command.run_here(desk, monkeypatch, capsys, "data", *words, "--json")
        assert code == (0 if "--dry-run" in words else 5)
        assert "t0psecret" not in out + err
        assert "s1gned" not in out + err


def test_a_password_is_not_in_any_representation(webdav: Server, desk: Desk):
    places = desk.places()
    location = places.locate(webdav.place)
    assert PASSWORD not in repr(location) + str(location) + repr(places)
    assert PASSWORD in location.settings.values()


def test_an_unknown_remote_names_the_nearest(webdav: Server, desk: Desk):
    with pytest.raises(InputError) as caught:
        desk.places().locate("ther:/x")
    assert "there" in caught.value.hint
