"""Where `inside.sh` looks for the folders that a module of the catalogue writes to."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from deephpc.places import shipped


@dataclass
class Image:
    """A folder that stands for an image's root: the script's own paths lead into it."""

    root: Path

    def put(self, *files: str) -> None:
        for name in files:
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)

    def prepare(self, how: str, models: str = "", **environ: str) -> list[str]:
        """Return the folders that it lists, with what they are for, from the image's root."""
        script = (shipped("jobscripts") / "inside.sh").read_text()
        for place in ("/root", "/srv", "/deephpc"):
            script = script.replace(place, f"{self.root}{place}")
        self.put("deephpc/env.sh", "deephpc/bin/preflight.sh")
        (self.root / "deephpc/env.sh").write_text("")
        (self.root / "deephpc/bin/preflight.sh").write_text("echo seen\n")
        (self.root / "inside.sh").write_text(script)
        words = ["sh", self.root / "inside.sh", "prepare", "0", "none", how, models and f"{self.root}/{models}"]
        done = subprocess.run(
            words, env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr
        listed = (self.root / "deephpc/folders.list").read_text().splitlines()
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
