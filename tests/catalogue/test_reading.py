import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.catalogue.module import Module
from deephpc.catalogue.reading import MetadataFile, Origin, judge_file, read_module
from tests.catalogue.samples import NOON, V1, V2
from tests.catalogue.test_document import VALUES

CATEGORIES = "categories:\n  - AI4 trainable\n  - AI4 inference"
CAPABILITY = "resources.training.gpu_compute_capability"
ORIGIN = Origin(name="it", source="here", organisation="us", as_of=NOON)
KEYS = st.sampled_from(
    ["title", "summary", "description", "links", "sources", "tags", "keywords", "resources", "dates", "categories",
     "docker_image", "docker_registry_repo", "training", "cpu", "license", "tasks", "libraries", "data-type"]
)  # fmt: skip


def read(**files: str) -> Module:
    names = {"v2": "ai4-metadata.yml", "v1": "metadata.json", "old": "metadata.v1-last.json"}
    return read_module(ORIGIN, [MetadataFile(name=names[key], text=text) for key, text in files.items()])


def test_version_2_is_read() -> None:
    module = read(v2=V2)
    assert module.is_valid
    assert (module.title, module.image, module.schema_version) == ("Leaf counter", "someone/leaf-counter", "2")
    assert (module.is_trainable, module.has_inference, module.is_pre_trained) == (True, True, False)
    assert module.training is not None
    assert (module.training.cpus, module.training.gpus, module.training.memory_mb) == (8, 1, 16000)
    assert module.inference is None
    assert (module.created, module.updated) == ("2024-01-31", "2024-02-01")


def test_version_1_is_said_in_the_words_of_version_2() -> None:
    module = read(v1=V1)
    assert module.is_valid
    assert module.categories == ("AI4 trainable", "AI4 pre trained")
    assert module.libraries == ("TensorFlow",)
    assert module.tasks == ("Computer Vision", "Classification")
    assert module.data_types == ("Image", "Audio")
    assert module.tags == ("docker", "image classification", "audio")
    assert module.description == "It listens.\n\nIt answers."
    assert module.links == {
        "dataset": "https://data.example.net/birds",
        "container_definition": "https://github.com/someone/birds-oc",
        "source_code": "https://github.com/someone/birds",
    }


def test_a_valid_file_stands_in_for_a_bad_one_and_says_so() -> None:
    module = read(v2="a: b: c", v1=V1)
    assert module.is_valid
    assert module.file == "metadata.json"
    assert module.notes[0].startswith("ai4-metadata.yml was passed over: line 1: not valid YAML")


def test_the_licence_comes_from_version_1_where_version_2_has_no_place_for_it() -> None:
    assert read(v2=V2, v1=V1).licence == "MIT"
    assert read(v2=V2).licence == ""


def test_an_invalid_module_says_why_and_shows_what_could_be_read() -> None:
    module = read(v2=V2.replace("cpu: 8", "cpu: '8'"))
    assert module.problems == (
        "ai4-metadata.yml, line 23: resources.training.cpu: should be a whole number, 0 or more, not '8'",
    )
    assert module.title == "Leaf counter"
    assert module.training is not None
    assert (module.training.cpus, module.training.gpus) == (None, 1)


def test_a_module_without_files_is_invalid_for_the_reason_that_was_met() -> None:
    module = read_module(ORIGIN.model_copy(update={"trouble": "no answer within 3 s"}), [])
    assert module.problems == ("no answer within 3 s",)


def test_control_characters_never_reach_a_terminal() -> None:
    module = read(v1=json.dumps({**json.loads(V1), "title": "a\u001b[2Jb\u202e c\td", "description": ["x\u0007y"]}))
    assert (module.title, module.description) == ("a[2Jb c d", "xy")


def test_placeholders_of_templates_are_no_links() -> None:
    assert "citation" not in read(v1=V1).links


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ("2.0.0", "1.4.0", "metadata_version", "is no version of the schema"),
        ("source_code:", "source_cod: https://x\n  source_code:", "links.source_cod", "did you mean source_code"),
        ("https://github.com/someone/leaf-counter", "ftp://x", "links.source_code", "is not a web address"),
        ("'2024-01-31'", "31.1.2024", "dates.created", "is not a date"),
        ("  docker_image: someone/leaf-counter\n", "", "links", "cannot be pulled"),
        (CATEGORIES, "categories: []", "categories", "never find"),
        ("  training:", "  inference:", "resources", "says nothing about training"),
        ("    gpu: 1", "    gpu: 1\n    gpu_compute_capability: 100.0", CAPABILITY, "any GPU"),
    ],
)  # fmt: skip
def test_advice_is_given_for_what_real_use_needs(old: str, new: str, key: str, message: str) -> None:
    if not key:
        old, new, key, message = (
            "categories:\n  - AI4 trainable\n  - AI4 inference",
            "categories: []",
            "categories",
            "never find",
        )
    assert old in V2
    verdict = judge_file(MetadataFile(name="ai4-metadata.yml", text=V2.replace(old, new)))
    assert verdict.is_valid
    assert any(each.key == key and message in each.message for each in verdict.findings), verdict.findings


def test_an_image_that_cannot_be_pulled_is_an_error_with_its_line() -> None:
    text = V2.replace("docker_image: someone/leaf-counter", "docker_image: Someone/Leaf Counter")
    error = judge_file(MetadataFile(name="ai4-metadata.yml", text=text)).errors[0]
    assert (error.line, error.key) == (11, "links.docker_image")


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=4), max_size=8))
def test_no_metadata_whatsoever_stops_the_reader(value: dict[str, object]) -> None:
    module = read(v1=json.dumps(value))
    assert module.name == "it"
    assert module.is_valid == (not module.problems)
    assert module.model_dump_json().encode("utf-8")
