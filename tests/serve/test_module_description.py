"""What a module says of itself, and its copies by image digest."""

import importlib.util
import json
import stat
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from deephpc.errors import InputError, SiteError
from deephpc.places import shipped
from deephpc.serve.module_description import (
    Argument,
    Method,
    ModuleDescription,
    description_path,
    load_description,
    parse_description,
    write_description,
)


def deepaas_arguments() -> ModuleType:
    """Load what runs in the image; it is no part of the package."""
    path = shipped("jobscripts") / "deepaas_arguments.py"
    spec = importlib.util.spec_from_file_location("deepaas_arguments", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DIGEST = "sha256:" + "0123456789abcdef" * 4
DESCRIPTION = ModuleDescription(
    models=("leaves",),
    served="leaves",
    deepaas="2.6.0",
    train=Method(exists=True, arguments=(Argument(name="epochs", type="int", default=3, choices=(3, 5)),)),
)


def test_a_description_is_kept_by_the_digest_of_its_image(tmp_path: Path) -> None:
    write_description(tmp_path, DIGEST, DESCRIPTION)
    assert load_description(tmp_path, DIGEST) == DESCRIPTION
    path = description_path(tmp_path, DIGEST)
    assert path == tmp_path / "modules" / f"sha256-{'0123456789abcdef' * 4}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert json.loads(path.read_text())["schema"] == "deephpc.module/3"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_cache_for_the_group_stays_one(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o2775)
    write_description(cache, DIGEST, DESCRIPTION)
    assert stat.S_IMODE((cache / "modules").stat().st_mode) == 0o2775


def test_nothing_is_known_of_an_image_that_was_not_asked(tmp_path: Path) -> None:
    assert load_description(tmp_path, DIGEST) is None


@pytest.mark.parametrize("schema", ["deephpc.module/1", "deephpc.module/2"])
def test_what_an_older_version_kept_is_asked_again(tmp_path: Path, schema: str) -> None:
    """Version 1 has no types of our own, and version 2 may tell no passwords."""
    write_description(tmp_path, DIGEST, DESCRIPTION)
    path = description_path(tmp_path, DIGEST)
    path.write_text(path.read_text().replace("deephpc.module/3", schema))
    assert load_description(tmp_path, DIGEST) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"models": 5}', "[" * 100_000])
def test_a_broken_copy_is_none(tmp_path: Path, text: str) -> None:
    path = description_path(tmp_path, DIGEST)
    path.parent.mkdir()
    path.write_text(text)
    assert load_description(tmp_path, DIGEST) is None


def test_what_a_newer_version_added_is_passed_over() -> None:
    train = {"exists": True, "new": 2, "arguments": [{"name": "x", "new": 3}]}
    text = json.dumps({"schema": "deephpc.module/3", "new": 1, "train": train})
    assert parse_description(text).train == Method(exists=True, arguments=(Argument(name="x"),))


def test_what_the_program_in_the_image_writes_is_understood() -> None:
    """As `jobscripts/deepaas_module.py describe` writes it."""

    class Whole:
        """A field, known by the name of its class alone."""

        required = False
        load_default = 15
        metadata: ClassVar[dict[str, object]] = {"description": "Passes", "enum": [5, 15]}

    class Range:
        min, max = 1, None

    Whole.__name__ = "Integer"
    field = Whole()
    field.validators = [Range()]  # type: ignore[attr-defined]
    described = deepaas_arguments().describe_arguments({"epochs": field})
    text = json.dumps(
        {
            "schema": "deephpc.module/3",
            "deepaas": "2.6.0",
            "python": "3.11.2",
            "models": ["leaves"],
            "served": "leaves",
            "error": None,
            "metadata": {"name": "leaves"},
            "train": {"exists": True, "arguments": described},
            "predict": {"exists": False, "arguments": []},
        }
    )
    (epochs,) = parse_description(text).train.arguments
    assert (epochs.type, epochs.default, epochs.choices, epochs.min, epochs.max) == ("int", 15, (5, 15), 1, None)
    failed = {"schema": "deephpc.module/3", "error": {"message": "no module", "traceback": None}}
    failure = parse_description(json.dumps(failed)).error
    assert failure is not None
    assert failure.message == "no module"


@pytest.mark.parametrize(
    ("written", "read"),
    [("Integer", "int"), ("string", "str"), ("Boolean", "bool"), ("array", "list"), ("file", "file"), ("UUID", "uuid")],
)
def test_types_have_one_name_and_unknown_ones_stay(written: str, read: str) -> None:
    assert Argument(name="x", type=written).type == read


def test_a_digest_that_is_none_makes_no_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the digest"):
        description_path(tmp_path, "sha256:../../x")


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "modules").write_text("a file")
    with pytest.raises(SiteError, match="cannot write"):
        write_description(tmp_path, DIGEST, DESCRIPTION)
