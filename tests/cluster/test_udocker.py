"""udocker's engines for true, on a node, as alice: streams, exit codes, signals, binds, many at once, the probe."""

import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from deephpc.places import shipped
from tests.cluster.acceptance import Answer, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.module_images import fetch_module_images, image_digest, put_layout

PLACE = "/scratch/alice/udocker-tests"
ENGINES = ("udocker-r", "udocker-p2", "udocker-s", "udocker-f")
NODE = "c1"

HARNESS = """\
set -u
engine=$1 private=$2 gpu=${GPU:-} gpus_wanted=0
shift 2
store_root=PLACE/cache/images image_digest=DIGEST
case $engine in udocker-f) prepared=PLACE/cache/udocker-f/x ;; *) prepared=PLACE/cache/udocker/x ;; esac
engine_command=$HOME/deephpc-venv/bin/udocker
mkdir -p "$private"/{tmp,var_tmp,home,deephpc/bin}
binds=("$private/deephpc:/deephpc" "$private/home:/deephpc/home" ${BIND:+"$BIND"})
fail() { printf 'deephpc: %s\\n' "$1" >&2; exit 1; }
note() { printf 'note: %s\\n' "$1" >&2; }
. PLACE/udocker.sh
engine_set_up
engine_exec "$@"
"""

LISTENS = """
import os, signal, time
def heard(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")  # print is not for handlers that are called again
    if number == signal.SIGTERM:
        os._exit(33)  # an engine may pass on what the group got too, and Python's own end would hear no more of it
signal.signal(signal.SIGTERM, heard)
signal.signal(signal.SIGUSR1, heard)
open("/deephpc/pid", "w").write(str(os.getpid()))
while True:
    time.sleep(0.1)
"""


class Node:
    """The harness on one node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def words(self, engine: str, *words: str, private: str = "") -> str:
        """The words that run something in the engine; its private folder goes afterwards."""
        place = private or '"$(mktemp -d)"'
        return f"bash {PLACE}/harness.sh {engine} {place} {shlex.join(words)}"

    def run(self, engine: str, *words: str, before: str = "", **env: str) -> Answer:
        """Run something in the engine."""
        script = f"{before}\nexec {self.words(engine, *words)}"
        return self.cluster.run(script, node=NODE, env=env, check=False)


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[Node]:
    layout = put_layout(cluster, "digits", f"{PLACE}/layouts/digits")
    cluster.root(f"chown alice {PLACE}")
    digest = image_digest(fetch_module_images()["digits"])
    cluster.on_host(f"{PLACE}/udocker.sh").write_bytes((shipped("jobscripts") / "udocker.sh").read_bytes())
    cluster.on_host(f"{PLACE}/probe.sh").write_bytes((shipped("jobscripts") / "probe_engines.sh").read_bytes())
    cluster.on_host(f"{PLACE}/harness.sh").write_text(HARNESS.replace("PLACE", PLACE).replace("DIGEST", digest))
    cluster.run(f"DEEPHPC_CACHE_DIR={PLACE}/cache deephpc image pull oci:{layout}")
    yield Node(cluster)
    cluster.root(f"rm -rf {PLACE} /tmp/tmp.*", node=NODE)


def test_jobs_of_all_modes_that_start_at_once_unpack_it_once_and_all_run(node: Node) -> None:
    jobs = ""
    for engine in ENGINES:
        for number in (1, 2, 3):
            words = node.words(engine, "/bin/sh", "-c", f"echo {number}; exit {number}")
            jobs += f"({words} 2>/dev/null; echo =$?) >{PLACE}/{engine}-{number} &\n"
    node.cluster.run(f"{jobs} wait", node=NODE)
    for engine in ENGINES:
        for number in (1, 2, 3):
            answer = node.cluster.on_host(f"{PLACE}/{engine}-{number}").read_text()
            assert answer.split() == [str(number), f"={number}"], engine
    assert [each.name for each in node.cluster.on_host(f"{PLACE}/cache/udocker").iterdir()] == ["x"]


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_and_exit_codes_are_the_programs(node: Node, engine: str) -> None:
    words = ["printf", "%s|", "", "a  b", "$x", "'", '"', "\\", "é – 数", "n\nl"]
    assert node.run(engine, *words).stdout == "".join(f"{word}|" for word in words[2:])
    script = 'printf "ä€数\\303\\n"; echo "Fehler: ü" >&2; exit "$1"'
    for code in (0, 1, 77, 255):
        done = node.run(engine, "/bin/sh", "-c", script, "sh", str(code))
        assert (done.returncode, done.stderr) == (code, "Fehler: ü\n")
        assert done.stdout.startswith("ä€数")
    assert node.run(engine, "/bin/sh", "-c", "kill -9 $$").returncode in (137, -9)
    through = f"{node.words(engine, 'cat')} <{PLACE}/big | cmp - {PLACE}/big && echo same"
    assert node.cluster.run(f"head -c 3000000 /dev/urandom >{PLACE}/big; {through}", node=NODE).stdout == "same\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_inside_is_clean_private_and_cannot_change_the_image(node: Node, engine: str) -> None:
    before = tree_hash(node.cluster.on_host(f"{PLACE}/cache/udocker/x"))
    look = """
        env; echo "pwd $PWD"
        for place in /usr/x /x /etc/group; do (: >>$place) 2>/dev/null && echo "wrote $place"; done
        for place in /tmp/x /var/tmp/x /deephpc/home/x; do (: >$place) && echo "may $place"; done
        cat "/srv/new/bind ü"/file
        python3 -c 'import pwd, os, socket; print(pwd.getpwuid(os.getuid()).pw_name, socket.gethostbyname("c2"))'
    """
    makes_bind = f'mkdir -p "{PLACE}/bind ü" && echo bound >"{PLACE}/bind ü/file"'
    done = node.run(
        engine, "/bin/sh", "-c", look, before=makes_bind, BIND=f"{PLACE}/bind ü:/srv/new/bind ü", SECRET="s3cret"
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert "s3cret" not in done.stdout
    assert [line for line in lines if line.startswith("wrote")] == (  # Apptainer's is a copy of this one start
        ["wrote /etc/group"] if engine == "udocker-s" else []
    )
    assert [line for line in lines if line.startswith("may")] == ["may /tmp/x", "may /var/tmp/x", "may /deephpc/home/x"]
    assert {"pwd /", "bound"} <= set(lines)
    assert lines[-1].startswith("alice 10.")
    assert tree_hash(node.cluster.on_host(f"{PLACE}/cache/udocker/x")) == before
    assert not node.cluster.run("ls /tmp/x /var/tmp/x 2>/dev/null", node=NODE, check=False).stdout


@pytest.mark.parametrize("to", ["program", "everything"])
@pytest.mark.parametrize("engine", ENGINES)
def test_signals_reach_the_program_and_it_says_how_it_ends(node: Node, engine: str, to: str) -> None:
    private = f"{PLACE}/signals-{engine}-{to}"
    start = f"exec setsid -w {node.words(engine, 'python3', '-c', LISTENS, private=private)}"
    with node.cluster.popen(start, node=NODE) as job:
        noted = node.cluster.on_host(f"{private}/deephpc/pid")
        wait_until(lambda: noted.exists() and bool(noted.read_text()), 20, lambda: f"{engine} did not start")
        target = noted.read_text()
        if to == "everything":
            target = "-" + node.cluster.run(f"ps -o pgid= -p {target}", node=NODE).stdout.strip()
        node.cluster.run(["kill", "-USR1", "--", target], node=NODE)
        node.cluster.run("sleep 0.2", node=NODE)  # the same signal twice would count once
        node.cluster.run(["kill", "-TERM", "--", target], node=NODE)
        out, err = job.communicate()
        assert job.wait() == 33, err
    assert list(dict.fromkeys(out.split())) == ["SIGUSR1", "SIGTERM"]
    assert err == ""


@pytest.mark.parametrize("engine", ["udocker-r", "udocker-p2", "udocker-f"])
def test_a_node_lends_its_driver(node: Node, engine: str) -> None:
    fake = f"{PLACE}/driver"
    setup = f"""
        mkdir -p {fake}/bin
        echo 550.54 >{fake}/libcuda.so.1
        echo 'libcuda.so.1 (libc6,x86-64) => {fake}/libcuda.so.1' >{fake}/cache
        printf '#!/bin/sh\\ncat {fake}/cache\\n' >{fake}/bin/ldconfig
        chmod +x {fake}/bin/ldconfig
        export PATH={fake}/bin:$PATH
    """
    script = "IFS=:; for folder in $LD_LIBRARY_PATH; do [ ! -e $folder/libcuda.so.1 ] || cat $folder/libcuda.so.1; done"
    done = node.run(engine, "/bin/sh", "-c", script, before=setup, GPU="nvidia")
    assert done.stdout == "550.54\n", done.stderr
    assert node.run(engine, "/bin/sh", "-c", script, GPU="nvidia").stdout == ""


def test_the_probe_finds_what_works_and_hides_nothing(node: Node) -> None:
    probe = f". {PLACE}/udocker.sh; set -- ~/deephpc-venv/bin/udocker; . {PLACE}/probe.sh"
    rows = [line.split("\t") for line in node.cluster.run(probe, node=NODE).stdout.splitlines()]
    works = {row[0]: row[1] for row in rows if row[0] != "fact"}
    assert {works[name] for name in ("apptainer", "singularity", *ENGINES)} == {"ok"}
    assert {row[1] for row in rows if row[0] == "fact"} >= {"node", "kernel", "glibc", "user_namespaces", "memlock"}
    hide = f"""
        mkdir -p {PLACE}/few && ln -s /usr/bin/* {PLACE}/few
        rm {PLACE}/few/apptainer {PLACE}/few/singularity {PLACE}/few/crun {PLACE}/few/runc
    """
    hidden = node.cluster.run(f"{hide}\nPATH={PLACE}/few; {probe}", node=NODE).stdout.splitlines()
    said = {line.split("\t")[0]: line.split("\t")[1] for line in hidden if not line.startswith("fact")}
    assert {name for name, answer in said.items() if answer == "ok"} == {"udocker-p2", "udocker-f"}


def test_proot_with_seccomp_shows_the_image_or_goes_on_without(node: Node) -> None:
    done = node.run("udocker-p1", "/bin/sh", "-c", "head -n 1 /etc/passwd; exit 7")
    assert (done.returncode, done.stdout.split(":")[-2:]) == (7, ["/deephpc/home", "/bin/sh\n"])


def tree_hash(folder: Path) -> str:
    """What is in a folder, by names, kinds, sizes and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        digest.update(f"{path.relative_to(folder)} {facts.st_mode} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
