"""udocker's engines: the repository made once, and what `udocker.sh` starts, with doubles of the engines on PATH."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deephpc.containers.engine import ENGINES
from deephpc.containers.manifest import Descriptor
from deephpc.containers.store import Store
from deephpc.containers.udocker import container_name, prepare, remove, root_path
from deephpc.errors import EngineError, SiteError
from deephpc.lock import hold
from deephpc.places import shipped
from tests.containers.colleagues import closed, ordinary_user, umask
from tests.containers.trees import file, folder, link, store_image

SCRIPTS = shipped("jobscripts")
DIGEST = "sha256:" + "ab12" * 16
NODE_PROGRAMS = (
    "awk", "cat", "chmod", "cp", "env", "find", "getconf", "grep", "head", "id", "ldd", "ln", "mkdir", "mktemp", "nice",
    "readlink", "rm", "sed", "sh", "tail", "timeout", "tr", "uname", "unshare",
)  # fmt: skip
SAYS_ALL = r"""#!/bin/bash
printf '%s\0' "$@" >"$0.argv"
env -0 >"$0.env"
exit 9
"""
#: Shows the first line of what is bound over /etc/passwd, as it is asked to before the program, then does as above.
PROOT = r"""#!/bin/bash
for word; do
  case $word in
    *:/etc/passwd) passwd=${word%%:*} ;;
    'read -r line'*) [ -n "${PROOT_NO_SECCOMP:-}${WORKS:-}" ] && head -n 1 "$passwd"; exit ;;
  esac
done
""" + SAYS_ALL.removeprefix("#!/bin/bash\n")


# --- the repository -------------------------------------------------------------------------------------------------


def test_an_image_becomes_a_repository_that_udocker_knows(tmp_path: Path) -> None:
    image = store_image(tmp_path / "store", [file("bin/sh", b"#!", mode=0o755), file("gone")], [file(".wh.gone")])
    path = ENGINES["udocker-r"].prepared_path(tmp_path / "cache", image.digest)
    prepare(image, path, "udocker-r")
    root = root_path(path, image.digest)
    assert sorted(each.name for each in root.iterdir()) == ["bin"]
    assert json.loads((root.parent / "container.json").read_text())["config"] == {"Env": ["PATH=/bin"]}
    udocker = Path(sys.prefix) / "bin" / "udocker"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UDOCKER_TARBALL": "", "UDOCKER_DIR": str(path)}
    listed = subprocess.run(
        [udocker, "--allow-root", "ps"], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert container_name(image.digest) in listed.stdout


def test_the_engine_of_relative_links_has_its_own(tmp_path: Path) -> None:
    image = store_image(tmp_path / "store", [link("etc/alternatives/awk", "/usr/bin/mawk")])
    for engine, target in (("udocker-r", "/usr/bin/mawk"), ("udocker-f", "../../usr/bin/mawk")):
        prepare(image, tmp_path / engine, engine)
        assert str((root_path(tmp_path / engine, image.digest) / "etc/alternatives/awk").readlink()) == target


@pytest.mark.parametrize("broken", ["outside", "digest", "count", "bytes"])
def test_of_a_broken_image_nothing_is_kept(tmp_path: Path, broken: str) -> None:
    second = [file("../evil")] if broken == "outside" else [file("b")]
    diff_ids = {"digest": [f"sha256:{'0' * 64}"] * 2, "count": []}.get(broken)
    image = store_image(tmp_path / "store", [file("a", b"x" * 4000)], second, diff_ids=diff_ids)
    if broken == "bytes":
        content = bytearray(image.layers[0].read_bytes())
        content[len(content) // 2] ^= 1
        image.layers[0].write_bytes(content)
    with pytest.raises(EngineError) as caught:
        prepare(image, tmp_path / "cache" / "x", "udocker-r")
    assert caught.value.exit_code == 4
    assert list((tmp_path / "cache").iterdir()) == []


def test_many_at_once_make_one_and_clear_away_what_a_dead_one_left(tmp_path: Path) -> None:
    image = store_image(tmp_path / "store", [file(f"d{number}/x") for number in range(50)])
    path = tmp_path / "cache" / "x"
    (tmp_path / "cache" / ".x.half" / "containers").mkdir(parents=True)
    threads = [threading.Thread(target=prepare, args=(image, path, "udocker-r")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["x"]
    assert len(list(root_path(path, image.digest).iterdir())) == 50


def test_one_that_is_there_is_neither_locked_nor_touched(tmp_path: Path) -> None:
    image = store_image(tmp_path / "store", [file("a")])
    path = tmp_path / "x"
    prepare(image, path, "udocker-r")
    inode = path.stat().st_ino
    with hold(tmp_path / "x.lock", timeout_s=5):
        prepare(image, path, "udocker-r")
    assert path.stat().st_ino == inode
    remove(path)
    remove(path)
    assert [each.name for each in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("mode", [0o2775, 0o755, 0o700])
def test_a_repository_is_for_whom_the_images_are_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    image = store_image(tmp_path / "cache" / "images", [file("bin/sh", b"#!", mode=0o700)])
    (tmp_path / "cache" / "images").chmod(mode)
    path = ENGINES["udocker-r"].prepared_path(tmp_path / "cache", image.digest)
    with umask(0o077):
        prepare(image, path, "udocker-r")
    root = root_path(path, image.digest)
    assert [each.stat().st_mode & 0o7777 for each in (path.parent, path, root.parent)] == [mode] * 3
    assert [each.stat().st_mode & 0o777 for each in (root, root / "bin/sh")] == [0o555, 0o555]
    assert (root.parent / "container.json").stat().st_mode & 0o777 == 0o644


def test_a_folder_one_may_not_enter_is_an_error_of_the_site(tmp_path: Path) -> None:
    image = store_image(tmp_path / "images", [file("a")])
    (tmp_path / "udocker").mkdir()
    with (
        ordinary_user(tmp_path) as here,
        closed(here / "udocker"),
        pytest.raises(SiteError, match="udocker: no permission"),
    ):
        prepare(image, here / "udocker" / "x", "udocker-r")


# --- udocker.sh -----------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """A node with chosen programs, an image, and the job's private folder; nothing of this machine's PATH."""

    place: Path
    facts: dict[str, str] = field(default_factory=dict)
    binds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.place / "bin").mkdir()
        for name in NODE_PROGRAMS:
            found = shutil.which(name)
            if found:
                (self.place / "bin" / name).symlink_to(found)
        for name in ("tmp", "var_tmp", "home", "deephpc/bin"):
            (self.private / name).mkdir(parents=True)
        self.root = root_path(self.place / "prepared", DIGEST)
        for name in ("usr/bin", "etc", "srv/module", "proc", "dev", "sys", "tmp"):
            (self.root / name).mkdir(parents=True)
        (self.root / "bin").symlink_to("usr/bin")
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (self.root / "etc/resolv.conf").symlink_to("/run/resolv.conf")

    @property
    def private(self) -> Path:
        return self.place / "private"

    def program(self, name: str, body: str = SAYS_ALL, folder: Path | None = None) -> Path:
        path = (folder or self.place / "bin") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
        path.chmod(0o755)
        return path

    def run(
        self, engine: str, *words: str, call: str = "engine_exec", **environ: str
    ) -> "subprocess.CompletedProcess[str]":
        facts = {
            "engine": engine, "engine_command": "/nowhere/bin/udocker", "image_digest": DIGEST, "gpu": "",
            "prepared": str(self.place / "prepared"), "private": str(self.private), "store_root": "/nowhere",
            **self.facts,
        }  # fmt: skip
        lines = [f"{name}={shlex.quote(value)}" for name, value in facts.items()]
        script = f"""
            set -u
            fail() {{ printf 'deephpc: %s\\n' "$1" >&2; exit 1; }}
            note() {{ printf 'note: %s\\n' "$1" >&2; }}
            {"; ".join(lines)}
            binds=({shlex.join(self.binds)})
            . {shlex.quote(str(SCRIPTS / "udocker.sh"))}
            {call} "$@"
        """
        environment = {"PATH": str(self.place / "bin"), "HOME": str(self.place / "home"), "SECRET": "s3cret", **environ}
        bash = shutil.which("bash") or "/bin/bash"
        return subprocess.run(
            [bash, "-c", script, "job", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def bundle(self) -> dict[str, Any]:
        (path,) = self.private.glob("engine.*/config.json")
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        return content


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def said(program: Path) -> list[str]:
    return Path(f"{program}.argv").read_text(errors="surrogateescape").split("\0")[:-1]


def environ_of(program: Path) -> dict[str, str]:
    pairs = Path(f"{program}.env").read_text().split("\0")[:-1]
    return dict(pair.partition("=")[::2] for pair in pairs)


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("udocker-p2", "udocker-p2 needs proot, which is not on "),
        ("udocker-r", "udocker-r needs crun or runc, which are not on "),
        ("udocker-s", "udocker-s needs apptainer or singularity, which are not on "),
        ("udocker-f", "udocker-f needs libfakechroot.so, "),
        ("udocker-x", "udocker-x is no engine of udocker's"),
    ],
)
def test_an_engine_that_is_not_there_is_named(node: Node, engine: str, reason: str) -> None:
    if engine == "udocker-f":
        node.facts["image_digest"] = "sha256:" + "0" * 64
    done = node.run(engine, "true", **({"UDOCKER_LIB": "/nowhere"} if engine == "udocker-f" else {}))
    if engine == "udocker-f" and reason not in done.stderr:
        reason = "udocker-f runs glibc images alone"  # this machine has Debian's fakechroot
    assert done.returncode == 1
    assert reason in done.stderr


def test_udockers_own_files_come_before_the_nodes_and_its_variables_before_both(node: Node) -> None:
    on_path = node.program("crun")
    machine = os.uname().machine.replace("aarch64", "arm64")
    own = node.program(f"crun-{machine}", folder=node.place / "home/.udocker/bin")
    named = node.program("my-crun", folder=node.place / "else")
    assert node.run("udocker-r", "true", UDOCKER_USE_RUNC_EXECUTABLE=str(named)).returncode == 9
    assert Path(f"{named}.argv").exists()
    assert not Path(f"{own}.argv").exists()
    assert node.run("udocker-r", "true").returncode == 9
    assert Path(f"{own}.argv").exists()
    assert not Path(f"{on_path}.argv").exists()
    shutil.rmtree(node.place / "home")
    assert node.run("udocker-r", "true").returncode == 9
    assert Path(f"{on_path}.argv").exists()


def test_proot_is_given_binds_and_words_as_they_are_and_no_environment(node: Node) -> None:
    proot = node.program("proot", PROOT)
    node.binds = [f"{node.place}/a b:/srv/ü x:ro"]
    done = node.run("udocker-p2", "/bin/echo", "", "a  b", "$x", "'", "é")
    assert done.returncode == 9, done.stderr
    words = said(proot)
    assert words[words.index("-r") + 1] == str(node.root)
    assert f"{node.place}/a b:/srv/ü x" in words
    assert words[-6:] == ["/bin/echo", "", "a  b", "$x", "'", "é"]
    environ = environ_of(proot)
    assert environ["PROOT_NO_SECCOMP"] == "1"
    assert "SECRET" not in environ


def test_proot_with_seccomp_goes_on_without_where_that_does_not_hold(node: Node) -> None:
    proot = node.program("proot", PROOT)
    done = node.run("udocker-p1", "true")
    assert (done.returncode, "going on without (P2)" in done.stderr) == (9, True)
    assert "PROOT_NO_SECCOMP" in environ_of(proot)
    node.program("proot", PROOT.replace("${WORKS:-}", "works"))
    done = node.run("udocker-p1", "true")
    assert (done.returncode, done.stderr) == (9, "")
    assert "PROOT_NO_SECCOMP" not in environ_of(proot)


def test_a_proot_that_cannot_start_the_image_says_why(node: Node) -> None:
    node.program("proot", "#!/bin/sh\necho 'proot error: ptrace(TRACEME): Operation not permitted' >&2\nexit 1\n")
    done = node.run("udocker-p2", "true")
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr


def test_crun_gets_the_image_read_only_and_a_place_for_every_bind(node: Node) -> None:
    crun = node.program("crun")
    source = node.place / 'a "b"\\'
    source.mkdir()
    node.binds = [f"{source}:/srv/new/de ep", f"{node.place}/bin:/usr/bin:ro", f"{source}:/srv/module"]
    before = sorted(str(path) for path in node.root.rglob("*"))
    assert node.run("udocker-r", "true").returncode == 9
    bundle = node.bundle()
    root = Path(bundle["root"]["path"])
    mounts = {mount["destination"]: (mount["source"], "ro" in mount["options"]) for mount in bundle["mounts"]}
    assert bundle["root"]["readonly"] is True
    assert mounts["/usr"] == (str(node.root / "usr"), True)
    assert mounts["/srv/new/de ep"] == (str(source), False)
    assert mounts["/srv/module"] == (str(source), False)
    assert mounts["/usr/bin"] == (f"{node.place}/bin", True)
    assert (root / "srv/new/de ep").is_dir()
    assert (root / "srv/module").is_dir()
    assert str((root / "bin").readlink()) == "usr/bin"
    assert (root / "run/resolv.conf").is_file(), "where the image's own link for it leads"
    assert sorted(str(path) for path in node.root.rglob("*")) == before
    assert "SECRET" not in environ_of(crun)
    assert [each["type"] for each in bundle["linux"]["namespaces"]] == ["user", "mount"]
    assert "secret" not in " ".join(said(crun))


def test_runc_which_knows_only_root_inside_gets_it(node: Node) -> None:
    node.program("runc")
    assert node.run("udocker-r", "true").returncode == 9
    bundle = node.bundle()
    assert bundle["process"]["user"] == {"uid": 0, "gid": 0}
    assert bundle["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.getuid(), "size": 1}]


_WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=8)


@given(words=_WORDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_of_any_characters_reach_the_program_in_a_bundle(node: Node, words: list[str]) -> None:
    node.program("crun")
    for old in node.private.glob("engine.*"):
        shutil.rmtree(old)
    assert node.run("udocker-r", *words).returncode == 9
    (script,) = node.private.glob("engine.*/words.sh")
    assert oct(script.stat().st_mode & 0o777) == "0o600"
    body = script.read_bytes().decode().replace("exec", "printf '%s\\0'", 1)
    shown = subprocess.run(["/bin/sh", "-c", body], capture_output=True, timeout=300, check=True)
    assert shown.stdout.decode().split("\0")[:-1] == words


@given(texts=_WORDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_of_any_characters_are_json(node: Node, texts: list[str]) -> None:
    printing = 'each() { for text; do json "$text"; printf "%s\\n" "$REPLY"; done; }; each'
    done = node.run("udocker-r", *texts, call=printing, LC_ALL="C.UTF-8")
    assert [json.loads(line) for line in done.stdout.split("\n")[:-1]] == texts


def test_apptainer_runs_the_tree_clean_and_read_only(node: Node) -> None:
    apptainer = node.program("apptainer")
    node.facts["gpu"] = "nvidia"
    node.binds = ["/a b:/c:ro"]
    assert node.run("udocker-s", "w").returncode == 9
    words = said(apptainer)
    assert words[-2:] == [str(node.root), "w"]
    assert {"--cleanenv", "--no-home", "--nv", "/a b:/c:ro"} <= set(words)
    assert "--writable" not in words


def driver(node: Node, number: str) -> Path:
    """A driver's libraries and the programs that tell of them, as doubles."""
    libraries = node.place / f"driver-{number}"
    libraries.mkdir()
    names = ["libcuda.so.1", "libcuda.so", "libnvidia-ml.so.1", "libnvidia-glcore.so.5", "libc.so.6"]
    for name in names:
        (libraries / name).write_text(number)
    lines = "".join(f"\t{name} (libc6,x86-64) => {libraries}/{name}\n" for name in names)
    lines = lines.replace("(libc6,x86-64)", "(libc6,x86-64, OS ABI: Linux 2.3.99)", 1)
    lines += f"\tlibcuda.so.1 (libc6) => {libraries}/libcuda.so.32\n"
    (node.place / "ld.cache").write_text(f"9 libs found in cache `/etc/ld.so.cache'\n{lines}")
    node.program("ldconfig", f"#!/bin/sh\ncat '{node.place}/ld.cache'\n")
    node.program("nvidia-smi", "#!/bin/sh\n")
    return libraries


def test_each_job_sees_the_driver_of_its_node_and_the_image_stays_as_it_is(node: Node) -> None:
    crun = node.program("crun")
    node.facts["gpu"] = "nvidia"
    before = sorted(str(path) for path in node.root.rglob("*"))
    for number in ("550.1", "570.2"):
        libraries = driver(node, number)
        node.facts["private"] = str(node.place / f"private-{number}")
        shutil.copytree(node.private, node.facts["private"])
        assert node.run("udocker-r", "w").returncode == 9
        (path,) = Path(node.facts["private"]).glob("engine.*/config.json")
        bundle = json.loads(path.read_text())
        mounts = {mount["destination"]: mount["source"] for mount in bundle["mounts"]}
        bound = {name: source for name, source in mounts.items() if name.startswith("/deephpc/nvidia/lib/")}
        assert bound == {
            f"/deephpc/nvidia/lib/{name}": f"{libraries}/{name}"
            for name in ("libcuda.so.1", "libcuda.so", "libnvidia-ml.so.1")
        }
        assert mounts["/deephpc/nvidia/bin/nvidia-smi"] == f"{node.place}/bin/nvidia-smi"
        assert "LD_LIBRARY_PATH=/deephpc/nvidia/lib" in bundle["process"]["env"]
    assert sorted(str(path) for path in node.root.rglob("*")) == before
    assert Path(f"{crun}.argv").exists()


def test_a_driver_that_only_a_module_shows_is_found_and_a_stub_is_not(node: Node) -> None:
    node.program("ldconfig", "#!/bin/sh\n")
    proot = node.program("proot", PROOT.replace("exit 9", "exit 0"))
    node.facts["gpu"] = "nvidia"
    stubs, real = node.place / "stubs", node.place / "real"
    for place, name in ((stubs, "libcuda.so"), (real, "libcuda.so.1")):
        place.mkdir()
        (place / name).write_text("")
    done = node.run("udocker-p2", "w", LD_LIBRARY_PATH=str(stubs))
    assert "no NVIDIA driver library (libcuda.so.1)" in done.stderr
    shutil.rmtree(node.private / "deephpc/nvidia")
    done = node.run("udocker-p2", "w", LD_LIBRARY_PATH=f"{stubs}:{real}")
    assert done.stderr == ""
    assert f"{real}/libcuda.so.1:/deephpc/nvidia/lib/libcuda.so.1" in said(proot)


def fakechroot(node: Node) -> tuple[Path, Path]:
    """Put what fakechroot needs where it is looked for: the image's loader, and the library."""
    machine = os.uname().machine
    name = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}[machine]
    node.program("sh", folder=node.root / "usr/bin")
    loader = node.program(Path(name).name, folder=node.root / Path(name).parent)
    return loader, node.program("libfakechroot.so", folder=node.place / "lib")


def test_under_fakechroot_the_code_of_a_module_really_lies_beside_what_is_bound_for_it(node: Node) -> None:
    loader, library = fakechroot(node)
    home, code = node.root / "srv/a module", node.root / "srv/a module/package"
    for place in (home / "models", code / "deep", home / "data"):
        place.mkdir(parents=True)
    for path in (
        home / "set up.py",
        home / "LICENSE",
        home / "models/x.py",
        code / "api.py",
        code / "deep/weights.bin",
    ):
        path.write_text(path.name)
    code.chmod(0o555)
    (node.private / "deephpc").mkdir(exist_ok=True)
    (node.private / "deephpc/folders.list").write_text("data /srv/a module/data\nmodels /srv/a module/models\n")
    (node.place / "models").mkdir()
    node.binds = [f"{node.private}/deephpc:/deephpc", f"{node.place}/models:/srv/a module/models"]
    done = node.run("udocker-f", "w", UDOCKER_FAKECHROOT_SO=str(library))
    assert done.returncode == 9, done.stderr
    base = Path(environ_of(loader)["FAKECHROOT_BASE"]) / "srv/a module"
    for name in ("set up.py", "package/api.py"):
        assert (base / name).resolve() == base / name
        assert (base / name).read_text() == Path(name).name
    for name in ("LICENSE", "package/deep/weights.bin"):
        assert (base / name).resolve() == home / name
    assert (base / "models").readlink() == node.place / "models"
    assert not list((node.place / "models").iterdir())


@pytest.mark.parametrize(
    ("weights", "beside", "is_copied"),
    [
        ("/opt/weights", "/opt/conda", False),
        ("/usr/local/weights", "/usr/local/lib", False),
        ("/opt/leaves/weights", "/opt/leaves/code", True),
        ("/usr/src/app/weights", "/usr/src/app/code", True),
    ],
)
def test_fakechroot_copies_what_lies_beside_models_only_where_that_is_a_modules_own(
    node: Node, weights: str, beside: str, is_copied: bool
) -> None:
    _, library = fakechroot(node)
    for place in (weights, beside):
        (node.root / place[1:]).mkdir(parents=True, exist_ok=True)
    (node.root / beside[1:] / "code.py").write_text("code")
    (node.private / "deephpc").mkdir(exist_ok=True)
    (node.private / "deephpc/folders.list").write_text(f"models {weights}\n")
    (node.place / "models").mkdir()
    node.binds = [f"{node.private}/deephpc:/deephpc", f"{node.place}/models:{weights}"]
    done = node.run("udocker-f", "w", UDOCKER_FAKECHROOT_SO=str(library))
    assert done.returncode == 9, done.stderr
    [base] = node.private.glob("engine.*/root")
    assert (base / weights[1:]).readlink() == node.place / "models"
    assert (base / beside[1:]).is_symlink() is not is_copied


def test_fakechroot_gets_a_root_of_links_and_the_libraries_of_the_image(node: Node) -> None:
    loader, library = fakechroot(node)
    driver(node, "550.1")
    node.facts["gpu"] = "nvidia"
    node.binds = [
        f"{node.private}/deephpc:/deephpc",
        f"{node.private}/home:/deephpc/home",
        f"{node.place}/lib:/srv/module",
    ]
    done = node.run("udocker-f", "w", "", UDOCKER_FAKECHROOT_SO=str(library))
    assert done.returncode == 9, done.stderr
    environ = environ_of(loader)
    base = Path(environ["FAKECHROOT_BASE"])
    assert (base / "usr").readlink() == node.root / "usr"
    assert (base / "srv/module").readlink() == node.place / "lib"
    assert (base / "deephpc/home").resolve() == node.private / "home"
    assert str((base / "bin").readlink()) == "usr/bin"
    assert environ["LD_PRELOAD"] == str(library)
    assert environ["LD_LIBRARY_PATH"].startswith(f"{node.private}/deephpc/nvidia/lib:{node.root}/")
    assert (node.private / "deephpc/nvidia/lib/libcuda.so.1").read_text() == "550.1"
    assert said(loader)[0] == str(node.root / "usr/bin/sh")
    assert said(loader)[-2:] == ["w", ""]
    assert "SECRET" not in environ


def test_a_job_unpacks_the_image_itself_where_the_login_node_did_not(node: Node) -> None:
    store = Store(node.place / "images")
    image = store_image(node.place / "made", [folder("usr"), file("usr/x", b"1")])
    store.prepare()
    shutil.copytree(image.blobs, store.blobs, dirs_exist_ok=True)
    size = image.blobs.joinpath(image.digest.removeprefix("sha256:")).stat().st_size
    entry = Descriptor(media_type="application/vnd.oci.image.manifest.v1+json", digest=image.digest, size=size)
    assert store.add(entry, "x", image.digest, datetime.now(timezone.utc)) is not None
    node.facts |= {
        "engine_command": str(Path(sys.executable).with_name("udocker")), "image_digest": image.digest,
        "store_root": str(store.root), "prepared": str(node.place / "cache/udocker/x"),
    }  # fmt: skip
    done = node.run("udocker-r", call="engine_set_up")
    assert done.returncode == 0, done.stderr
    root = root_path(node.place / "cache/udocker/x", image.digest)
    assert (root / "usr/x").read_text() == "1"
    assert node.run("udocker-r", call="engine_set_up").stderr == ""
    node.facts |= {"image_digest": DIGEST, "prepared": str(node.place / "cache/udocker/y")}
    done = node.run("udocker-r", call="engine_set_up")
    assert done.returncode == 1
    assert f"udocker-r cannot unpack the image: the image {DIGEST} is not in" in done.stderr


# --- the probe ------------------------------------------------------------------------------------------------------


def probe(node: Node, udocker: str = "") -> dict[str, list[str]]:
    script = f". {shlex.quote(str(SCRIPTS / 'udocker.sh'))}; . {shlex.quote(str(SCRIPTS / 'probe_engines.sh'))}"
    bash = shutil.which("bash") or "/bin/bash"
    environ = {"PATH": str(node.place / "bin"), "HOME": str(node.place / "home"), "TMPDIR": str(node.place / "private")}
    done = subprocess.run(
        [bash, "-c", script, "probe", udocker], env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return {row[1] if row[0] == "fact" else row[0]: row for row in rows}


def test_a_node_without_engines_says_so_for_each(node: Node) -> None:
    rows = probe(node, str(Path(sys.executable).with_name("udocker")))
    tried = {name for name, engine in ENGINES.items() if not engine.on_request}
    assert tried <= set(rows)
    assert {rows[name][1] for name in tried if name != "udocker-f"} == {"no"}  # fakechroot may lie in /usr/lib here
    assert rows["apptainer"][3] == "apptainer is not on PATH"
    assert rows["udocker-r"][3] == "crun or runc is not on the node"
    assert rows["udocker-p2"][3] == "proot is not on the node"
    assert len(rows["memlock"]) == 3
    assert [each.name for each in node.private.iterdir() if each.name.startswith("deephpc-")] == []


def test_an_engine_is_believed_only_when_it_ran_a_program_in_the_image(node: Node) -> None:
    node.program(
        "apptainer", "#!/bin/sh\n[ $1 != --version ] || { echo apptainer version 1.4.5; exit; }\nexec sh -c 'exit 7'\n"
    )
    node.program("singularity", "#!/bin/sh\necho 'FATAL: no user namespace' >&2\nexit 255\n")
    works = 'for root; do case $root in */ROOT) read -r mark <"$root/mark" && echo "$mark"; exit 7 ;; esac; done'
    node.program("proot", PROOT.replace("printf", f"{works}\nprintf", 1))
    rows = probe(node, str(Path(sys.executable).with_name("udocker")))
    assert rows["apptainer"] == [
        "apptainer",
        "no",
        f"{node.place}/bin/apptainer",
        "it shows programs the files of the node",
    ]
    assert rows["singularity"][3] == "FATAL: no user namespace"
    assert rows["udocker-p2"][1:3] == ["ok", str(Path(sys.executable).with_name("udocker"))]
    assert probe(node)["udocker-p2"][3] == "udocker is not installed beside deephpc"
    assert "is not seen from this node" in probe(node, "/nowhere/udocker")["udocker-p2"][3]
