"""What an image is asked about its module, with an engine that answers as the program inside would."""

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deephpc.containers.container import Container
from deephpc.errors import EngineError, InputError
from deephpc.serve.module_description import Argument, Method, ModuleDescription, description_path, write_description
from deephpc.workflows.batch_predict import parse_shared
from deephpc.workflows.image import ImagePlaces
from deephpc.workflows.image_upkeep import open_store
from deephpc.workflows.in_image import Enclosed, ImageDesk
from deephpc.workflows.module_use import _models, describe_module, with_files, with_folders
from tests.fakes.samples import settings_in

IMAGE = "docker://docker.io/library/python:3"


def desk_in(place: Path, told: list[str]) -> ImageDesk:
    """Have an engine whose images answer `describe` with `said.json`, and which notes that they were asked."""
    program = place / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/bash
while [ $# -gt 1 ]; do
  if [ "$1" = --output ]; then cp "{place}/said.json" "$2" && echo asked >>"{place}/asked"; fi
  shift
done
"""
    )
    program.chmod(0o755)
    (place / "image.sif").touch()
    settings = settings_in(place)
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    return ImageDesk(
        settings,
        ImagePlaces(open_store(settings.cache_dir), environ, place),
        lambda _: None,
        lambda: datetime.now(timezone.utc),
        told.append,
    )


def ask(place: Path, told: list[str], *binds: str, **error: str | None) -> None:
    """Ask an image whose `describe` fails so."""
    desk = desk_in(place, told)
    (place / "said.json").write_text(json.dumps({"schema": "deephpc.module/3", "error": error}))
    assert describe_module(Enclosed(container_in(place, desk.settings.cache_dir, *binds), ()), desk) is None


def container_in(place: Path, cache_dir: Path | None = None, *binds: str) -> Container:
    return Container(
        engine="apptainer",
        engine_command="apptainer",
        reason="",
        image=IMAGE,
        digest="sha256:" + "a" * 64,
        prepared=place / "image.sif",
        layout_dir=None,
        cache_dir=cache_dir or place,
        workdir="/",
        is_module=True,
        binds=binds,
    )


@pytest.mark.parametrize("kind", ["no-deepaas", "no-module"])
def test_an_image_without_a_module_is_refused_at_once(tmp_path: Path, kind: str):
    with pytest.raises(EngineError, match=f"{IMAGE} has no DEEPaaS module: nothing there") as caught:
        ask(tmp_path, [], kind=kind, message="nothing there")
    assert caught.value.hint == f"`deephpc run {IMAGE} -- COMMAND` runs anything else in it"


@pytest.mark.parametrize("error", [{"message": "no libcuda"}, {"message": "x", "kind": "", "traceback": "T"}])
def test_a_module_that_cannot_be_imported_here_may_work_on_a_node(tmp_path: Path, error: dict[str, str | None]):
    told: list[str] = []
    ask(tmp_path, told, **error)
    assert told[-1] == f"note: it cannot be used on this machine: {error['message']}"


def test_what_is_bound_may_bring_a_module(tmp_path: Path):
    told: list[str] = []
    ask(tmp_path, told, "/venv:/venv", kind="no-deepaas", message="nothing there")
    assert "cannot be used" in told[-1]


@pytest.mark.parametrize("kind", ["several", "unknown-model"])
def test_an_image_with_several_modules_asks_which_before_a_job_is_spent(tmp_path: Path, kind: str):
    with pytest.raises(InputError, match="leaves, trees") as caught:
        ask(tmp_path, [], kind=kind, message="there are several modules: leaves, trees")
    assert caught.value.hint == "choose one: --model NAME"


def test_a_folder_of_models_is_known_by_what_lies_in_it(tmp_path: Path):
    before = _models(tmp_path)
    assert _models(None) == []
    assert _models(tmp_path) == before
    (tmp_path / "2026-11-30").mkdir()
    assert _models(tmp_path) != before


def test_a_module_is_asked_again_where_other_models_lie(tmp_path: Path):
    desk = desk_in(tmp_path, [])
    models = tmp_path / "run" / "output" / "models"
    (models / "2026").mkdir(parents=True)

    def ask_for(folder: Path | None, *choices: str) -> tuple[ModuleDescription, int]:
        timestamp = Argument(name="timestamp", choices=choices)
        says = ModuleDescription(served="leaves", predict=Method(exists=True, arguments=(timestamp,)))
        (tmp_path / "said.json").write_text(says.model_dump_json(by_alias=True))
        container = container_in(tmp_path, desk.settings.cache_dir).model_copy(update={"models": folder})
        found = describe_module(Enclosed(container, ()), desk)
        assert found is not None
        return found, len((tmp_path / "asked").read_text().splitlines())

    def takes(found: ModuleDescription, timestamp: str) -> bool:
        words = [f"timestamp={timestamp}"]
        try:
            return bool(parse_shared(words, None, found.predict.arguments, cwd=tmp_path, inputs=("image",)))
        except InputError:
            return False

    own, count = ask_for(None, "shipped")
    again, count_again = ask_for(None, "never asked")
    assert (count, count_again, again) == (1, 1, own)
    trained, count = ask_for(models, "shipped", "2026")
    again, count_again = ask_for(models, "never asked")
    assert (count, count_again, again) == (2, 2, trained)
    (models / "2027").mkdir()
    grown, count = ask_for(models, "shipped", "2026", "2027")
    assert count == 3
    each = [own, trained, grown]
    assert [[takes(one, name) for name in ("shipped", "2026", "2027")] for one in each] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert ask_for(None, "never asked") == (own, 3)


@pytest.mark.parametrize(("schema", "asked"), [("deephpc.module/2", 1), ("deephpc.module/3", 0)])
def test_a_module_is_asked_again_whose_kept_answer_may_tell_no_passwords(tmp_path: Path, schema: str, asked: int):
    """Copies of version 2 were kept before passwords were told, and read as if there were none."""
    desk = desk_in(tmp_path, [])
    container = container_in(tmp_path, desk.settings.cache_dir)
    token = Argument(name="token", is_secret=True)
    says = ModuleDescription(served="leaves", train=Method(exists=True, arguments=(token,)))
    (tmp_path / "said.json").write_text(says.model_dump_json(by_alias=True))
    kept = says if not asked else ModuleDescription(served="leaves", train=Method(exists=True))
    write_description(desk.settings.cache_dir, container.digest, kept)
    path = description_path(desk.settings.cache_dir, container.digest)
    path.write_text(path.read_text().replace("deephpc.module/3", schema))
    for _ in range(2):
        assert describe_module(Enclosed(container, ()), desk) == says
    notes = tmp_path / "asked"
    assert (len(notes.read_text().splitlines()) if notes.exists() else 0) == asked


@pytest.mark.parametrize(
    ("says", "folders"),
    [
        ({"models": ["/opt/weights"]}, ("models /opt/weights",)),
        ({"data": ["/a b", "/c"], "models": ["/d"]}, ("data /a b", "data /c", "models /d")),
        ({"data": [], "models": [], "more": 1}, ()),
        (None, ()),  # asked by its own old driver
    ],
)
def test_where_a_module_keeps_models_and_data_goes_with_its_image(
    tmp_path: Path, says: dict[str, object] | None, folders: tuple[str, ...]
):
    desk = desk_in(tmp_path, [])
    said = {"schema": "deephpc.module/3", "served": "leaves", **({} if says is None else {"folders": says})}
    (tmp_path / "said.json").write_text(json.dumps(said))
    enclosed = Enclosed(container_in(tmp_path, desk.settings.cache_dir), ())
    describe_module(enclosed, desk)
    kept = with_folders(enclosed, describe_module(enclosed, desk, ask=False)).container
    assert kept is not None
    assert kept.module_folders == folders
    assert (tmp_path / "asked").read_text() == "asked\n"


def training_with(place: Path, **files: Path) -> Container | None:
    """Return how a training starts whose arguments name these files."""
    declared = (*(Argument(name=name, type="file") for name in ("weights", "labels")), Argument(name="note"))
    description = ModuleDescription(served="leaves", train=Method(exists=True, arguments=declared))
    words = ("train", "--", "--note=/nowhere", *(f"--{name}={file}" for name, file in files.items()))
    return with_files(Enclosed(container_in(place), words), description).container


@pytest.mark.parametrize("names", [["w.h5"], ["w.h5", "sub/labels.csv"], ["größe 'q' 1.h5"], ["w.h5", "w.h5"]])
def test_files_that_arguments_name_are_seen_inside_where_they_are(tmp_path: Path, names: list[str]):
    files = [tmp_path / name for name in names]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = training_with(tmp_path, **dict(zip(("weights", "labels"), files, strict=False)))
    assert found is not None
    assert found.binds == tuple(dict.fromkeys(f"{file}:{file}:ro" for file in files))


def test_a_link_that_an_argument_names_is_seen_by_its_own_name(tmp_path: Path):
    (tmp_path / "best.h5").touch()
    (tmp_path / "link.h5").symlink_to("best.h5")
    found = training_with(tmp_path, weights=tmp_path / "link.h5")
    assert found is not None
    assert found.binds == (f"{tmp_path}/link.h5:{tmp_path}/link.h5:ro",)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.h5", "there is no file"),
        ("folder", "there is no file"),
        ("lost.h5", "there is no file"),
        ("a:b.h5", "cannot be bound into a container"),
        ("a,b.h5", "cannot be bound into a container"),
    ],
)
def test_what_an_argument_names_that_no_engine_can_show_is_refused(tmp_path: Path, name: str, told: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "lost.h5").symlink_to("missing.h5")
    for odd in ("a:b.h5", "a,b.h5"):
        (tmp_path / odd).touch()
    with pytest.raises(InputError, match=told) as caught:
        training_with(tmp_path, weights=tmp_path / name)
    assert name in caught.value.message


def test_without_a_description_or_an_image_nothing_is_shown(tmp_path: Path):
    natively = Enclosed(None, ("train", "--", "--weights=/nowhere"))
    inside = Enclosed(container_in(tmp_path), natively.words)
    assert with_files(inside, None) is inside
    assert with_files(natively, ModuleDescription(served="leaves")) is natively
    assert with_folders(inside, None) is inside
    assert with_folders(natively, ModuleDescription(served="leaves")) is natively
