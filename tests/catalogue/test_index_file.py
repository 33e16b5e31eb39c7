import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.catalogue.document import UnreadableError
from deephpc.catalogue.index_file import parse_index
from deephpc.catalogue.source import IndexEntry, Source, file_address

GIT = """\
[submodule "a"]
\tpath = a
\turl = https://github.com/owner/a.git
\tbranch = main
[submodule "b"]
\tpath = b
\turl = https://github.com/owner/b/
[submodule "c"]
\tpath = c
\turl = git@github.com:owner/c.git
\tbranch = .
[submodule "d"]
\tpath = d
\turl = ../d
"""


def test_a_gitmodules_file_lists_repositories_and_branches() -> None:
    entries, bad = parse_index(GIT, "https://host/owner/catalog/.gitmodules")
    assert [(each.name, each.repository, each.branch) for each in entries] == [
        ("a", "https://github.com/owner/a", "main"),
        ("b", "https://github.com/owner/b", "HEAD"),
        ("c", "https://github.com/owner/c", "HEAD"),
        ("d", "https://host/owner/d", "HEAD"),
    ]
    assert bad == ()


def test_a_modules_file_lists_repositories_and_what_is_none_is_told() -> None:
    text = "- module: https://github.com/o/a\n- module: https://github.com/o/a/\n- other: x\n- module: https://h/..\n"
    entries, bad = parse_index(text, "https://host/MODULES.yml")
    assert [each.name for each in entries] == ["a"]
    assert bad == ("{'other': 'x'}", "https://h/..")


@pytest.mark.parametrize("text", ["a: b", "<html>\n<body>404</body>", "[submodule", '[s]\nurl = x\n[s"\n', ""])
def test_what_is_no_index_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        entries, _ = parse_index(text, "https://host/x")
        raise UnreadableError(1, "no entries") if not entries else AssertionError(entries)


@pytest.mark.parametrize("branch", ["../../etc", "-x", "a b", "x..y"])
def test_a_branch_that_could_change_the_address_is_no_branch(branch: str) -> None:
    entries, bad = parse_index(f'[submodule "a"]\n\turl = https://h/o/a\n\tbranch = {branch}\n', "https://h/x")
    assert (entries, bad) == ((), ("https://h/o/a",))


@given(st.text(max_size=120))
def test_any_text_is_read_or_refused_and_names_are_safe(text: str) -> None:
    for prefix in ("", "[s]\nurl = ", "- module: "):
        try:
            entries, _ = parse_index(prefix + text, "https://host/x")
        except UnreadableError:
            continue
        for entry in entries:
            assert "/" not in entry.name
            assert not entry.name.startswith((".", "-"))


@pytest.mark.parametrize(
    ("repository", "files", "address"),
    [
        ("https://github.com/o/a", "", "https://raw.githubusercontent.com/o/a/main/f.yml"),
        ("https://gitlab.com/g/s/a", "", "https://gitlab.com/g/s/a/-/raw/main/f.yml"),
        ("https://mirror.host/o/a", "", "https://mirror.host/o/a/f.yml"),
        ("https://github.com/o/a", "http://m/{owner}/{name}/{branch}/{file}", "http://m/o/a/main/f.yml"),
    ],
)
def test_a_file_is_looked_for_where_its_host_serves_it(repository: str, files: str, address: str) -> None:
    source = Source(name="x", url="https://x/y", files=files)
    assert file_address(source, IndexEntry(name="a", repository=repository, branch="main"), "f.yml") == address
