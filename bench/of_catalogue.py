"""A catalogue of 1000 modules: searching and listing it, against grep over its files and reading them with PyYAML."""

import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import yaml

from bench.row import Row, first_try, pairs_ms, wall_ms
from deephpc.catalogue.search import Filters
from deephpc.config import UserPlaces
from deephpc.workflows.catalogue import (
    list_catalogue,
    open_catalogue,
    search_catalogue,
    update_catalogue,
)

MODULES = 1000
_WORDS = ("plankton", "leaf", "bird", "galaxy", "cell", "road", "speech", "weather", "river", "bee")
_TASKS = ("Computer Vision", "Natural Language Processing", "Time Series", "Audio")


def measure() -> list[Row]:
    """Fill a catalogue and time the questions `deephpc catalogue` asks of it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = _fill(place / "modules")
        (place / "catalogue.toml").write_text(f'[sources.many]\nurl = "{place / "modules"}"\n', encoding="utf-8")
        places = UserPlaces(place / "config.toml", "built-in", place / "sites", place / "state")
        catalogue = open_catalogue(places, place / "cache")
        list(update_catalogue(catalogue, datetime.now(timezone.utc), ("many",)))
        none = Filters()
        build = wall_ms(lambda: list_catalogue(catalogue, none), 1)  # the first question makes the index
        parse = wall_ms(lambda: [_parse(file) for file in files], 1)
        found = len(list_catalogue(catalogue, none).modules)
        if found < MODULES:
            raise RuntimeError(f"{found} of {MODULES} modules are in the catalogue")
        grep = ["grep", "-ril", "plankton", str(place / "modules")]
        stumbled = first_try(grep)
        search, peer = pairs_ms(
            lambda: search_catalogue(catalogue, "plankton images", none),
            lambda: subprocess.run(grep, check=True, capture_output=True),
            15,
        )
        listed, read = pairs_ms(lambda: list_catalogue(catalogue, none), lambda: [f.read_bytes() for f in files], 9)
    what = f"catalogue of {MODULES} modules"
    return [
        Row(f"{what}: search", search, "grep -ril over its files", peer, stumbled=stumbled),
        Row(f"{what}: list all", listed, "reading its files", read),
        Row(f"{what}: first question after an update", build, "PyYAML over its files", parse),
    ]


def _parse(file: Path) -> object:
    return yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _fill(folder: Path) -> list[Path]:
    files = []
    for number in range(MODULES):
        word, task = _WORDS[number % len(_WORDS)], _TASKS[number % len(_TASKS)]
        file = folder / f"{word}-{number}" / "ai4-metadata.yml"
        file.parent.mkdir(parents=True)
        metadata = {
            "metadata_version": "2.0.0",
            "title": f"{word.title()} {number}",
            "summary": f"Looks at {word} images of kind {number}.",
            "description": f"It was trained on {number} pictures of a {word}. " * 8,
            "dates": {"created": "2024-01-31", "updated": "2024-02-01"},
            "links": {"source_code": f"https://github.com/someone/{word}-{number}"},
            "tags": [word, f"kind-{number % 50}"],
            "tasks": [task],
            "categories": ["AI4 trainable", "AI4 inference"],
            "libraries": ["PyTorch"],
        }
        file.write_text(yaml.safe_dump(metadata), encoding="utf-8")
        files.append(file)
    return files
