"""The real command, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.catalogue.samples import V2, Mirror, served


class Command:
    """`deephpc` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.code = "from deephpc.cli import main; main()"
        self.environ = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }

    def run(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-c", self.code, *words]
        done = subprocess.run(
            argv, env=self.environ, cwd=self.home, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture
def deephpc(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_a_first_search_loads_nothing_for_networks_nor_anything_else_that_takes_time(deephpc: Command) -> None:
    deephpc.code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); " + deephpc.code
    done = deephpc.run("catalogue", "search", "plankton")
    assert "phyto-plankton-classification" in done.stdout
    loaded = set(done.stderr.split())
    assert "deephpc.catalogue.search" in loaded
    assert not loaded & {"aiohttp", "asyncio", "cryptography", "httpx", "jinja2", "paramiko", "ssl", "urllib.request"}


def test_json_answers_carry_their_schema(deephpc: Command) -> None:
    for words, schema in (
        (("catalogue", "list", "--trainable"), "deephpc.catalogue/1"),
        (("catalogue", "search", "bird"), "deephpc.catalogue/1"),
        (("catalogue", "show", "dogs-breed-detector"), "deephpc.module/1"),
        (("catalogue", "sources"), "deephpc.catalogue-sources/1"),
    ):
        answer = json.loads(deephpc.run("--json", *words).stdout)
        assert answer["schema"] == schema


def test_show_names_image_licence_and_links(deephpc: Command) -> None:
    page = deephpc.run("catalogue", "show", "dogs-breed-detector").stdout
    assert "ai4oshub/dogs-breed-detector" in page
    assert "licence" in page
    assert "https://github.com/ai4os-hub/dogs-breed-detector" in page


def test_validate_prints_file_and_line_and_exits_with_2(deephpc: Command) -> None:
    (deephpc.home / "bad.yml").write_text(V2.replace("PyTorch", "Torch"))
    (deephpc.home / "good.yml").write_text(V2)
    done = deephpc.run("catalogue", "validate", "bad.yml", code=2)
    assert done.stdout.startswith("bad.yml:20: error: libraries.0: 'Torch' is none of:")
    assert "good.yml: valid by version 2 of the schema" in deephpc.run("catalogue", "validate", "good.yml").stdout
    deephpc.run("catalogue", "validate", "missing.yml", code=2)


def test_colleagues_find_what_was_published(deephpc: Command, tmp_path: Path) -> None:
    (deephpc.home / "group").mkdir()
    (deephpc.home / "leaf-counter").mkdir()
    (deephpc.home / "leaf-counter" / "ai4-metadata.yml").write_text(V2)
    deephpc.run("catalogue", "add", "group", "group")
    assert "would write" in deephpc.run("catalogue", "publish", "leaf-counter", "--dry-run").stdout
    deephpc.run("catalogue", "publish", "leaf-counter")
    deephpc.run("catalogue", "update", "group")
    assert "leaf-counter" in deephpc.run("catalogue", "search", "leaves").stdout
    deephpc.run("catalogue", "remove", "group")
    assert "leaf-counter" not in deephpc.run("catalogue", "search", "leaves", "tree").stdout
    assert (deephpc.home / "group" / "leaf-counter" / "ai4-metadata.yml").exists()


def test_an_update_tells_what_it_could_not_reach(deephpc: Command) -> None:
    index = "- module: https://github.com/o/leaves\n- module: https://github.com/o/gone\n"
    with served(Mirror({"/MODULES.yml": index, "/leaves/ai4-metadata.yml": V2})) as mirror:
        deephpc.run(
            "catalogue", "add", "web", f"{mirror.url}/MODULES.yml", "--files", f"{mirror.url}/{{name}}/{{file}}"
        )
        answer = deephpc.run("catalogue", "update", "web").stdout
        assert answer.splitlines()[0] == "web: 2 modules, 1 not reached"
        assert "gone: https://github.com/o/gone has no ai4-metadata.yml" in answer
    failed = deephpc.run("catalogue", "update", "web", code=5)
    assert "its copy is new" in failed.stdout
    assert "not reached: web" in failed.stderr


def test_mistakes_are_answered_with_the_next_step(deephpc: Command) -> None:
    assert "did you mean" in deephpc.run("catalogue", "show", "dogs-bred-detector", code=2).stderr
    assert "no word to search for" in deephpc.run("catalogue", "search", "!!!", code=2).stderr
    assert "no word to search for" in deephpc.run("catalogue", "search", code=2).stderr
    for words in (("--trainable",), ("--library", "PyTorch"), ("--trainable", "--tag", "docker")):
        listed, found = (deephpc.run("--json", "catalogue", verb, *words).stdout for verb in ("list", "search"))
        assert (found, '"modules": []' in found) == (listed, False)
    assert "there are: " in deephpc.run("catalogue", "remove", "xyz", code=2).stderr
