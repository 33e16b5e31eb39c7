"""The real `deephpc predict` with local jobs; what drives the module is a double that speaks as the real one does."""

import csv
import json
import sys
from pathlib import Path

import pytest

from tests.fakes.programs import CommandLine

#: In place of the venv's python3, which would run `deepaas_module.py predict`: the first letter of a file is its label.
_MODULE = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
assert sys.argv[1].endswith("container/deepaas_module.py") and sys.argv[2] == "predict"
run, output = Path(os.environ["DEEPHPC_DATA_DIR"]).parent, Path(os.environ["DEEPHPC_OUTPUT_DIR"])
failed = False
for line in (run / "inputs" / (os.environ["DEEPHPC_TASK_ID"] + ".jsonl")).read_text().splitlines():
    one = json.loads(line)
    text = Path(one["args"]["image"]).read_text()
    said = {{"key": one["key"], "ok": bool(text), "seconds": 0.1, "error": None if text else "empty"}}
    failed = failed or not text
    if text:
        said["file"] = one["key"] + ".json"
        said["result"] = {{"status": "OK", "predictions": [{{"label": text[0], "words": sys.argv[3:]}}]}}
        (output / said["file"]).write_text(json.dumps(said["result"]))
    with (output / "results.jsonl").open("a") as file:
        file.write(json.dumps(said) + chr(10))
sys.exit(failed)
"""


@pytest.fixture
def deephpc(tmp_path: Path) -> CommandLine:
    command = CommandLine.make(tmp_path)
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    (programs / "python3").write_text(_MODULE)
    (programs / "python3").chmod(0o755)
    (tmp_path / "data").mkdir()
    for name in ("a", "b", "größe c", "d"):
        (tmp_path / "data" / f"{name}.txt").write_text(name)
    return command


def predict(deephpc: CommandLine, *words: str, as_json: bool = False):
    """Run `deephpc predict` on the site `local`, with the double."""
    return deephpc(*(["--json"] if as_json else []), "--site", "local", "predict", *words)


NATIVE = ("leaves", "--engine", "native", "--venv", "venv")


def table(deephpc: CommandLine, run_id: str) -> list[dict[str, str]]:
    with (deephpc.home / "work" / run_id / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_many_inputs_give_one_table_in_their_order(deephpc: CommandLine):
    done = predict(deephpc, *NATIVE, "--input", "image=data/*.txt", "--tasks", "3", "--accept", "a/b", "--wait")
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    assert run_id.startswith("predict-leaves-")
    assert "4 of 4 inputs have a result" in done.stderr
    found = table(deephpc, run_id)
    assert [row["result.label"] for row in found] == ["a", "b", "d", "g"]
    assert [Path(row["input"]).name for row in found] == ["a.txt", "b.txt", "d.txt", "größe c.txt"]
    answer = json.loads(Path(found[0]["output"]).read_text())
    assert answer["predictions"][0]["words"] == ["--accept", "a/b", "--expect", "leaves"]
    assert sorted(path.name for path in (deephpc.home / "work" / run_id / "tasks").iterdir()) == ["0", "1", "2"]


def test_what_failed_is_predicted_again_and_nothing_else(deephpc: CommandLine):
    (deephpc.home / "data" / "b.txt").write_text("")
    done = predict(deephpc, *NATIVE, "--input", "image=data", "--wait")
    first = done.stdout.strip()
    assert done.returncode == 6
    assert "3 of 4 inputs have a result, 1 failed" in done.stderr
    assert "b.txt: empty" in done.stderr
    (deephpc.home / "data" / "b.txt").write_text("b")
    again = predict(deephpc, "--resume", first, "--wait")
    assert again.returncode == 0, again.stderr
    second = again.stdout.strip()
    todo = (deephpc.home / "work" / second / "inputs" / "0.jsonl").read_text().splitlines()
    assert [json.loads(line)["args"]["image"] for line in todo] == [str(deephpc.home / "data" / "b.txt")]
    assert [row["result.label"] for row in table(deephpc, second)] == ["a", "b", "d", "g"]
    nothing = predict(deephpc, "--resume", second)
    assert nothing.returncode == 0
    assert "nothing is submitted" in nothing.stderr


def test_the_table_can_be_had_at_any_time_as_json_too(deephpc: CommandLine):
    run_id = predict(deephpc, *NATIVE, "--input", "image=data/a.txt", "--wait").stdout.strip()
    answer = json.loads(predict(deephpc, "--results", run_id, as_json=True).stdout)
    assert answer["schema"] == "deephpc.predictions/1"
    assert (answer["run_id"], answer["inputs"], answer["ok"], answer["failures"]) == (run_id, 1, 1, [])
    assert Path(answer["table"]).is_file()


def test_the_table_follows_the_results_to_where_they_are_collected(deephpc: CommandLine):
    words = ("--input", "image=data/*.txt", "--tasks", "2", "--collect", str(deephpc.home / "there"))
    run_id = predict(deephpc, *NATIVE, *words, "--wait").stdout.strip()
    there, here = deephpc.home / "there" / run_id, deephpc.home / "work" / run_id
    for name in ("results.csv", "results.jsonl", "plan.json", "tasks/0/result.json", "tasks/1/output/results.jsonl"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    (there / "results.csv").unlink()
    assert f"the table of {run_id} is at {there}" in predict(deephpc, "--results", run_id).stderr
    assert (there / "results.csv").is_file()


def test_another_question_does_not_go_on_with_a_run(deephpc: CommandLine):
    run_id = predict(deephpc, *NATIVE, "--input", "image=data/a.txt", "--wait").stdout.strip()
    done = predict(deephpc, *NATIVE, "--input", "image=data/*.txt", "--arg", "top=3", "--resume", run_id)
    assert done.returncode == 2
    assert "--arg is" in done.stderr


def test_a_rerun_predicts_the_same_inputs(deephpc: CommandLine):
    run_id = predict(deephpc, *NATIVE, "--input", "image=data/*.txt", "--wait").stdout.strip()
    done = deephpc("--site", "local", "jobs", "rerun", run_id, "--wait")
    assert done.returncode == 0, done.stderr
    answer = json.loads(predict(deephpc, "--results", done.stdout.strip(), as_json=True).stdout)
    assert answer["ok"] == 4


def test_the_dry_run_writes_nothing(deephpc: CommandLine):
    done = predict(deephpc, *NATIVE, "--input", "image=data/*.txt", "--dry-run", as_json=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["request"]["batch"]
    assert not (deephpc.home / "work").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is nothing to predict with"),
        (NATIVE, "there is no input"),
        ((*NATIVE, "--input", "image=*.tif"), "meets no file"),
        ((*NATIVE, "--input", "image=data", "--arg", "top"), "is not NAME=VALUE"),
        (("--results", "nobody"), "nobody"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_two_lines(deephpc: CommandLine, words: tuple[str, ...], message: str):
    done = predict(deephpc, *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    assert message in done.stderr


@pytest.mark.parametrize("folder", ["in puts:x", "a,b"])
def test_a_folder_that_no_container_can_show_is_refused_before_submission(deephpc: CommandLine, folder: str):
    (deephpc.home / folder).mkdir()
    (deephpc.home / folder / "x.png").touch()
    done = predict(deephpc, "docker://registry.invalid/x:1", "--input", f"image={folder}/*.png", "--dry-run")
    assert done.returncode == 2
    assert f"{deephpc.home / folder}' cannot be bound into a container" in done.stderr
    assert predict(deephpc, *NATIVE, "--input", f"image={folder}/*.png", "--dry-run").returncode == 0


@pytest.mark.parametrize("given", ["image", "=x", "image=*.tif"])
def test_wrong_inputs_are_refused_before_the_image_is_pulled(deephpc: CommandLine, given: str):
    done = predict(deephpc, "docker://registry.invalid/x:1", "--input", given)  # a pull from there would exit with 4
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    assert f"--input {given!r}" in done.stderr


def test_a_run_that_is_no_batch_has_no_table(deephpc: CommandLine):
    run_id = deephpc("--site", "local", "run", "--wait", "--", "true").stdout.strip()
    done = predict(deephpc, "--results", run_id)
    assert done.returncode == 2
    assert "is no batch of predictions" in done.stderr
