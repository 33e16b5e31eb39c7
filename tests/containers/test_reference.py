"""References against docker's rules."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.reference import LocalImage, ModuleImage, RegistryImage, parse_reference, parse_target
from deephpc.errors import InputError

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"

#: What docker makes of a name; the rules are those of distribution/reference, the cases ours.
NORMALISED = {
    "ubuntu": "docker.io/library/ubuntu:latest",
    "ubuntu:22.04": "docker.io/library/ubuntu:22.04",
    "deephdc/deep-oc": "docker.io/deephdc/deep-oc:latest",
    "a/b/c": "docker.io/a/b/c:latest",
    "docker.io/ubuntu": "docker.io/library/ubuntu:latest",
    "docker.io/library/ubuntu": "docker.io/library/ubuntu:latest",
    "index.docker.io/ubuntu": "docker.io/library/ubuntu:latest",
    "index.docker.io/a/b": "docker.io/a/b:latest",
    "localhost/x": "localhost/x:latest",
    "localhost:5000/x": "localhost:5000/x:latest",
    "quay.io/org/x:v1": "quay.io/org/x:v1",
    "Host/x": "Host/x:latest",
    "host:80/x:y": "host:80/x:y",
    "[::1]:5000/x": "[::1]:5000/x:latest",
    "127.0.0.1:5000/a/b": "127.0.0.1:5000/a/b:latest",
    f"x@{DIGEST}": f"docker.io/library/x@{DIGEST}",
    f"x:y@{DIGEST}": f"docker.io/library/x:y@{DIGEST}",
    "a__b/c--d": "docker.io/a__b/c--d:latest",
    "x:_": "docker.io/library/x:_",
}
REFUSED = [
    "", ":tag", "@", "a//b", "/a", "a/", "Ubuntu", "a/B", "a_/b", "a___b", "-a", "a..b", "x:", "x:.a", "x:a/b",
    "x:" + "a" * 129, "x@sha256:123", f"x@md5:{HEX}", f"x@sha256:{HEX.upper()}", f"x@{DIGEST}@{DIGEST}", HEX,
    "a b", "x:ü", "x\n", "x:y\n", "ex_ample.com/x/..", "https://x/y", "host:port/x", "a/../b", "x:y:z", "-h.io/x",
    "h.io/" + "a" * 256,
]  # fmt: skip


@pytest.mark.parametrize(("written", "full"), NORMALISED.items())
def test_names_are_filled_in_as_docker_does(written: str, full: str) -> None:
    assert str(parse_reference(written)) == f"docker://{full}"


@pytest.mark.parametrize("written", REFUSED)
def test_what_docker_refuses_is_refused_with_the_text(written: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_target(f"docker://{written}")
    assert repr(f"docker://{written}") in caught.value.message
    assert caught.value.hint


part = st.from_regex(r"[a-z0-9]{1,6}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
path = st.lists(part, min_size=1, max_size=4).map("/".join)
label = st.from_regex(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,4}[a-zA-Z0-9])?", fullmatch=True)
host = st.one_of(
    st.lists(label, min_size=2, max_size=3).map(".".join),
    st.tuples(label, st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.just("localhost"),
).filter(lambda name: name not in ("docker.io", "index.docker.io"))
tag = st.from_regex(re.compile(r"\w[\w.-]{0,20}", re.ASCII), fullmatch=True)
digest = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(host, path, st.none() | tag, st.none() | digest)
def test_every_part_of_a_full_name_is_found_again(host: str, path: str, tag: str | None, digest: str | None) -> None:
    written = f"{host}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    found = parse_reference(written)
    assert (found.registry, found.repository, found.digest) == (host, path, digest)
    assert found.tag == (tag or (None if digest else "latest"))
    assert parse_target(str(found)) == found


@given(path, st.none() | tag)
def test_a_name_without_a_registry_is_docker_hubs(path: str, tag: str | None) -> None:
    first = path.partition("/")[0]
    if "/" in path and ("." in first or first == "localhost"):
        return  # that first part is a registry
    written = path + (f":{tag}" if tag else "")
    found = parse_reference(written)
    assert found.registry == "docker.io"
    assert found.repository == (path if "/" in path else f"library/{path}")
    assert parse_reference(f"docker.io/{written}") == found == parse_reference(f"index.docker.io/{written}")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_never_names_a_file_of_its_own(text: str) -> None:
    try:
        found = parse_reference(text)
    except InputError:
        return
    assert parse_reference(str(found).removeprefix("docker://")) == found
    assert ".." not in found.repository.split("/")
    assert not re.search(r"\s", str(found))


@given(st.text(max_size=60))
def test_any_target_is_read_or_refused(text: str) -> None:
    try:
        assert str(parse_target(text))
    except InputError as error:
        assert error.hint


def test_the_forms_of_targets_are_told_apart() -> None:
    assert parse_target("plankton") == ModuleImage(module="plankton")
    assert parse_target("plankton:gpu") == ModuleImage(module="plankton", tag="gpu")
    assert parse_target(f"plankton@{DIGEST}") == ModuleImage(module="plankton", digest=DIGEST)
    assert parse_target("oci:/a/b") == LocalImage(kind="oci", path=Path("/a/b"))
    assert parse_target("oci:/a/b:name") == LocalImage(kind="oci", path=Path("/a/b"), name="name")
    assert parse_target("oci-archive:x.tar").kind == "oci-archive"  # type: ignore[union-attr]
    assert parse_target("docker-archive:x.tar:a/b:c").name == "a/b:c"  # type: ignore[union-attr]
    assert parse_target("./x/y.sif") == LocalImage(kind="sif", path=Path("x/y.sif"))
    assert isinstance(parse_target("docker://x"), RegistryImage)


def test_an_image_without_its_scheme_is_pointed_to_it() -> None:
    with pytest.raises(InputError) as caught:
        parse_target("deephdc/deep-oc")
    assert "docker://deephdc/deep-oc" in caught.value.hint


@pytest.mark.parametrize("path", ["/scratch/images/digits", "./digits", "../a/digits.tar", "~/digits"])
def test_a_path_is_pointed_to_the_schemes_of_the_disk(path: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_target(path)
    assert f"oci:{path} (a folder), oci-archive:{path}" in caught.value.hint
