import csv
import gzip
import hashlib
import json
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.catalogue.copies import load_copy, load_snapshot
from deephpc.catalogue.database import build_index
from deephpc.catalogue.module import Module
from deephpc.catalogue.reading import MetadataFile, Origin, judge_file, read_module
from deephpc.catalogue.search import Filters, search_modules
from deephpc.errors import DataError, InputError
from deephpc.workflows.catalogue import (
    Catalogue,
    SourceUpdate,
    check_outcome,
    list_catalogue,
    plan_publish,
    search_catalogue,
    show_module,
    status_of_sources,
    update_catalogue,
)
from deephpc.workflows.catalogue_sources import (
    add_source,
    enable_source,
    load_sources,
    plan_source,
    remove_source,
    shipped_folder,
    user_file,
)
from deephpc.workflows.catalogue_usage import plan_usage
from tests.catalogue.samples import NOON, V1, V2, Mirror, a_catalogue, served, v2
from tests.fakes.waiting import DEADLINE_S, GROWING_S

SNAPSHOT = load_snapshot(shipped_folder() / "snapshot.json.gz")
#: The files of the snapshot that are not valid, and why: all others are.
INVALID = {
    ("phyto-plankton-classification", "ai4-metadata.yml"): "not valid YAML",
    ("thunderstorm-nowcast-microstep", "metadata.json"): "not valid JSON",
}


def names(catalogue: Catalogue, text: str, **filters: object) -> list[str]:
    hits = search_catalogue(catalogue, text, Filters.model_validate(filters))
    return [module.name for module in hits.modules]


def update(
    catalogue: Catalogue, *sources: str, at: object = NOON, deadline_s: float = DEADLINE_S
) -> list[SourceUpdate]:
    events = update_catalogue(catalogue, at, sources, deadline_s)  # type: ignore[arg-type] # a datetime
    return [event for event in events if isinstance(event, SourceUpdate)]


# --- the snapshot that ships


def test_the_snapshot_is_what_its_provenance_says_and_permissively_licensed() -> None:
    with (shipped_folder() / "provenance.tsv").open(newline="") as file:
        rows = {(row["repo"], Path(row["file"]).name): row for row in csv.DictReader(file, delimiter="\t")}
    files = {
        (module.repository.removeprefix("https://github.com/"), file.name): file.text
        for copy in SNAPSHOT
        for module in copy.modules
        for file in module.files
    }
    assert files.keys() == rows.keys()
    assert len(files) == 84
    for key, text in files.items():
        assert hashlib.sha256(text.encode()).hexdigest() == rows[key]["sha256"]
        assert rows[key]["licence"] in ("MIT", "Apache-2.0", "BSD-3-Clause")


def test_every_file_of_the_snapshot_is_valid_or_invalid_for_a_stated_reason() -> None:
    seen = {}
    for copy in SNAPSHOT:
        for module in copy.modules:
            for file in module.files:
                verdict = judge_file(MetadataFile(name=file.name, text=file.text))
                if not verdict.is_valid:
                    seen[module.name, file.name] = verdict.errors[0].message
    assert seen.keys() == INVALID.keys()
    assert all(seen[key].startswith(reason) for key, reason in INVALID.items())


def test_the_first_search_answers_from_the_snapshot(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    assert names(catalogue, "plankton", is_trainable=True) == ["phyto-plankton-classification"]
    everything = list_catalogue(catalogue, Filters()).modules
    assert len(everything) == len({module.repository for module in everything}) == 49
    assert all(module.is_valid for module in everything)


def test_a_module_whose_newer_metadata_does_not_parse_is_read_from_the_older(tmp_path: Path) -> None:
    module = show_module(a_catalogue(tmp_path), "phyto-plankton-classification")[0]
    assert module.is_valid
    assert module.file == "metadata.json"
    assert "ai4-metadata.yml was passed over: line 14" in module.notes[0]


def test_a_cache_that_cannot_be_written_does_not_stop_a_search(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "dogs-breed-detector" in names(a_catalogue(tmp_path), "dog")


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    assert names(catalogue, "plankton")
    (catalogue.cache / "index.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    assert names(catalogue, "plankton")


# --- searching


def test_titles_count_for_more_than_descriptions(tmp_path: Path) -> None:
    texts = {
        "first": v2(title="Something", description="It counts leaves and dogs."),
        "second": v2(title="Dogs and their breeds"),
    }
    with served_folder(tmp_path, texts) as catalogue:
        assert names(catalogue, "dog") == ["second", "first"]
        assert names(catalogue, "LEAV dog") == ["first", "second"] or names(catalogue, "LEAV dog") == [
            "second",
            "first",
        ]


def served_folder(tmp_path: Path, texts: dict[str, str]) -> "FolderCatalogue":
    return FolderCatalogue(tmp_path, texts)


class FolderCatalogue:
    """The user's catalogues with nothing but one folder of theirs in it."""

    def __init__(self, tmp_path: Path, texts: dict[str, str]) -> None:
        self.catalogue = a_catalogue(tmp_path)
        self.folder = tmp_path / "modules"
        for name, text in texts.items():
            (self.folder / name).mkdir(parents=True)
            (
                self.folder / name / ("metadata.json" if text.lstrip().startswith("{") else "ai4-metadata.yml")
            ).write_text(text)

    def __enter__(self) -> Catalogue:
        for source in load_sources(self.catalogue.places):
            remove_source(source.name, self.catalogue.places, self.catalogue.cache)
        source = plan_source("mine", str(self.folder), "", "us", Path("/"))
        assert add_source(source, self.catalogue.places)
        update(self.catalogue)
        return self.catalogue

    def __exit__(self, *args: object) -> None:
        pass


def test_filters_narrow_and_a_value_nobody_has_is_told_with_what_is_near(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    both = list_catalogue(catalogue, Filters(is_trainable=True, libraries=("pytorch",))).modules
    assert both
    assert all(module.is_trainable and "PyTorch" in module.libraries for module in both)
    tools = list_catalogue(catalogue, Filters(categories=("tools",))).modules
    assert {module.source for module in tools} == {"ai4os-tools"}
    hits = list_catalogue(catalogue, Filters(libraries=("pytorhc",)))
    assert hits.note == "no module has 'pytorhc' among its libraries; near: pytorch"


def test_words_that_never_stand_together_are_searched_for_one_by_one(tmp_path: Path) -> None:
    hits = search_catalogue(a_catalogue(tmp_path), "plankton thunderstorm", Filters())
    assert {module.name for module in hits.modules} >= {
        "phyto-plankton-classification",
        "thunderstorm-nowcast-microstep",
    }
    assert "these have some" in hits.note


def test_a_search_without_hits_offers_near_words(tmp_path: Path) -> None:
    hits = search_catalogue(a_catalogue(tmp_path), "plankten", Filters())
    assert hits.modules == ()
    assert "plankton" in hits.note


def test_a_name_is_found_whatever_its_capitals_and_a_wrong_one_gets_the_nearest(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    assert show_module(catalogue, "deep-oc-MODS")[0].name == "DEEP-OC-mods"
    assert show_module(catalogue, "deephdc/DEEP-OC-demo_app")[0].source == "deephdc"
    with pytest.raises(InputError) as caught:
        show_module(catalogue, "dogs-bred-detector")
    assert "dogs-breed-detector" in caught.value.hint
    with pytest.raises(InputError, match="no module"):
        show_module(catalogue, "\udcff")


MEMORY: list[sqlite3.Connection] = []


@given(st.text(max_size=60))
def test_no_search_text_breaks_the_search(text: str) -> None:
    if not MEMORY:
        origin = Origin(name="it", source="here", as_of=NOON)
        module = read_module(origin, [MetadataFile(name="ai4-metadata.yml", text=V2)])
        MEMORY.append(build_index(Path("/dev/null/x"), "", [module]))
    try:
        assert len(search_modules(MEMORY[0], text, Filters(tags=(text,))).modules) <= 1
    except InputError as error:
        assert "has no word" in error.message


def test_listing_and_searching_a_thousand_modules_takes_a_blink(tmp_path: Path) -> None:
    texts = {f"module-{number}": v2(title=f"Counter {number}") for number in range(1000)}
    with served_folder(tmp_path, texts) as catalogue:
        assert names(catalogue, "counter 77")[0] == "module-77"
        started = time.process_time()
        assert len(list_catalogue(catalogue, Filters()).modules) == 1000
        assert names(catalogue, "counter 500")[0] == "module-500"
        assert time.process_time() - started < 0.5


# --- updating


def github_index(*repositories: str) -> str:
    return "".join(
        f'[submodule "{name}"]\n\tpath = {name}\n\turl = https://github.com/owner/{name}\n\tbranch = main\n'
        for name in repositories
    )


def add_mirror(catalogue: Catalogue, mirror: Mirror) -> None:
    source = plan_source(
        "mirror", f"{mirror.url}/.gitmodules", f"{mirror.url}/{{owner}}/{{name}}/{{branch}}/{{file}}", "us", Path("/")
    )
    add_source(source, catalogue.places)


def test_a_mirror_with_two_dead_modules_is_updated_and_both_are_told(tmp_path: Path) -> None:
    files = {
        "/.gitmodules": github_index("leaves", "gone", "stalled", "birds", "broken"),
        "/owner/leaves/main/ai4-metadata.yml": V2,
        "/owner/birds/main/metadata.json": V1,
        "/owner/broken/main/ai4-metadata.yml": "a: b: c",
    }
    catalogue = a_catalogue(tmp_path)
    with served(Mirror(files, stalled={"/owner/stalled/main/ai4-metadata.yml"})) as mirror:
        add_mirror(catalogue, mirror)
        for deadline_s in GROWING_S:  # in which the others must answer
            (done,) = update(catalogue, "mirror", deadline_s=deadline_s)
            if len(done.unreachable) == 2:
                break
    assert done.trouble == ""
    assert [line.partition(":")[0] for line in done.unreachable] == ["gone", "stalled"]
    assert "has no ai4-metadata.yml or metadata.json" in done.unreachable[0]
    assert f"no answer within {deadline_s:g} s" in done.unreachable[1]
    problems = {
        each.name: each.problems for each in list_catalogue(catalogue, Filters()).modules if each.source == "mirror"
    }
    assert {name for name, why in problems.items() if not why} == {"leaves", "birds"}
    assert "not valid YAML" in problems["broken"][0]
    assert names(catalogue, "birds song")[0] == "birds"


def test_a_second_update_asks_conditionally_and_keeps_the_last_good_copy(tmp_path: Path) -> None:
    files = {
        "/.gitmodules": github_index("leaves", "birds"),
        "/owner/leaves/main/ai4-metadata.yml": V2,
        "/owner/birds/main/ai4-metadata.yml": V2,
    }
    catalogue = a_catalogue(tmp_path)
    later = NOON + timedelta(days=3)
    with served(Mirror(files)) as mirror:
        add_mirror(catalogue, mirror)
        update(catalogue, "mirror")
        assert mirror.answers == {200: 3}
        del files["/owner/birds/main/ai4-metadata.yml"]
        (done,) = update(catalogue, "mirror", at=later)
        assert mirror.answers[304] == 2
        assert mirror.answers[200] == 3
    assert [line.partition(":")[0] for line in done.unreachable] == ["birds"]
    leaves, birds = show_module(catalogue, "mirror/leaves")[0], show_module(catalogue, "mirror/birds")[0]
    assert (leaves.as_of, leaves.trouble) == (later, "")
    assert birds.is_valid
    assert birds.as_of == NOON
    assert "has no ai4-metadata.yml" in birds.trouble


def test_a_catalogue_that_is_down_keeps_its_copy_and_the_command_fails(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    with served(Mirror({"/.gitmodules": github_index("leaves"), "/owner/leaves/main/ai4-metadata.yml": V2})) as mirror:
        add_mirror(catalogue, mirror)
        update(catalogue, "mirror")
    done = update(catalogue, "mirror", at=NOON + timedelta(days=1))
    assert done[0].trouble
    assert done[0].as_of == NOON
    with pytest.raises(DataError, match="not reached: mirror") as caught:
        check_outcome(tuple(done))
    assert caught.value.exit_code == 5
    status = next(each for each in status_of_sources(catalogue) if each.source.name == "mirror")
    assert (status.modules, status.as_of, status.trouble) == (1, NOON, done[0].trouble)
    assert show_module(catalogue, "leaves")[0].is_valid


def test_a_moments_trouble_is_tried_again(tmp_path: Path) -> None:
    files = {"/.gitmodules": github_index("leaves"), "/owner/leaves/main/ai4-metadata.yml": V2}
    catalogue = a_catalogue(tmp_path)
    with served(Mirror(files, failing={"/.gitmodules": 1, "/owner/leaves/main/ai4-metadata.yml": 1})) as mirror:
        add_mirror(catalogue, mirror)
        (done,) = update(catalogue, "mirror")
    assert (done.trouble, done.unreachable, mirror.answers[503]) == ("", (), 2)


def test_a_page_that_is_no_index_is_refused_and_the_copy_stays(tmp_path: Path) -> None:
    files = {"/.gitmodules": github_index("leaves"), "/owner/leaves/main/ai4-metadata.yml": V2}
    catalogue = a_catalogue(tmp_path)
    with served(Mirror(files)) as mirror:
        add_mirror(catalogue, mirror)
        update(catalogue, "mirror")
        files["/.gitmodules"] = "<html>log in first</html>"
        (done,) = update(catalogue, "mirror")
    assert "not an index" in done.trouble
    assert show_module(catalogue, "mirror/leaves")[0].is_valid


def test_a_catalogue_on_the_web_cannot_make_us_read_files_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "ai4-metadata.yml").write_text(V2)
    catalogue = a_catalogue(tmp_path)
    with served(Mirror({"/MODULES.yml": f"- module: {secret}\n- module: file://{secret}\n"})) as mirror:
        add_source(plan_source("web", f"{mirror.url}/MODULES.yml", "", "", Path("/")), catalogue.places)
        (done,) = update(catalogue, "web")
    assert len(done.unreachable) == 2
    assert all("may name web addresses only" in line for line in done.unreachable)


def test_a_folder_is_a_catalogue_and_what_leaves_it_leaves_the_list(tmp_path: Path) -> None:
    texts = {"owner__leaves": V2, "birds": V1, "_index": V2, "broken": "{"}
    with served_folder(tmp_path, texts) as catalogue:
        found = {each.name: each for each in list_catalogue(catalogue, Filters()).modules}
        assert found.keys() == {"leaves", "birds", "broken"}
        assert not found["broken"].is_valid
        (tmp_path / "modules" / "birds" / "metadata.json").unlink()
        update(catalogue)
        assert {each.name for each in list_catalogue(catalogue, Filters()).modules} == {"leaves", "broken"}


def test_an_index_in_a_file_may_name_folders_beside_it(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "leaves").mkdir(parents=True)
    (mirror / "leaves" / "ai4-metadata.yml").write_text(V2)
    (mirror / "MODULES.yml").write_text("- module: ./leaves\n")
    catalogue = a_catalogue(tmp_path)
    add_source(plan_source("files", "mirror/MODULES.yml", "", "", tmp_path), catalogue.places)
    (done,) = update(catalogue, "files")
    assert (done.modules, done.unreachable) == (1, ())
    assert show_module(catalogue, "files/leaves")[0].title == "Leaf counter"


def test_an_unknown_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no catalogue 'nowhere'"):
        update(a_catalogue(tmp_path), "nowhere")


def test_a_copy_that_is_half_written_counts_as_none(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    catalogue.cache.mkdir(parents=True)
    (catalogue.cache / "ai4os-hub.json").write_text('{"name": "ai4os-hub", "url"')
    source = load_sources(catalogue.places)[0]
    assert load_copy(catalogue.cache, source.name, source.url) is None
    assert names(catalogue, "plankton")


# --- the sources


def test_sources_are_added_switched_off_and_on_again(tmp_path: Path) -> None:
    catalogue = a_catalogue(tmp_path)
    shipped = [source.name for source in load_sources(catalogue.places)]
    assert shipped == ["ai4os-hub", "ai4os-tools", "deephdc"]
    mine = plan_source("mine", str(tmp_path), "", "", tmp_path)
    assert add_source(mine, catalogue.places)
    assert not add_source(mine, catalogue.places)
    with pytest.raises(InputError, match="there is a catalogue 'mine' already"):
        add_source(mine.model_copy(update={"url": "/elsewhere"}), catalogue.places)
    remove_source("deephdc", catalogue.places, catalogue.cache)
    assert [source.name for source in load_sources(catalogue.places)] == ["mine", "ai4os-hub", "ai4os-tools"]
    assert enable_source("deephdc", catalogue.places)
    assert not enable_source("deephdc", catalogue.places)
    remove_source("mine", catalogue.places, catalogue.cache)
    assert [source.name for source in load_sources(catalogue.places)] == shipped
    assert oct(user_file(catalogue.places).stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    ("name", "url", "files", "message"),
    [
        ("Group", "/x", "", "lower-case"),
        ("a/b", "/x", "", "lower-case"),
        ("mine", "", "", "is not the address"),
        ("mine", "https://user:password@host/x", "", "password"),
        ("mine", "https://h/x", "https://h/{nam}/{file}", "{nam} is none of"),
        ("mine", "https://h/x", "https://h/{name}", "{file} must stand in it"),
    ],
)
def test_a_bad_source_is_refused(tmp_path: Path, name: str, url: str, files: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_source(name, url, files, "", tmp_path)
    assert message in caught.value.message


def test_a_projects_page_stands_for_its_index(tmp_path: Path) -> None:
    source = plan_source("x", "https://github.com/ai4os-hub/modules-catalog", "", "", tmp_path)
    assert source.url == "https://raw.githubusercontent.com/ai4os-hub/modules-catalog/HEAD/.gitmodules"


def test_publishing_goes_to_the_only_folder_or_asks_which(tmp_path: Path) -> None:
    own = tmp_path / "leaf-counter"
    own.mkdir()
    (own / "ai4-metadata.yml").write_text(V2)
    catalogue = a_catalogue(tmp_path)
    with pytest.raises(InputError, match="none of your catalogues is a folder"):
        plan_publish(catalogue, own, None, None)
    group = tmp_path / "group"
    group.mkdir()
    add_source(plan_source("group", "group", "", "", tmp_path), catalogue.places)
    assert plan_publish(catalogue, own, None, None).target == group / "leaf-counter" / "ai4-metadata.yml"
    assert plan_publish(catalogue, own, "group", "other").target == group / "other" / "ai4-metadata.yml"
    with pytest.raises(InputError, match="neither a folder nor a catalogue"):
        plan_publish(catalogue, own, "gruop", None)


def test_usage_speaks_only_of_commands_that_exist(tmp_path: Path) -> None:
    origin = Origin(name="leaves", source="here", as_of=NOON)
    module = read_module(origin, [MetadataFile(name="ai4-metadata.yml", text=V2)])
    assert plan_usage(module, frozenset({"image", "train"})) == (
        "deephpc image pull leaves",
        "deephpc train leaves --gpus-per-node 1 --cpus-per-task 8 --mem 15259M --time 1:00:00",
    )


@pytest.mark.parametrize(
    ("categories", "uses"),
    [
        ((), ["module", "train", "predict", "serve"]),
        (("AI4 pre trained",), ["predict", "serve"]),
        (("AI4 trainable",), ["train"]),
        (("AI4 tools",), ["run"]),
    ],
)
def test_a_module_whose_use_nobody_tells_is_not_only_run(categories: tuple[str, ...], uses: list[str]) -> None:
    module = Module(name="leaves", source="s", image="x/leaves", categories=categories, as_of=NOON)
    lines = plan_usage(module, frozenset({"module", "train", "predict", "serve", "run"}))
    assert [line.split()[1] for line in lines] == uses


def test_the_snapshot_is_small_and_deterministic() -> None:
    raw = (shipped_folder() / "snapshot.json.gz").read_bytes()
    assert len(raw) < 100_000
    assert raw[4:8] == b"\0\0\0\0"
    assert json.loads(gzip.decompress(raw))[0]["name"] == "ai4os-hub"
