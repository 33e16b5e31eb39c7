"""What was decided for an image reaches the node's shell exactly, whatever characters it has."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.container import check_path, parse_bind
from deephpc.containers.engine import ENGINES, engines_called
from deephpc.errors import InputError
from tests.fakes.samples import A_TENTH, a_container

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def read_back(facts: str, *names: str) -> list[str]:
    """Source facts in bash and return what the variables hold."""
    show = "".join(f'printf "%s\\0" "${{{name}}}";' for name in names)
    script = f"set -eu\n{facts}\n{show}"
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, check=True)
    return [word.decode() for word in done.stdout.split(b"\0")[:-1]]


@A_TENTH
@given(workdir=WORDS, environment=st.lists(WORDS, min_size=1, max_size=3), bind=WORDS)
def test_facts_read_back_as_they_were(workdir: str, environment: list[str], bind: str):
    container = a_container(workdir=workdir, environment=tuple(environment), binds=(bind,))
    facts = container.render_facts(Path("/runs/it's"), ("A", "B"))
    names = ["workdir", "asked_binds[0]", "run_folder", "variables[1]"]
    names += [f"image_environment[{number}]" for number in range(len(environment))]
    assert read_back(facts, *names) == [workdir, bind, "/runs/it's", "B", *environment]


def test_a_module_takes_its_driver_along(tmp_path: Path):
    assert "deepaas_*.py" in a_container(is_module=True).scripts
    assert "deepaas_*.py" not in a_container().scripts
    assert "udocker.sh" in a_container(engine="udocker-r").scripts


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/data", "/data:/data"),
        ("/data:ro", "/data:/data:ro"),
        ("/data:/in side:ro", "/data:/in side:ro"),
        ("data", "HERE/data:HERE/data"),
        ("data:/x:rw", "HERE/data:/x"),
    ],
)
def test_a_bind_is_read_as_apptainer_and_docker_write_it(tmp_path: Path, text: str, bind: str):
    (tmp_path / "data").mkdir()
    full = text.replace("/data", f"{tmp_path}/data", 1) if text.startswith("/data") else text
    expected = bind.replace("HERE", str(tmp_path)) if "HERE" in bind else bind.replace("/data", f"{tmp_path}/data")
    assert parse_bind(full, tmp_path) == expected


@pytest.mark.parametrize("text", ["", ":", "data:", ":/x", "data:x", "a:b:c:d", "data:/x\n", "missing", "data:/a,b"])
def test_any_other_bind_is_refused_by_its_value(tmp_path: Path, text: str):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="--bind") as caught:
        parse_bind(text, tmp_path)
    assert repr(text) in caught.value.message
    assert caught.value.hint


def test_a_path_with_a_colon_cannot_be_bound():
    with pytest.raises(InputError, match="cannot be bound"):
        check_path("/scratch/a:b", "the current folder")


def test_auto_prefers_apptainer_and_takes_proot_last():
    order = [engine.name for engine in engines_called("auto")]
    assert order[0] == "apptainer"
    assert order.index("udocker-r") < order.index("udocker-f") < order.index("udocker-p2")
    assert {engine.name for engine in engines_called("udocker")} == {name for name in ENGINES if "udocker" in name}
    assert all(engine.warning for engine in engines_called("auto") if "-p" in engine.name)


@pytest.mark.parametrize("inside", ["/", "/deephpc", "/deephpc/bin", "/etc/", "/proc", "//tmp", "/usr/../etc"])
def test_places_that_are_not_free_inside_cannot_be_bound(tmp_path: Path, inside: str):
    with pytest.raises(InputError, match="is not free"):
        parse_bind(f"{tmp_path}:{inside}", tmp_path)
