"""What is secret of a batch's arguments lies apart, and goes with what repeats or continues it."""

import json
from pathlib import Path

import pytest

from deephpc.jobs.run_folder import RunFolder
from deephpc.serve.module_description import Argument, Method, ModuleDescription
from deephpc.workflows.batch_request import BatchWords, load_batch_files, load_batch_plan

MODULE = ModuleDescription(
    served="plants",
    predict=Method(
        exists=True,
        arguments=(
            Argument(name="image", type="file", required=True),
            Argument(name="token", is_secret=True),
            Argument(name="pin", type="int", is_secret=True),
            Argument(name="top", type="int", default=1),
        ),
    ),
)


def run_folder(place: Path, files: dict[str, str]) -> RunFolder:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return RunFolder(place)


@pytest.mark.parametrize("secret", ["hush-hush", "ü ψ \"'\n$(id)", "0"])
def test_a_password_lies_in_secrets_alone_and_goes_on_with_the_batch(tmp_path: Path, secret: str) -> None:
    (tmp_path / "a.png").write_text("picture")
    asked = BatchWords("plants", ("image=a.png",), (f"token={secret}", "pin=7", "top=2"))
    plan = load_batch_plan(asked, MODULE, tmp_path)
    assert (plan.batch.arguments, plan.secrets) == ({"top": 2}, {"token": secret, "pin": 7})
    files = plan.render_files()
    assert json.loads(files.pop("secrets/arguments.json")) == {"token": secret, "pin": 7}
    assert [name for name, text in files.items() if json.dumps(secret)[1:-1] in text and len(secret) > 1] == []

    before = run_folder(tmp_path / "run-a-0001", plan.render_files())
    assert load_batch_files(before) == plan.render_files()
    assert load_batch_plan(BatchWords("plants"), MODULE, tmp_path, before).secrets == plan.secrets
    anew = load_batch_plan(BatchWords("plants", arguments=("token=another", "top=2")), MODULE, tmp_path, before)
    assert anew.secrets == {"token": "another"}


def test_a_batch_without_secrets_has_no_folder_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("picture")
    plan = load_batch_plan(BatchWords("plants", ("image=a.png",), ("top=2",)), MODULE, tmp_path)
    assert "secrets/arguments.json" not in plan.render_files()
