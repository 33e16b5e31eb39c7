"""The example modules: their metadata are valid, the small one passes its own tests (the other's run in its image)."""

import subprocess
from pathlib import Path

import pytest

from deephpc.catalogue.reading import MetadataFile, judge_file
from tests.deepaas_environment import ENVIRON, EXAMPLE, fetch_deepaas

EXAMPLES = (EXAMPLE, EXAMPLE.with_name("deepaas-digits-torch"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_metadata_of_an_example_are_valid(example: Path) -> None:
    verdict = judge_file(MetadataFile(name="ai4-metadata.yml", text=(example / "ai4-metadata.yml").read_text()))
    assert verdict.findings == ()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_carries_no_data_set(example: Path) -> None:
    large = [path for path in example.rglob("*") if path.suffix in (".gz", ".npz", ".npy", ".pt")]
    assert large == []


@pytest.mark.slow
def test_the_example_passes_its_own_tests(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    programs = fetch_deepaas(tmp_path_factory.getbasetemp())
    words = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "inner"]
    tests = subprocess.run(
        words, cwd=programs.parents[1] / "module", env=ENVIRON, capture_output=True, text=True, timeout=300, check=False
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed" in tests.stdout
