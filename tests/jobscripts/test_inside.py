"""What `inside.sh` finds in an image (a module's folders, a home) before a program starts, and where it starts."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deephpc.places import shipped
from tests.containers.colleagues import closed

#: Takes away what root may read and a user may not.
AS_USER = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()


@dataclass
class Image:
    """A folder that stands for an image's root: the script's own paths lead into it."""

    root: Path

    def put(self, *files: str) -> None:
        for name in files:
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)

    def start(self, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run the script, with these variables."""
        script = (shipped("jobscripts") / "inside.sh").read_text()
        script = re.sub(r"(?<!\w)(?=/(?:root|srv|deephpc|var/tmp|tmp)\b)", str(self.root), script)
        self.put("deephpc/env.sh", "deephpc/bin/preflight.sh")
        for name in ("home", "tmp", "var_tmp"):
            (self.root / "deephpc" / name).mkdir(exist_ok=True)
        (self.root / "deephpc/env.sh").write_text(f"TMPDIR={self.root}/tmp; export TMPDIR\n")
        (self.root / "deephpc/bin/preflight.sh").write_text("mktemp >/dev/null && echo seen\n")
        (self.root / "inside.sh").write_text(script)
        return subprocess.run(
            [*AS_USER, "sh", self.root / "inside.sh", *words],
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def prepare(self, how: str, models: str = "", *named: str, **environ: str) -> list[str]:
        """Return the folders that it lists, with what they are for, from the image's root."""
        done = self.start("prepare", "0", "none", how, models and f"{self.root}/{models}", *named, **environ)
        assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr
        listed = (self.root / "deephpc/folders.list").read_text().splitlines() if how != "no" else []
        return [line.replace(f"{self.root}/", "/", 1) for line in listed]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "srv").mkdir()
    return Image(tmp_path)


@pytest.mark.parametrize(
    ("files", "listed"),
    [
        (("srv/plants/setup.py",), ["data /srv/plants/data", "models /srv/plants/models"]),
        (("srv/plants/models/best.pt",), ["data /srv/plants/data", "models /srv/plants/models"]),
        (("srv/models/best.pt",), ["models /srv/models"]),
        (("srv/models/best.pt", "srv/data/a.csv"), ["data /srv/data", "models /srv/models"]),
        (
            ("srv/models/best.pt", "srv/plants/pyproject.toml"),
            ["models /srv/models", "data /srv/plants/data", "models /srv/plants/models"],
        ),
        (("srv/notes.txt", "srv/.rclone/rclone.conf"), []),
        (("srv/two words/setup.cfg",), ["data /srv/two words/data", "models /srv/two words/models"]),
    ],
)
def test_folders_of_data_and_models_are_found_in_both_layouts(
    image: Image, files: tuple[str, ...], listed: list[str]
) -> None:
    image.put(*files)
    assert image.prepare("listed") == listed


def test_a_variable_says_where_they_are(image: Image) -> None:
    image.put("srv/plants/setup.py", "elsewhere/readme")
    base = str(image.root / "elsewhere")
    listed = image.prepare("listed", APP_INPUT_OUTPUT_BASE_DIR=base)
    assert listed == [
        "data /srv/plants/data",
        "models /srv/plants/models",
        "data /elsewhere/data",
        "models /elsewhere/models",
    ]


@pytest.mark.parametrize(
    ("environ", "more"),
    [
        ({"MODELS_PATH": "weights", "DATA_PATH": ""}, []),  # from where the module lies: nothing that could be bound
        ({"MODELS_PATH": "{root}/weights"}, ["models /weights"]),
        ({"MODELS_PATH": "{root}/weights/", "DATA_PATH": "{root}/my data"}, ["data /my data", "models /weights"]),
        ({"MODELS_PATH": "{root}/srv/plants/models"}, []),
        ({"MODELS_PATH": "/", "DATA_PATH": "{root}/deephpc/x"}, []),
        ({"DATA_PATH": "{root}/a/../../b"}, []),
    ],
)
def test_variables_of_the_templates_say_where_they_are(image: Image, environ: dict[str, str], more: list[str]) -> None:
    image.put("srv/plants/setup.py")
    listed = image.prepare("listed", **{name: value.format(root=image.root) for name, value in environ.items()})
    assert listed == ["data /srv/plants/data", "models /srv/plants/models", *more]


def test_a_link_to_a_module_is_no_second_one(image: Image) -> None:
    image.put("srv/plants/setup.py")
    (image.root / "srv/a-alias").symlink_to("plants")
    assert image.prepare("listed") == ["data /srv/plants/data", "models /srv/plants/models"]


@pytest.mark.parametrize("module", ["srv", "srv/plants"])
def test_what_the_image_ships_there_is_copied_where_nothing_else_makes_it_writable(image: Image, module: str) -> None:
    image.put(f"{module}/data/a.csv", f"{module}/models/best.pt")
    (image.root / module / "data/a.csv").chmod(0o444)
    image.prepare("yes", "run/output/models")
    assert (image.root / "run/output/models/best.pt").read_text() == f"{module}/models/best.pt"
    copied = image.root / f"deephpc/folders{image.root}/{module}/data/a.csv"
    assert copied.read_text() == f"{module}/data/a.csv"
    assert os.access(copied, os.W_OK)


@pytest.mark.parametrize("workdir", ["app/src", "two words/$(id)", "there", "link/src"])
def test_a_program_starts_in_the_folder_that_its_image_names_also_where_that_has_to_be_made(
    image: Image, workdir: str
) -> None:
    image.put("there/file")
    (image.root / "link").symlink_to("there")
    done = image.start("run", "pwd", "-P", deephpc_workdir=f"{image.root}/{workdir}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{(image.root / workdir).resolve()}\n"


@pytest.mark.parametrize("workdir", ["shut/src", "shut", "file", "file/src", "nowhere"])
def test_a_program_starts_elsewhere_and_says_so_where_that_folder_cannot_be_had(image: Image, workdir: str) -> None:
    image.put("file", "shut/file")
    (image.root / "nowhere").symlink_to("file/gone")
    named = f"{image.root}/{workdir}"
    with closed(image.root / "shut", 0o444 if workdir == "shut" else 0o555):
        done = image.start("run", "pwd", "-P", deephpc_workdir=named)
    assert (done.returncode, done.stdout) == (0, f"{(image.root / 'deephpc/home').resolve()}\n")
    assert done.stderr == f"deephpc: the image has no folder {named}, its WORKDIR: starting in an empty one\n"


def test_what_a_program_is_told_of_its_place_is_not_ours(image: Image) -> None:
    done = image.start("run", "env", deephpc_workdir=str(image.root), deephpc_image_home="/home/app", KEPT="a b")
    assert "KEPT=a b" in done.stdout.splitlines()
    assert "deephpc" not in "".join(line.partition("=")[0] for line in done.stdout.splitlines())


@pytest.mark.parametrize("home", ["root", "home/app", "srv/two words"])
def test_what_an_image_has_in_its_home_is_found_and_may_be_changed_where_it_is_small(image: Image, home: str) -> None:
    image.put(f"{home}/.condarc", f"{home}/.config/library/settings.json", f"{home}/.my cache/names", f"{home}/visible")
    (image.root / home / ".condarc").chmod(0o444)
    image.prepare("no", deephpc_image_home=f"{image.root}/{home}")
    for name in (".condarc", ".config/library/settings.json", ".my cache/names"):
        ours = image.root / "deephpc/home" / name
        assert (ours.read_text(), ours.stat().st_mode & 0o200) == (f"{home}/{name}", 0o200)
        ours.write_text("changed")
        assert (image.root / home / name).read_text() == f"{home}/{name}"


@pytest.mark.parametrize(
    ("link", "target"),
    [(".current", "dotfiles"), (".config/editor", "../dotfiles"), (".config/all", "/root/dotfiles")],
)
def test_links_in_the_home_of_an_image_lead_where_they_do_there(image: Image, link: str, target: str) -> None:
    image.put("root/dotfiles/settings", "root/.config/settings")
    (image.root / "root" / link).symlink_to(target.replace("/root", f"{image.root}/root"))
    image.prepare("no")
    assert (image.root / "deephpc/home" / link / "settings").read_text() == "root/dotfiles/settings"


def test_what_is_large_in_the_home_of_an_image_is_shown_by_links(image: Image) -> None:
    weights, names, lone, many = ".cache/torch/weights.pth", ".cache/torch/names", ".lone", ".venv"
    image.put(*(f"root/{name}" for name in (weights, names, lone, *(f"{many}/{n}.py" for n in range(300)))))
    for name in (weights, lone):
        (image.root / "root" / name).write_bytes(b"w" * (5 << 20))
    image.prepare("no")
    ours = image.root / "deephpc/home"
    for name in (weights, names, lone, many):
        assert (ours / name).readlink() == image.root / "root" / name
    (ours / ".cache/torch/more.pth").write_text("another download")
    assert not (image.root / "root/.cache/torch/more.pth").exists()


@pytest.mark.parametrize("shut", [".ssh", ".config/private", ".config/private/key"])
def test_what_may_not_be_read_in_the_home_of_an_image_hides_nothing_else(image: Image, shut: str) -> None:
    image.put("root/.condarc", "root/.ssh/key", "root/.config/private/key", "root/.config/settings")
    with closed(image.root / "root" / shut):
        image.prepare("no")
    for name in (".condarc", ".config/settings"):
        assert (image.root / "deephpc/home" / name).read_text() == f"root/{name}"


def test_a_home_that_may_not_be_read_is_passed_over(image: Image) -> None:
    image.put("root/.condarc")
    with closed(image.root / "root"):
        image.prepare("no")
    assert list((image.root / "deephpc/home").iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        ("tmp/weights.bin",),
        ("tmp/cache/hub/nested/weights.bin", "tmp/two words/$(id)"),
        ("tmp/.hidden", "var/tmp/..odd", "tmp/-rf"),
        ("var/tmp/library/settings.json",),
        ("srv/notes.txt",),
    ],
)
@pytest.mark.parametrize("how", ["no", "yes"])
def test_what_an_image_has_in_its_folders_for_temporary_files_is_found_in_those_of_the_job(
    image: Image, files: tuple[str, ...], how: str
) -> None:
    for name in ("tmp", "var/tmp"):
        (image.root / name).mkdir(parents=True)
    image.put(*files)
    (image.root / files[0]).chmod(0o444)
    image.prepare(how)
    there = {name for name in files if name.startswith(("tmp/", "var/tmp/"))}
    assert copies(image) == there
    for name in there:
        ours = image.root / "deephpc" / name.replace("var/tmp", "var_tmp")
        assert (ours.read_text(), ours.stat().st_mode & 0o200) == (name, 0o200)


def test_folders_for_temporary_files_keep_their_rights_and_links_theirs(image: Image) -> None:
    image.put("tmp/.X11-unix/x", "tmp/shut/x")
    (image.root / "tmp/.X11-unix").chmod(0o1777)
    (image.root / "tmp/shut").chmod(0o555)
    (image.root / "tmp/latest").symlink_to("/opt/weights")
    (image.root / "tmp").chmod(0o755)
    (image.root / "deephpc/tmp").mkdir(parents=True)
    (image.root / "deephpc/tmp").chmod(0o1777)
    image.prepare("no")
    ours = image.root / "deephpc/tmp"
    modes = [(ours / name).stat().st_mode & 0o7777 for name in ("", ".X11-unix", "shut")]
    assert modes == [0o1777, 0o1777, 0o755]
    assert (ours / "latest").readlink() == Path("/opt/weights")


def test_what_may_not_be_read_there_hides_nothing_else(image: Image) -> None:
    image.put("tmp/key", "tmp/shut/x", "tmp/weights.bin")
    with closed(image.root / "tmp/key"), closed(image.root / "tmp/shut"):
        image.prepare("no")
    assert (image.root / "deephpc/tmp/weights.bin").read_text() == "tmp/weights.bin"


@pytest.mark.parametrize(("place", "named"), [("tmp", "/tmp"), ("var/tmp", "/var/tmp")])
def test_what_is_too_large_there_is_named_and_not_copied(image: Image, place: str, named: str) -> None:
    image.put("tmp/small", "var/tmp/small", f"{place}/a/large")
    (image.root / place / "a/large").write_bytes(os.urandom(1 << 20) * 65)
    image.prepare("no")
    assert (image.root / "deephpc/large.list").read_text() == f"65 {image.root}{named}\n"
    assert copies(image) == {"tmp/small", "var/tmp/small"} - {f"{place}/small"}


def test_nothing_is_copied_where_the_image_is_written_to_or_the_run_lies_there(image: Image) -> None:
    image.put("tmp/run/output/x", "tmp/weights.bin", "var/tmp/x")
    image.prepare("listed")
    assert copies(image) == set()
    image.prepare("no", DEEPHPC_OUTPUT_DIR=f"{image.root}/tmp/run/output")
    assert copies(image) == {"var/tmp/x"}


def copies(image: Image) -> set[str]:
    """Return what the job's own folders for temporary files have, but for what `mktemp` makes there."""
    return {
        f"{inside}/{path.relative_to(image.root / 'deephpc' / name)}"
        for name, inside in (("tmp", "tmp"), ("var_tmp", "var/tmp"))
        for path in (image.root / "deephpc" / name).rglob("*")
        if path.is_file() and not path.name.startswith("tmp.")
    }


@pytest.mark.parametrize(
    ("named", "more"),
    [
        (("models opt/weights",), ["models /opt/weights"]),
        (("data my data", "models srv/plants/weights"), ["data /my data", "models /srv/plants/weights"]),
        (("models srv/plants/models/", "data srv/plants/data/images", "data srv", "models srv/plants"), []),
        (("models opt/weights", "data opt/weights", "models opt/weights/best"), ["models /opt/weights"]),
        (("models deephpc/x",), []),
    ],
)
@pytest.mark.parametrize("how", ["listed", "yes"])
def test_folders_that_a_module_names_when_it_is_asked_are_its_own_where_they_lie_apart(
    image: Image, named: tuple[str, ...], more: list[str], how: str
) -> None:
    image.put("srv/plants/setup.py", "opt/weights/base.pt", "my data/a.csv", "srv/plants/weights/base.pt")
    words = [word.replace(" ", f" {image.root}/", 1) for word in named]
    listed = [line for line in image.prepare(how, "", *words) if not line.startswith("home ")]
    assert listed == ["data /srv/plants/data", "models /srv/plants/models", *more]
    copies = [image.root / f"deephpc/folders{image.root}{line.partition(' ')[2]}" for line in more if how == "yes"]
    assert [sorted(path.name for path in copy.iterdir()) for copy in copies] == [
        [{"models": "base.pt", "data": "a.csv"}[line.partition(" ")[0]]] for line in more if how == "yes"
    ]
