"""However a server spells a path in its lists, its files come, or what does not come is told."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from deephpc.errors import DataError
from deephpc.workflows.data import TransferRequest, carry_out_get, check_whole
from deephpc.workflows.data_check import list_location, verify_data
from deephpc.workflows.data_staging import carry_out_stage

from . import command, servers
from .conftest import Desk
from .servers import Said

RECORDED = Path(__file__).parents[1] / "recorded"
#: The folder that was listed, and what lay in it: its own name first.
TOP = "a set (1) it's ~+!;ü"
NAMES = (
    *("a b", "set (2)", "it's", "hi!", "~tilde", "a+b", "semi;colon", "hash#mark", "what?", "100% sure", "100%41"),
    *("back\\slash", 'quo"te', "<tag>", "amp&ersand", "Ümlaut 漢字", "comma,equals=at@dollar$", "col:on", "[brackets]"),
    *(
        "star*",
        "-dash",
        "{brace}|^`",
        "a&amp;b",
        "dot.",
        "Ångström.csv.gz",
        "http:x",
        "new\nline",
        "tab\there",
        "x" * 90,
    ),
)
FOLDER = "sub (3); +'s"
PAGES = sorted(path.name for path in RECORDED.glob("listing-*.html"))
ANSWERS = sorted(path.name for path in RECORDED.glob("listing-*.xml"))


def recorded(name: str) -> bytes:
    """Return what a server answered, without the line that names it."""
    return (RECORDED / name).read_bytes().partition(b"\n")[2]


def wanted(name: str) -> dict[str, bytes]:
    """Return the files that a server listed; rclone shows control characters by their pictures."""
    signs = {0x0A: 0x240A, 0x09: 0x2409} if "rclone" in name else {}
    names = [each.translate(signs) for each in NAMES]
    return {**{each: each.encode() for each in names}, f"{FOLDER}/in": b"in"}


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def get(desk: Desk, place: str) -> dict[str, bytes]:
    carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())
    return read(desk.tmp / "back")


def pages(lists: Mapping[str, bytes], files: Mapping[str, bytes], kind: str = "text/html; charset=utf-8"):
    """Serve lists by their folders' decoded paths, with `/`, and files by theirs."""

    def answer(method: str, path: str, headers: dict[str, str]) -> Said:
        plain = unquote(path)
        if method == "PROPFIND":
            found = lists.get(plain.rstrip("/") + "/")
            if found is not None and headers["Depth"] == "0":
                found = dav(("/whatever/its/name/is/", None))
            return Said(status=404) if found is None else Said(found, {"Content-Type": "application/xml"}, 207)
        if plain in lists:
            return Said(lists[plain], {"Content-Type": kind})
        return Said(files[plain]) if plain in files else Said(status=404)

    return servers.scripted(answer)


@pytest.mark.parametrize("name", PAGES)
def test_all_files_of_a_real_servers_page_come(desk: Desk, name: str):
    files = wanted(name)
    lists = {f"/{TOP}/": recorded(name), f"/{TOP}/{FOLDER}/": b'<a href="in">in</a>'}
    with pages(lists, {f"/{TOP}/{path}": content for path, content in files.items()}) as url:
        assert get(desk, f"{url}/{quote(TOP)}/") == files


def dav(*rows: tuple[str, int | str | None]) -> bytes:
    """Return a multistatus answer: hrefs as they are written, and sizes; None for a folder."""
    kind = "<d:resourcetype><d:collection/></d:resourcetype>"
    facts = (
        (href, kind if size is None else f"<d:getcontentlength>{size}</d:getcontentlength>") for href, size in rows
    )
    found = "".join(
        f"<d:response><d:href>{href}</d:href><d:propstat><d:prop>{fact}</d:prop><d:status>HTTP/1.1 200 OK</d:status>"
        f"</d:propstat></d:response>"
        for href, fact in facts
    )
    return f'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">{found}</d:multistatus>'.encode()


@pytest.mark.parametrize("name", ANSWERS)
def test_all_files_that_a_real_webdav_server_lists_come(desk: Desk, name: str):
    files = {path: b"%03d" % at for at, path in enumerate(wanted(name))}  # of the size that was listed
    top = quote(f"/{TOP}/{FOLDER}/")
    lists = {f"/{TOP}/": recorded(name), f"/{TOP}/{FOLDER}/": dav((top, None), (top + "in", 3))}
    with pages(lists, {f"/{TOP}/{path}": content for path, content in files.items()}) as url:
        assert get(desk, f"{url.replace('http', 'webdav')}/{quote(TOP)}") == files


THREE = {"a (1)": b"one", "it's+!~;x": b"two", "sub/c d": b"three"}


def spelled(folder: str, names: Mapping[str, str], head: str = "") -> dict[str, bytes]:
    """Return the pages of a folder and of `sub` in it; names are put into links as they are spelled."""
    links = "".join(f'<a href="{names[name]}">x</a>' for name in ("a (1)", "it's+!~;x", "sub/"))
    return {
        folder: f"<html><head>{head}</head>{links}</html>".encode(),
        f"{folder}sub/": f'<a href="{names["sub/c d"]}">x</a>'.encode(),
    }


SPELLINGS: dict[str, Callable[[str, str], str]] = {
    "absolute, as it is": lambda url, path: path.replace(" ", "%20"),
    "absolute, all encoded": lambda url, path: "".join(f"%{byte:02x}" if byte != 47 else "/" for byte in path.encode()),
    "absolute, not encoded": lambda url, path: path,
    "host in capitals": lambda url, path: url.upper().replace("127.0.0.1", "127.0.0.1") + quote(path),
    "doubled slashes": lambda url, path: quote(path).replace("/", "//").replace("//", "/", 1),
    "dots on the way": lambda url, path: quote(path).replace("/", "/./x/%2e%2e/"),
    "a name before the host": lambda url, path: url.replace("//", "//me@") + quote(path),
    "blanks around it": lambda url, path: f" {quote(path)}\n ",
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_a_link_is_known_however_it_is_spelled(desk: Desk, how: str):
    lists: dict[str, bytes] = {}
    files = {f"/set (1) it's~+!;v/{name}": content for name, content in THREE.items()}
    with pages(lists, files) as url:
        folder = "/set (1) it's~+!;v/"
        names = {name: SPELLINGS[how](url, folder + name) for name in (*THREE, "sub/")}
        lists.update(spelled(folder, names))
        assert get(desk, f"{url}/set%20(1)%20it's~+!;v/") == THREE


@pytest.mark.parametrize("base", ["/set/", "//127.0.0.1:{port}/set/", "../set/x/../"])
def test_a_pages_base_says_where_its_links_begin(desk: Desk, base: str):
    lists: dict[str, bytes] = {}
    with pages(lists, {"/set/a": b"1", "/set/b;c": b"2", "/set/(d)": b"3"}) as url:
        head = f'<base href="{base.format(port=url.rpartition(":")[2])}"><base href="/other/">'
        lists["/set/"] = f"{head}<a href='a'>a</a><a href='./b;c'>b</a><a href='%28d%29'>d</a>".encode()
        lists["/set/"] += (
            b"<a href='http://elsewhere.example/set/e'>e</a><a href='mailto:a@b'>m</a><a href='?C=N'>n</a>"
        )
        assert sorted(get(desk, f"{url}/set/")) == ["(d)", "a", "b;c"]


def test_a_list_in_another_alphabet_is_read_in_it(desk: Desk):
    page = "<a href='grün'>x</a>".encode("latin-1")
    with pages({"/set/": page}, {"/set/grün": b"1"}, "text/html; charset=iso-8859-1") as url:
        assert get(desk, f"{url}/set/") == {"grün": b"1"}


@pytest.mark.parametrize(
    "page",
    [
        "<a href='sub/one.csv'>1</a><a href='sub/two.csv'>2</a>",
        "<a href='/set/v1/one'>1</a>",
        "<base href='/set/deep/'><a href='one'>1</a><a href='/'>up</a>",
    ],
)
def test_a_page_whose_links_lead_further_down_alone_is_told(desk: Desk, monkeypatch, capsys, page: str):
    with pages({"/set/": page.encode()}, {}) as url:
        code, out, err = command.run_here(desk, monkeypatch, capsys, "data", "get", f"{url}/set/", "back", "--json")
        assert code == 5
        assert '"left_out": [{"path": ""' in out
        assert f"error: {url}/set/ has a page that links to nothing directly below it, but to" in err
        with pytest.raises(DataError, match="staged whole or not at all"):
            carry_out_stage(f"{url}/set/", desk.places())


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("%ffoo", r"\xffoo is not UTF-8"),
        ("a%2Fb", "a/b has a / in its name"),
        ("a%00b", "cannot lie in a folder here"),
        ("x" * 300, "is too long"),
        ("gr%fcn/", r"gr\xfcn is not UTF-8"),
    ],
)
def test_a_name_that_cannot_be_had_here_is_left_out_and_told(desk: Desk, monkeypatch, capsys, link: str, told: str):
    page = f"<a href='good'>1</a><a href='{link}'>2</a><a href='also%20good'>3</a>".encode()
    with pages({"/set/": page}, {"/set/good": b"1", "/set/also good": b"2"}) as url:
        code, _, err = command.run_here(desk, monkeypatch, capsys, "data", "get", f"{url}/set/", "back")
        assert (code, told in err) == (5, True), err
        assert read(desk.tmp / "back") == {"good": b"1", "also good": b"2"}
        verdict = verify_data(f"{url}/set/", desk.places(), against=str(desk.tmp / "back"))
        assert [fault.reason.partition(":")[0] for fault in verdict.faults] == ["unreadable"]
        listing = list_location(f"{url}/set/", desk.places(), recursive=False)
        assert (len(listing.entries), len(listing.left_out)) == (2, 1)


@pytest.mark.parametrize(
    ("hrefs", "names"),
    [
        (("/set/", "/set/a%20(1)", "/set/b"), ("a (1)", "b")),
        (("/set/", "/set/a b", "/set/100% sure", "/set/what?", "/set/hash#x"), ("a b", "100% sure", "what?", "hash#x")),
        (("/set/", "/set/what?", "/set/hash#x", "/set/w"), ("what?", "hash#x", "w")),
        (("/set/", "/set/100%", "/set/100%41"), ("100%", "100%41")),
        (("/backend/set/", "/backend/set/a", "/backend/set/b%3f"), ("a", "b?")),
        (("/backend/other", "/backend/other/a", "/backend/other/b"), ("a", "b")),
        (("/backend/set/a", "/backend/set/b"), ("a", "b")),
        (("http://inside:8080/set", "http://inside:8080/set/a", "http://inside:8080/set/b"), ("a", "b")),
        (("//set//", "//set//a", "//set//b;c"), ("a", "b;c")),
        (("/s%65t", "/s%65t/a", "/set/%62"), ("a", "b")),
        (("", "./", "a", "b:c"), ("a", "b:c")),
    ],
)
def test_what_webdav_lists_is_known_however_it_is_spelled(desk: Desk, hrefs: tuple[str, ...], names: tuple[str, ...]):
    rows = [(href, None if href.rpartition("/")[2] in ("", "set", "other", "s%65t") else 1) for href in hrefs if href]
    files = {f"/set/{name}": b"%d" % at for at, name in enumerate(names)}
    with pages({"/set/": dav(*rows)}, files) as url:
        assert get(desk, f"{url.replace('http', 'webdav')}/set") == {name: b"%d" % at for at, name in enumerate(names)}


def test_what_webdav_lists_elsewhere_is_told(desk: Desk):
    rows = (("/set/", None), ("/set/a", 1), ("/other/b", 1), ("/set/%ff", 1))
    with pages({"/set/": dav(*rows)}, {"/set/a": b"1"}) as url:
        got = carry_out_get(
            TransferRequest(source=f"{url.replace('http', 'webdav')}/set", target=str(desk.tmp / "back")), desk.places()
        )
        assert [(each.path, each.reason.partition(" than")[0]) for each in got.left_out] == [
            ("/other/b", "is listed elsewhere"),
            (r"\xff", "is not UTF-8"),
        ]
        with pytest.raises(DataError, match=r"/set: /other/b is listed elsewhere .*; and 1 more"):
            check_whole(got)


def bucket(keys: Mapping[str, bytes], spell: Callable[[str], str], said: str = "", size: str = "{}"):
    """Serve a bucket whose list writes keys so; `said` is what it tells of their encoding."""

    def answer(method: str, path: str, headers: dict[str, str]) -> Said:
        del headers
        name = unquote(path.partition("?")[0]).removeprefix("/bucket/")
        if "list-type" in path:
            rows = "".join(
                f"<Contents><Key>{spell(key)}</Key><Size>{size.format(len(content))}</Size></Contents>"
                for key, content in keys.items()
            )
            page = f"<ListBucketResult>{said}{rows}<IsTruncated>false</IsTruncated></ListBucketResult>"
            return Said(page.encode(), {"Content-Type": "application/xml"})
        return Said(keys[name]) if name in keys else Said(status=404)

    return servers.scripted(answer)


def in_bucket(desk: Desk, url: str) -> str:
    said = {"endpoint": url, "access_key_id": "k", "secret_access_key": "s", "provider": "Other"}
    desk.environ = {f"RCLONE_CONFIG_THERE_{name.upper()}": value for name, value in {"type": "s3", **said}.items()}
    return "there:bucket/set/"


@pytest.mark.parametrize(
    ("spell", "said"),
    [
        (lambda key: key, ""),
        (lambda key: key, "<EncodingType></EncodingType>"),
        (lambda key: quote(key).replace("%20", "+"), "<EncodingType>url</EncodingType>"),
        (quote, "<EncodingType>url</EncodingType>"),
    ],
)
def test_keys_are_decoded_only_where_the_answer_says_that_they_are_encoded(desk: Desk, spell, said: str):
    keys = {f"set/{name}": name.encode() for name in ("a+b", "100%41", "c d", "it's(1)~!;", "ü/é")}
    with bucket(keys, spell, said) as url:
        assert get(desk, in_bucket(desk, url)) == {key.removeprefix("set/"): value for key, value in keys.items()}


def test_keys_that_no_file_here_can_have_hold_back_no_others(desk: Desk):
    keys = {
        "set/a": b"1",
        "set/b//c": b"2",
        "set/d": b"3",
        "set/d/e": b"4",
        "set/../f": b"5",
        "set/g/": b"6",
        "set/h/": b"",
    }
    with bucket(keys, lambda key: key) as url:
        place = in_bucket(desk, url)
        got = carry_out_get(TransferRequest(source=place, target=str(desk.tmp / "back")), desk.places())
    assert read(desk.tmp / "back") == {"a": b"1", "d/e": b"4"}
    assert [each.path for each in got.left_out] == ["../f", "b//c", "d", "g/"]


def test_a_server_that_heeds_no_prefix_gives_no_files_of_other_folders(desk: Desk):
    with bucket({"other/a": b"1", "set/b": b"2", "settle/c": b"3"}, lambda key: key) as url:
        assert get(desk, in_bucket(desk, url)) == {"b": b"2"}


def test_the_recordings_name_program_and_release():
    for name in (*PAGES, *ANSWERS):
        first = (RECORDED / name).read_text().partition("\n")[0]
        assert re.match(r"<!-- [A-Za-z]+ [\d.]+.*: (GET|PROPFIND).* of a folder of odd names.*-->", first), name
