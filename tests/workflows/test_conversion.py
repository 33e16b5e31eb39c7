"""An image is made ready by a script on this machine: what is said when that fails."""

import shutil
from pathlib import Path

import pytest

from deephpc.containers.container import Container
from deephpc.containers.engine import ENGINES
from deephpc.containers.reference import parse_target
from deephpc.errors import EngineError, SiteError
from deephpc.workflows.conversion import Workshop, convert, is_ready
from deephpc.workflows.image import ImagePlaces, PullRequest, carry_out_pull, plan_pull
from deephpc.workflows.image_upkeep import open_store
from tests.containers.colleagues import closed, ordinary_user, umask
from tests.containers.images import build_image
from tests.workflows.test_image import AMD64, NOW

#: `apptainer build … PART oci:LAYOUT`: writes the part, or says what it is told to and fails.
APPTAINER = """#!/bin/bash
[ -z "$SAYS" ] || { echo "$SAYS"; echo 'FATAL:   While performing build: exit status 1'; exit 255; } >&2
echo sif >"${@: -2:1}"
"""


class Desk:
    """A cache with one image in it, and an apptainer that does as it is told."""

    def __init__(self, place: Path) -> None:
        self.cache_dir, self.told = place / "cache", list[str]()
        built = build_image(place / "image", [{"a": b"x" * 1000}])
        plan = plan_pull(PullRequest(target=parse_target(f"oci:{built.layout}"), platform=AMD64))
        store = open_store(self.cache_dir)
        pulled = carry_out_pull(plan, ImagePlaces(store, {}, place), NOW)
        program = place / "apptainer"
        program.write_text(APPTAINER)
        program.chmod(0o755)
        self.container = Container(
            engine="apptainer", engine_command=str(program), reason="", image="tool", digest=pulled.digest,
            prepared=ENGINES["apptainer"].prepared_path(self.cache_dir, pulled.digest),
            layout_dir=store.view(pulled.digest), cache_dir=self.cache_dir, workdir="/",
        )  # fmt: skip

    def convert(self, says: str = "") -> None:
        environ = {"PATH": "/usr/bin:/bin", "SAYS": says}
        convert(self.container, Workshop(self.cache_dir, environ, self.told.append))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize(("cache_mode", "folder", "sif"), [(0o2775, 0o2775, 0o664), (0o755, 0o755, 0o644)])
def test_colleagues_can_read_what_was_made_with_a_narrow_umask(
    tmp_path: Path, cache_mode: int, folder: int, sif: int
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(cache_mode)
    with umask(0o022):
        desk = Desk(tmp_path)
    with umask(0o077):
        desk.convert()
    prepared = desk.container.prepared
    assert is_ready(desk.container)
    assert prepared.parent.stat().st_mode & 0o7777 == folder
    assert prepared.stat().st_mode & 0o777 == sif
    assert prepared.with_name(f"{prepared.name}.lock").stat().st_mode & 0o777 == sif


def test_images_that_are_one_s_own_stay_so(tmp_path: Path) -> None:
    with umask(0o077):
        desk = Desk(tmp_path)
    desk.convert()
    assert desk.container.prepared.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("says", ["Write failed because No space left on device", "write: Disk quota exceeded"])
def test_a_full_disk_is_the_site_s_error(desk: Desk, says: str) -> None:
    with pytest.raises(SiteError, match=says) as caught:
        desk.convert(says)
    assert caught.value.exit_code == 3
    assert "another place" in caught.value.hint
    assert sorted(each.name for each in desk.cache_dir.iterdir()) == ["images", "sif"]


def test_any_other_refusal_is_the_engine_s(desk: Desk) -> None:
    with pytest.raises(EngineError, match="While performing build"):
        desk.convert("FATAL: some reason")


def test_what_would_not_fit_is_not_begun(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "bin" / "quota"
    quota.parent.mkdir()
    quota.write_text("#!/bin/sh\necho '/ 1 1 1 0 0 0 0 0'\n")
    quota.chmod(0o755)
    monkeypatch.setenv("PATH", f"{quota.parent}:/usr/bin:/bin")
    with pytest.raises(SiteError, match=r"your quota on .* are needed"):
        desk.convert()
    assert desk.told == []


def test_a_cache_one_may_not_write_or_enter_is_named(desk: Desk, tmp_path: Path) -> None:
    shutil.copytree(desk.cache_dir, tmp_path / "here" / "cache", symlinks=True)
    container = desk.container.model_copy(update={"prepared": Path("cache/sif/x.sif"), "engine_command": "/bin/true"})
    (tmp_path / "here" / "cache" / "sif").mkdir()
    with ordinary_user(tmp_path / "here"):
        with (
            closed(Path("cache/sif")),
            pytest.raises(EngineError, match=r"cannot look at cache/sif/x\.sif: Permission"),
        ):
            is_ready(container)
        with closed(Path("cache"), 0o555), pytest.raises(SiteError, match="cannot write in cache: no permission"):
            convert(container, Workshop(Path("cache"), {}, desk.told.append))
