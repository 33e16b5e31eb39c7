"""What images are called: names of archives, digests, and the catalogue's."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.containers.images import BuiltImage, build_image
from tests.fakes.programs import CommandLine


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    return CommandLine.make(tmp_path)


def save(built: BuiltImage, file: Path, tags: list[str] | None) -> None:
    """Write the archive that `docker save` makes (Docker image specification 1.2)."""
    blobs = built.layout / "blobs" / "sha256"
    config, *layers = (
        one["digest"].removeprefix("sha256:") for one in (built.manifest["config"], *built.manifest["layers"])
    )
    listed = {"Config": f"{config}.json", "RepoTags": tags, "Layers": [f"{each}/layer.tar" for each in layers]}
    members = {
        "manifest.json": json.dumps([listed]).encode(),
        f"{config}.json": (blobs / config).read_bytes(),
        **{f"{each}/layer.tar": (blobs / each).read_bytes() for each in layers},
    }
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("tags", "called"),
    [
        (["tiny:1.0"], "tiny:1.0"),
        (["tiny:1.0", "reg.org:5000/group/tiny:2"], "tiny:2"),
        (["localhost/tiny:latest"], "tiny"),
        (None, ""),
        (["NO NAME"], ""),
    ],
)
def test_an_image_out_of_an_archive_is_found_by_the_name_it_has_there(
    deephpc: CommandLine, tags: list[str] | None, called: str
) -> None:
    save(build_image(deephpc.home / "built", [{"a": b"1"}], compression=("",)), deephpc.home / "tiny.tar", tags)
    imported = deephpc("--json", "image", "import", "tiny.tar")
    assert imported.returncode == 0, imported.stderr
    digest = json.loads(imported.stdout)["digest"]
    trying = ("--engine", "apptainer", "--time", "5", "--dry-run", "--", "true")
    tried = deephpc("run", "--image", "docker-archive:tiny.tar", *trying)
    assert digest.removeprefix("sha256:") in tried.stdout, tried.stderr
    for word in (called, digest, digest[:19]):
        if word:
            again = deephpc("--json", "image", "pull", word)
            assert again.returncode == 0, again.stderr
            assert (json.loads(again.stdout)["digest"], json.loads(again.stdout)["fetched_bytes"]) == (digest, 0)
            tried = deephpc("run", "--image", word, *trying)
            assert digest.removeprefix("sha256:") in tried.stdout, tried.stderr


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("tiny:9", 2, "tiny"),
        ("sha256:" + "0" * 64, 4, "no image in"),
        ("sha256:00", 4, "no image in"),
    ],
)
def test_an_image_that_is_nowhere_is_said_so(deephpc: CommandLine, word: str, code: int, said: str) -> None:
    done = deephpc("image", "pull", word)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 2), done.stderr
    assert said in done.stderr
