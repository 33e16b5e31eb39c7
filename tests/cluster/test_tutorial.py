"""The day of docs/tutorial.md on the real cluster, as an ordinary user: its commands, in order, print what it shows.

With WRITE_TUTORIAL=1 the page is written anew from what they print; look at the difference before you commit it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.acceptance import Session, wait_until
from tests.cluster.cluster import Cluster
from tests.cluster.horovod_image import EXAMPLE, fetch_horovod_image
from tests.cluster.module_images import push_image
from tests.cluster.registry import HOST, Registry
from tests.cluster.rootfs import fetch_rootfs
from tests.cluster.storage import Storage, storage
from tests.console_page import Shown, difference, learn_ids, load_page, rewritten, with_ids

pytestmark = pytest.mark.cluster
PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
CATALOGUE = "/scratch/proj/catalogue"
DIGITS = "usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz"  # of Debian's python3-sklearn
SURROUNDINGS = {"PYTHONUNBUFFERED": "1"}  # both streams in the order in which a terminal shows them


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
        if command.startswith(("export ", "cd ")):
            self._before += f"{with_ids(command, self.known)}\n"
        learn_ids(shown.output, came, self.known)
        self.came[shown.command] = came
        print(f"# {time.monotonic() - began:.1f} s\n$ {shown.command}\n{came}", end="")
        return came

    def _start(self, script: str, lines: int) -> str:
        """Start a command that stays, and return what it prints at first."""
        file = f"{self._session.folder}/background.log"
        log = self._session.box.on_host(file)
        log.unlink(missing_ok=True)
        where: dict[str, Any] = {"cwd": self._session.folder, "env": SURROUNDINGS}
        self._background.enter_context(self._session.box.popen(f"exec >{file}\n{script}", **where))
        wait_until(lambda: log.exists() and log.read_text().count("\n") >= lines, 60, lambda: "it prints too little")
        return log.read_text()


@pytest.fixture(scope="module")
def stored(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """What is around the day: a registry, data on WebDAV, a bucket, a group's catalogue."""
    with Registry(cluster).running(), storage(cluster, tmp_path_factory.mktemp("storage")) as found:
        push_image(cluster, fetch_horovod_image(), f"{HOST}/modules/{EXAMPLE.name}:1.0")
        (found.webdav_root / "digits").mkdir()
        shutil.copy(fetch_rootfs("trixie") / DIGITS, found.webdav_root / "digits")
        module = cluster.on_host(f"{CATALOGUE}/{EXAMPLE.name}")
        module.mkdir(parents=True)
        metadata = (EXAMPLE / "ai4-metadata.yml").read_text()
        entry = metadata.replace("docker_image: deephpc/", f"docker_image: {HOST}/modules/")
        (module / "ai4-metadata.yml").write_text(entry)
        yield found


@pytest.fixture(scope="module")
def alice(cluster: Cluster, stored: Storage) -> Iterator[Session]:
    """Alice on her first day: what other tests left in her home is out of the way meanwhile."""
    places = "deephpc .local/state/deephpc .config/deephpc"
    cluster.run(f"for place in {places}; do [ ! -e $place ] || mv $place $place.before; done")
    session = Session(cluster, "day")
    shutil.copytree(EXAMPLE / "samples", cluster.on_host(session.folder) / "samples")
    yield session
    back = "chmod -Rf u+w $place; rm -rf $place; [ ! -e $place.before ] || mv $place.before $place"
    cluster.run(f"for place in {places}; do {back}; done", timeout=200)


def test_the_day_goes_as_the_tutorial_shows(alice: Session, stored: Storage) -> None:
    with contextlib.ExitStack() as background:
        terminal = Terminal(alice, background)
        page = load_page(PAGE)
        came = [terminal.type(shown, shown.command) for shown in page]
    check_day(alice, terminal, stored, "apptainer")
    if os.environ.get("WRITE_TUTORIAL"):
        PAGE.write_text(rewritten(PAGE.read_text("utf-8"), zip(page, came, strict=True), terminal.known), "utf-8")
        return
    for shown, printed in zip(page, came, strict=True):
        told = difference(with_ids(shown.output, terminal.known), printed)
        assert not told, f"{PAGE.name}:{shown.line}: $ {shown.command}\n{told}"


def test_the_same_day_in_udocker(alice: Session, stored: Storage) -> None:
    with contextlib.ExitStack() as background:
        terminal = Terminal(alice, background)
        for shown in load_page(PAGE):
            command = shown.command.replace("--engine auto", "--engine udocker-p2")
            terminal.type(shown, command.replace("deephpc train ", "deephpc train --engine udocker-p2 "))
    check_day(alice, terminal, stored, "udocker-p2")


def test_the_module_passes_its_own_tests_in_its_image(alice: Session, stored: Storage) -> None:
    image, home = f"docker://{HOST}/modules/{EXAMPLE.name}:1.0", f"/srv/{EXAMPLE.name}"
    testing = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", home, f"{home}/tests")
    answer = alice.deephpc(
        *("run", image, "--engine", "apptainer", "--time", "5", "--wait", "--", *testing),
        env={"DEEPHPC_INSECURE_REGISTRIES": HOST},
        timeout=240,
    )
    assert answer.returncode == 0, answer.stderr
    assert " passed" in answer.stderr
    assert "skipped" not in answer.stderr


def check_day(alice: Session, terminal: Terminal, stored: Storage, engine: str) -> None:
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
    check_results(alice, folder / "output", f"http://ctl:{stored.s3_port}/results/digits/{folder.name}/output")
    assert alice.slurm_jobs("PENDING", "RUNNING", "COMPLETING") == []


def check_results(alice: Session, output: Path, url: str) -> None:
    """Check that what was trained lies in the bucket, byte by byte, asked of the server itself."""
    names = [str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()]
    assert {"train.json", "models/model.pt"} <= set(names)
    for name in names:
        get = f"curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user key:hidden {url}/{name}"
        there = alice.box.run(f"set -o pipefail; {get} | sha256sum").stdout.split()[0]
        assert there == hashlib.sha256((output / name).read_bytes()).hexdigest(), name
