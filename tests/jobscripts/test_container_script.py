"""What container.sh does around a program, with a double in place of the engine."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deephpc.places import shipped
from deephpc.workflows.conversion import write_scripts
from tests.fakes.samples import a_container

#: Apptainer without an image: what is bound at /deephpc is used from where it lies. Calls and binds are noted.
ENGINE = """#!/bin/bash
while [ "$1" != /bin/sh ]; do
  case $1 in *:/deephpc) ours=${{1%:*}} ;; *:*) printf '%s\\n' "$1" ;; esac
  shift
done >"{place}/binds"
printf '%s\\n' "$3" >>"{place}/calls"
if [ "$3" = prepare ]; then
  {prepare}
fi
sed "s|/deephpc/|$ours/|g" "$ours/bin/inside.sh" >"$ours/inside.sh"
shift 2
exec env -i PATH=/usr/bin:/bin {shell} "$ours/inside.sh" "$@"
"""
SHELLS = [words for words in ("dash", "bash --posix", "busybox sh") if shutil.which(words.split()[0])]
MODULE_MODELS = "/srv/plants/models"
FINDS_MODELS = f'echo "models {MODULE_MODELS}" >"$ours/folders.list"; exit 0'


@dataclass
class Node:
    """A node, and the folder of a run."""

    place: Path

    def run(
        self, *words: str, prepare: str = "echo seen; exit 0", shell: str = "sh", **facts: object
    ) -> "subprocess.CompletedProcess[str]":
        """Run words in an image of these facts; `prepare` is what the look around inside does."""
        engine, run = self.place / "bin" / "apptainer", self.place / "run"
        for folder in (engine.parent, run, self.place / "private"):
            folder.mkdir()
        engine.write_text(ENGINE.format(place=self.place, prepare=prepare, shell=shell))
        engine.chmod(0o755)
        (self.place / "image.sif").touch()
        container = a_container(
            **{"prepared": self.place / "image.sif", "cache_dir": self.place, "workdir": str(self.place), **facts}
        )
        script = write_scripts(container, run / "container", run, ())
        environ = {
            "PATH": f"{engine.parent}:/usr/bin:/bin",
            "DEEPHPC_OUTPUT_DIR": str(run / "output"),
            "DEEPHPC_DATA_DIR": str(run / "data"),
        }
        return subprocess.run(
            ["/bin/bash", script, self.place / "private", *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return (self.place / "calls").read_text().splitlines()

    def seen(self, path: str) -> str:
        """Return what a program finds in a file of the image, whose links are followed as inside."""
        file = Path()
        for part in (*reversed(Path(path).parents), Path(path)):
            source, inside = self._bind_of(part)
            file = source / part.relative_to(inside)
            if part != inside and file.is_symlink():
                return self.seen(os.path.normpath(part.parent / file.readlink() / Path(path).relative_to(part)))
        return file.read_text()

    def _bind_of(self, path: Path) -> tuple[Path, Path]:
        """Return the bind that shows a path: the last one lies over the others; the image itself has nothing."""
        binds = [bind.removesuffix(":ro").split(":") for bind in (self.place / "binds").read_text().splitlines()]
        over = ((Path(source), Path(inside)) for source, inside in reversed(binds) if path.is_relative_to(inside))
        return next(over, (Path("/nothing"), Path("/")))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "names",
    [
        ("UID", "EUID", "PPID", "GROUPS"),
        ("SHELLOPTS", "BASHOPTS", "BASH_ENV", "BASH_FUNC_ml%%", "POSIXLY_CORRECT", "ENV"),
        ("IFS", "OPTIND", "FUNCNAME", "LINENO", "RANDOM", "SECONDS", "DIRSTACK", "_"),
        ("dashed-name", "dotted.name", "1st", "ö"),
        ("verb", "number", "name", "home", "path", "module", "private", "place", "here"),
    ],
)
def test_a_variable_of_an_image_reaches_its_program_whatever_its_name(
    node: Node, shell: str, names: tuple[str, ...]
) -> None:
    said = {name: f"the image's {name}: $(id)" for name in names}
    environment = tuple(f"{name}={value}" for name, value in said.items())
    done = node.run("cat", "/proc/self/environ", shell=shell, environment=environment)
    assert done.returncode == 0, done.stderr
    assert said.items() <= dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair).items()


@pytest.mark.parametrize(
    ("ends", "told", "looks"),
    [
        ("kill -KILL $$", "the job's memory was used up while the image was made ready", 1),
        ("exit 137", "the job's memory was used up while the image was made ready", 1),
        ("echo 'only 1 of 2 GPUs' >&2; exit 42", "only 1 of 2 GPUs", 1),
        ("echo 'FATAL: no loop devices' >&2; exit 125", "(it must have /bin/sh): FATAL: no loop devices", 3),
        ("exit 255", "(it must have /bin/sh): exit code 255", 3),
    ],
)
def test_what_ends_the_look_into_an_image_is_told_as_that(node: Node, ends: str, told: str, looks: int) -> None:
    done = node.run("true", prepare=ends, is_module=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr.splitlines()[-1]
    assert node.calls == ["prepare"] * looks  # with each layer that may work, where the image did not start


@pytest.mark.parametrize(
    ("shipped_data", "seen"),
    [
        ({"/srv/plants/data": "a.csv"}, {"/srv/plants/data/a.csv", "/opt/data/a.csv"}),
        ({"/opt/data": "b.csv"}, {"/srv/plants/data/b.csv", "/opt/data/b.csv"}),
        ({"/srv/plants/data": "a.csv", "/opt/data": "b.csv"}, {"/srv/plants/data/a.csv", "/opt/data/b.csv"}),
    ],
)
def test_each_data_folder_of_a_training_has_what_the_image_has_there(
    node: Node, shipped_data: dict[str, str], seen: set[str]
) -> None:
    lists = [f'[ "$(wc -l <"{node.place}/calls")" -gt 2 ] || exit 1']  # no layer works here
    for folder in ("/srv/plants/data", "/opt/data"):
        made = f'"$ours/folders{folder}"'
        lists += [f"mkdir -p {made}", f'echo "data {folder}" >>"$ours/folders.list"']
        if name := shipped_data.get(folder):
            lists.append(f"echo {folder} >{made}/{name}")
    done = node.run("true", prepare="\n".join([*lists, "exit 0"]), is_module=True, keeps_folders=True)
    assert done.returncode == 0, done.stderr
    for path in seen:
        assert node.seen(path).strip() in shipped_data


def test_what_a_module_named_when_it_was_asked_is_told_to_the_look_into_its_image(node: Node) -> None:
    named = ("models /opt/my weights", "data /opt/it's $(id)")
    prepare = f'shift 7; printf "%s\\n" "$@" >"{node.place}/named"; exit 0'
    done = node.run("true", prepare=prepare, is_module=True, module_folders=named)
    assert done.returncode == 0, done.stderr
    assert tuple((node.place / "named").read_text().splitlines()) == named


@pytest.mark.parametrize("facts", [{}, {"is_module": True, "models": None}])
def test_the_look_into_an_image_sees_its_own_tmp_and_the_program_that_of_the_job(
    node: Node, facts: dict[str, object]
) -> None:
    done = node.run("true", prepare=f'cp "{node.place}/binds" "{node.place}/looked"; exit 0', **facts)
    assert done.returncode == 0, done.stderr
    looked, ran = ((node.place / name).read_text().splitlines() for name in ("looked", "binds"))
    tmp, var_tmp = f"{node.place}/private/tmp", f"{node.place}/private/var_tmp"
    assert looked[-2:] == [f"{tmp}:/deephpc/tmp", f"{var_tmp}:/deephpc/var_tmp"]
    assert not [bind for bind in looked if bind.endswith((":/tmp", ":/var/tmp"))]
    assert {f"{tmp}:/tmp", f"{var_tmp}:/var/tmp"} <= set(ran) or facts
    assert not [bind for bind in ran if bind.endswith(("/deephpc/tmp", "/deephpc/var_tmp"))]


@pytest.mark.parametrize("large", ["", "300 /tmp\n", "65 /tmp\n4096 /var/tmp\n"])
def test_what_is_too_large_in_the_tmp_of_an_image_is_said_once_each(node: Node, large: str) -> None:
    done = node.run("true", prepare=f'printf "{large}" >"$ours/large.list"; echo seen; exit 0')
    said = [line for line in done.stderr.splitlines() if "MiB in its" in line]
    assert said == [
        f"deephpc: the image has {size} MiB in its {folder}, and a job gets a copy of up to 64 MiB: its {folder} is "
        f"empty; add what the program needs with --bind FILE:{folder}/NAME"
        for size, folder in (line.split() for line in large.splitlines())
    ]


@pytest.mark.parametrize("more", [0, 101])
def test_the_models_of_a_run_are_all_seen_and_none_can_be_written(node: Node, more: int) -> None:
    models, elsewhere = node.place / "the models", node.place / "elsewhere"
    names = ["best.pt", "2026-11-30T10:00/best.pt", "a,b.pt", ".hidden", *(f"{n}.pt" for n in range(more))]
    for file in (*(models / name for name in names), elsewhere / "blob", elsewhere / "folder/blob"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    links = {"latest.pt": "best.pt", "linked.pt": "../elsewhere/blob", "linked": "../elsewhere/folder"}
    for name, target in links.items():
        (models / name).symlink_to(target)
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in models.rglob("*"))
    done = node.run("true", prepare=FINDS_MODELS, is_module=True, models=models)
    assert done.returncode == 0, done.stderr
    for name in (*names, "latest.pt", "linked.pt", "linked/blob"):
        assert node.seen(f"{MODULE_MODELS}/{name}") == (models / name).read_text()
    binds = (node.place / "binds").read_text().splitlines()
    assert [bind for bind in binds if bind.startswith((str(models), str(elsewhere))) and not bind.endswith(":ro")] == []
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in models.rglob("*")) == before


def test_what_is_bound_below_the_models_of_a_run_is_seen_there(node: Node) -> None:
    for file in (node.place / "models/best.pt", node.place / "pretrained/base.pt"):
        file.parent.mkdir()
        file.write_text(file.name)
    binds = (f"{node.place}/pretrained:{MODULE_MODELS}/pretrained",)
    done = node.run("true", prepare=FINDS_MODELS, is_module=True, models=node.place / "models", binds=binds)
    assert done.returncode == 0, done.stderr
    assert node.seen(f"{MODULE_MODELS}/pretrained/base.pt") == "base.pt"
    assert node.seen(f"{MODULE_MODELS}/best.pt") == "best.pt"


@pytest.mark.parametrize(
    ("logs", "told"),
    [
        ({}, ""),
        ({"engine.a": ""}, ""),
        ({"engine.a": "one\ntwo\nproot error: ü\n"}, "deephpc: two\ndeephpc: proot error: ü\n"),
        ({"engine.a": "proot error: a\n", "engine.b": "", "engine.c": "c"}, "deephpc: proot error: a\ndeephpc: c"),
    ],
)
def test_what_proot_said_of_itself_is_told_where_a_program_failed(tmp_path: Path, logs: dict[str, str], told: str):
    for name, text in logs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "proot.log").write_text(text)
    words = ["bash", "-uc", '. "$1" && proot_said "$2"', "bash", shipped("jobscripts") / "proot_said.sh", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr.rstrip("\n")) == ("", told.rstrip("\n"))


@pytest.mark.parametrize(
    ("kept", "draft", "is_replaced"), [(None, [], True), ([], [], False), ([], ["a"], True), (["b"], ["a"], False)]
)
def test_a_folder_that_another_node_may_be_binding_gives_way_only_to_content(
    tmp_path: Path, kept: list[str] | None, draft: list[str], is_replaced: bool
):
    """The whole function as it stands in the script: what is bound must not vanish while a container is made."""
    function = re.search(r"^keep_folder\(\) .*?^}", (shipped("jobscripts") / "container.sh").read_text(), re.M | re.S)
    assert function is not None
    for folder, names in (("draft", draft), ("kept", kept)):
        if names is not None:
            (tmp_path / folder).mkdir()
        for name in names or ():
            (tmp_path / folder / name).touch()
    before = (tmp_path / "kept").stat().st_ino if kept is not None else None
    script = f"fail() {{ exit 1; }}\n{function[0]}\nkeep_folder draft kept"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert ((tmp_path / "kept").stat().st_ino != before) is is_replaced
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == (draft if is_replaced else kept)
    assert not (tmp_path / "draft").exists()
