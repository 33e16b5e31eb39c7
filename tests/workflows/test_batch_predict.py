"""A batch of predictions: shared out, resumed, and its one table."""

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError, SiteError
from deephpc.jobs.run_folder import RunFolder
from deephpc.serve.module_description import Argument
from deephpc.workflows.batch_inputs import BatchInput, input_key
from deephpc.workflows.batch_predict import (
    Batch,
    BatchPlan,
    check_same,
    choose_tasks,
    fewer_folders,
    parse_shared,
    plan_batch,
    split,
)
from deephpc.workflows.batch_results import load_batch, load_done, merge_results
from tests.fakes.samples import A_TENTH

DECLARED = (
    Argument(name="image", type="file", required=True),
    Argument(name="top", type="int", default=1),
    Argument(name="prior", type="file"),
    Argument(name="accept", choices=("application/json", "text/csv")),
)
BATCH = Batch(target="plankton", arguments={"top": 2}, files=("image",))


def some_inputs(count: int, folder: Path = Path("/data")) -> tuple[BatchInput, ...]:
    rows = [{"image": str(folder / f"{number:03}.png")} for number in range(count)]
    return tuple(BatchInput(key=input_key(args), args=args) for args in rows)


def run_folder(place: Path, plan: BatchPlan) -> RunFolder:
    """Write what a submission writes of a batch."""
    for name, text in plan.render_files().items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return RunFolder(place)


def todo_of(folder: RunFolder, task: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder.path / "inputs" / f"{task}.jsonl").read_text().splitlines()]


def answer(folder: RunFolder, task: int, key: str, said: object, suffix: str = ".json") -> None:
    """Write what `deepaas_module.py predict` writes of an input that went well."""
    output = folder.task(task).output
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{key}{suffix}").write_text(json.dumps(said) if suffix == ".json" else str(said))
    tell(folder, task, {"key": key, "ok": True, "file": f"{key}{suffix}", "seconds": 0.5, "error": None})


def tell(folder: RunFolder, task: int, line: dict[str, object]) -> None:
    path = folder.task(task).output / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def table(folder: RunFolder) -> list[dict[str, str]]:
    with (folder.path / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rows(folder: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder.path / "results.jsonl").read_text().splitlines()]


@A_TENTH
@given(st.lists(st.integers(), max_size=300), st.integers(1, 40))
def test_tasks_share_fairly_and_in_order(items: list[int], asked: int) -> None:
    parts = split(items, choose_tasks(len(items), asked))
    assert [item for part in parts for item in part] == items
    sizes = {len(part) for part in parts}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 0 not in sizes
    assert len(parts) == min(asked, len(items))


@pytest.mark.parametrize(("inputs", "tasks"), [(0, 0), (1, 1), (8, 1), (9, 2), (80, 10), (100_000, 10)])
def test_how_many_tasks_when_nobody_says(inputs: int, tasks: int) -> None:
    assert choose_tasks(inputs) == tasks


def test_a_plan_writes_a_file_of_inputs_for_each_task() -> None:
    plan = plan_batch(BATCH, some_inputs(5), tasks=2)
    files = plan.render_files()
    assert set(files) == {"inputs/batch.json", "inputs/all.jsonl", "inputs/0.jsonl", "inputs/1.jsonl"}
    first = json.loads(files["inputs/0.jsonl"].splitlines()[0])
    assert first == {"key": plan.inputs[0].key, "args": {"top": 2, "image": "/data/000.png"}}
    assert [len(files[f"inputs/{task}.jsonl"].splitlines()) for task in (0, 1)] == [3, 2]
    assert plan.array.tasks == (0, 1)
    assert plan.batch.count == 5


def test_names_that_could_break_a_line_are_escaped() -> None:
    args = {"image": "/data/new\nline \u2028größe.png"}
    plan = plan_batch(BATCH, [BatchInput(key=input_key(args), args=args)])
    text = plan.render_files()["inputs/0.jsonl"]
    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert json.loads(text)["args"]["image"] == args["image"]


def test_other_inputs_are_another_batch() -> None:
    digests = {plan_batch(BATCH, some_inputs(count), tasks=1).digest for count in (1, 2, 3)}
    assert len(digests) == 3
    assert plan_batch(BATCH, some_inputs(3)).digest == plan_batch(BATCH, some_inputs(3)).digest


def test_a_container_is_shown_the_folders_of_the_files() -> None:
    batch = BATCH.model_copy(update={"files": ("image", "prior"), "arguments": {"prior": "/w/p.h5", "text": "/etc/x"}})
    names = ("/data/a.png", "/data/deep/b.png", "/other/c.png", "/tmp/d.png", "https://x.org/e.png")
    inputs = [BatchInput(key=str(number), args={"image": name}) for number, name in enumerate(names)]
    shown = [str(path) for path in plan_batch(batch, inputs).binds()]
    assert shown == ["/data", "/other", "/tmp/d.png", "/w"]


@pytest.mark.parametrize(
    ("patterns", "shown"),
    [
        (["/data/set/{}"], ["/data/set"]),
        (["/data/set/{}/img", "/data/other"], ["/data/other", "/data/set"]),
        (["/pfs/home/me/a/{}", "/pfs/home/me/b/{}"], ["/pfs/home/me/a", "/pfs/home/me/b"]),
        (["/tmp/x/{}"], ["/tmp/x"]),
    ],
)
def test_many_folders_are_shown_by_the_folders_they_lie_in(patterns: list[str], shown: list[str]) -> None:
    names = [pattern.format(number) for pattern in patterns for number in range(1500)]
    inputs = [BatchInput(key=str(number), args={"image": f"{name}/a.png"}) for number, name in enumerate(names)]
    found = plan_batch(BATCH, inputs).binds(Path("/home/me"), Path("/pfs/home/me"))
    assert [str(path) for path in found] == shown


def test_few_folders_stay_as_they_are() -> None:
    found = {Path(f"/data/set/{number}") for number in range(20)}
    assert fewer_folders(found, frozenset()) == found


@pytest.mark.parametrize("above", ["/data", "/usr/local", "/opt/conda", "/srv/module", "/tmp", "/pfs/home", "/var/tmp"])
def test_no_folder_is_shown_that_holds_far_more_or_hides_the_image(above: str) -> None:
    found = {Path(above, str(number)) for number in range(30)}
    assert fewer_folders(found, frozenset(Path("/pfs/home/me").parents)) == found


def test_what_holds_for_all_inputs_is_checked_against_the_module(tmp_path: Path) -> None:
    shared = parse_shared(["top=3", "prior=p.h5"], "text/csv", DECLARED, cwd=tmp_path, inputs=["image"])
    assert shared == ({"top": 3, "prior": f"{tmp_path}/p.h5"}, "text/csv")
    assert parse_shared(["accept=text/csv"], None, DECLARED, cwd=tmp_path, inputs=["image"]) == ({}, "text/csv")
    assert parse_shared(["a=1"], "x/y", None, cwd=tmp_path, inputs=["image"]) == ({"a": "1"}, "x/y")


@pytest.mark.parametrize(
    ("words", "accept", "inputs", "message"),
    [
        (["tpo=3"], None, ["image"], "no argument --arg tpo"),
        (["top=x"], None, ["image"], "--arg top: 'x' is not a whole number"),
        (["top"], None, ["image"], "--arg 'top' is not NAME=VALUE"),
        (["top=\udcff"], None, ["image"], "not valid UTF-8"),
        ([], None, ["prior"], "the module needs --input image"),
        (["image=a"], None, ["image"], "image is given by --arg and by --input"),
        ([], "image/png", ["image"], "--accept: 'image/png' is not among its choices"),
        (["accept=text/csv"], "text/csv", ["image"], "say the same thing twice"),
    ],
)
def test_a_mistake_in_what_holds_for_all_is_named(
    tmp_path: Path, words: list[str], accept: str | None, inputs: list[str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse_shared(words, accept, DECLARED, cwd=tmp_path, inputs=inputs)
    assert message in caught.value.message
    assert caught.value.hint


def test_the_table_has_every_input_in_order_whatever_became_of_it(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(6), tasks=3)
    folder = run_folder(tmp_path / "predict-a-0001", plan)
    keys = [each.key for each in plan.inputs]
    answer(folder, 0, keys[1], {"status": "OK", "predictions": [{"digit": 7, "probability": 0.9, "likeliest": []}]})
    answer(folder, 0, keys[0], {"status": "OK", "predictions": {"labels": ["a", "b"], "probabilities": [0.1, 0.8]}})
    tell(folder, 1, {"key": keys[2], "ok": False, "file": None, "seconds": 1.0, "error": "not\nan image"})
    answer(folder, 1, keys[3], "digit,probability\n1,2\n", ".csv")
    folder.task(2).path.mkdir(parents=True)
    folder.task(2).result.write_text('{"state": "OUT_OF_MEMORY", "reason": "the kernel killed it"}')
    summary = merge_results(folder)
    assert (summary.inputs, summary.ok, summary.failed, summary.missing) == (6, 3, 1, 2)
    assert [row["key"] for row in rows(folder)] == keys
    found = table(folder)
    assert [row["ok"] for row in found] == ["true", "true", "false", "true", "", ""]
    assert (found[0]["input"], found[0]["label"], found[0]["probability"]) == ("/data/000.png", "b", "0.8")
    assert (found[1]["result.digit"], found[1]["result.probability"]) == ("7", "0.9")
    assert found[2]["error"] == "not\nan image"
    assert Path(found[3]["output"]).read_text().startswith("digit,")
    assert found[5]["error"] == "task 2 ended OUT_OF_MEMORY: the kernel killed it"
    assert summary.failures[0].error == "not\nan image"


def test_the_table_is_the_same_until_something_changes(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(2))
    folder = run_folder(tmp_path / "run", plan)
    assert merge_results(folder).missing == 2
    answer(folder, 0, plan.inputs[1].key, [1, 2])
    merge_results(folder)
    before = [(folder.path / name).read_bytes() for name in ("results.jsonl", "results.csv")]
    merge_results(folder)
    assert [(folder.path / name).read_bytes() for name in ("results.jsonl", "results.csv")] == before
    assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []


def test_half_a_line_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(2))
    folder = run_folder(tmp_path / "run", plan)
    answer(folder, 0, plan.inputs[0].key, 1)
    path = folder.task(0).output / "results.jsonl"
    path.write_bytes(path.read_bytes() + b'[]\n\xff\n{"key": 5}\n{"key": "' + plan.inputs[1].key.encode())
    assert (merge_results(folder).ok, merge_results(folder).missing) == (1, 1)


def test_a_result_outlasts_a_later_failure_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(2))
    folder = run_folder(tmp_path / "run", plan)
    first, second = (each.key for each in plan.inputs)
    answer(folder, 0, first, 1)
    tell(folder, 0, {"key": first, "ok": False, "error": "no"})
    tell(folder, 0, {"key": second, "ok": False, "error": "no"})
    answer(folder, 0, second, 2)
    assert merge_results(folder).ok == 2


def test_an_answer_that_was_removed_is_missing(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(1))
    folder = run_folder(tmp_path / "run", plan)
    answer(folder, 0, plan.inputs[0].key, 1)
    (folder.task(0).output / f"{plan.inputs[0].key}.json").unlink()
    assert merge_results(folder).missing == 1
    assert "was removed" in str(rows(folder)[0]["error"])


def test_an_answer_repeated_in_its_line_is_taken_from_there(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(1))
    folder = run_folder(tmp_path / "run", plan)
    answer(folder, 0, plan.inputs[0].key, "in the file")
    tell(folder, 0, {"key": plan.inputs[0].key, "ok": True, "file": f"{plan.inputs[0].key}.json", "result": "here"})
    merge_results(folder)
    assert rows(folder)[0]["result"] == "here"


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(1))
    folder = run_folder(tmp_path / "run", plan)
    answer(folder, 0, plan.inputs[0].key, {"x": float("nan"), "y": 1})
    merge_results(folder)
    assert rows(folder)[0]["result"] == {"x": None, "y": 1}


LONG = "x" * 2**20  # with this an answer is too large for the table


@pytest.mark.parametrize(
    ("said", "columns"),
    [
        (
            {"labels": ["a", "b"], "probabilities": [0.1, 0.8], "heat map": LONG},
            {"label": "b", "probability": "0.8", "left_out": "result.heat map (1048576 characters)"},
        ),
        (
            [{"label": "cell", "score": 0.5, "box": [number, 0, 12, 34]} for number in range(25_000)],
            {"label": "cell", "probability": "0.5", "objects": "25000", "left_out": "result (25000 items)"},
        ),
        (
            {"status": "OK", "predictions": {"mask": [[0] * 1024] * 512, "area": 7}},
            {"result.area": "7", "left_out": "result.mask (512 items)"},
        ),
    ],
)
def test_an_answer_too_large_for_the_table_has_its_columns(
    tmp_path: Path, said: object, columns: dict[str, str]
) -> None:
    plan = plan_batch(BATCH, some_inputs(2))
    folder = run_folder(tmp_path / "predict-a-0001", plan)
    answer(folder, 0, plan.inputs[0].key, said)
    answer(folder, 0, plan.inputs[1].key, {"n": 1})
    assert merge_results(folder).ok == 2
    assert [row["result"] for row in rows(folder)] == [None, {"n": 1}]
    again = run_folder(tmp_path / "predict-a-0002", plan_batch(BATCH, plan.inputs, done=load_done(folder)))
    merge_results(again)
    for each in (folder, again):
        assert columns.items() <= table(each)[0].items()
        assert Path(table(each)[0]["output"]).stat().st_size > 2**20


def test_an_answer_too_large_to_be_read_is_named_and_kept(tmp_path: Path) -> None:
    plan = plan_batch(BATCH, some_inputs(1))
    folder = run_folder(tmp_path / "run", plan)
    answer(folder, 0, plan.inputs[0].key, [])
    os.truncate(folder.task(0).output / f"{plan.inputs[0].key}.json", 70 * 10**6)  # takes no room
    assert merge_results(folder).ok == 1
    assert table(folder)[0]["left_out"] == "the answer (70 MB)"


def test_going_on_predicts_only_what_has_no_result(tmp_path: Path) -> None:
    inputs = some_inputs(4)
    first = run_folder(tmp_path / "predict-a-0001", plan_batch(BATCH, inputs, tasks=2))
    answer(first, 0, inputs[0].key, 10)
    tell(first, 0, {"key": inputs[1].key, "ok": False, "error": "no"})
    answer(first, 1, inputs[3].key, 13)
    more = some_inputs(5)
    plan = plan_batch(BATCH.model_copy(update={"resumes": "predict-a-0001"}), more, tasks=2, done=load_done(first))
    assert [each.key for each in plan.todo] == [more[1].key, more[2].key, more[4].key]
    second = run_folder(tmp_path / "predict-a-0002", plan)
    assert [len(todo_of(second, task)) for task in (0, 1)] == [2, 1]
    for task in (0, 1):
        for one in todo_of(second, task):
            answer(second, task, str(one["key"]), 20)
    summary = merge_results(second)
    assert (summary.inputs, summary.ok) == (5, 5)
    assert [row["result"] for row in rows(second)] == [10, 20, 20, 13, 20]
    assert [row["run"] for row in rows(second)][::3] == ["predict-a-0001", "predict-a-0001"]
    third = plan_batch(BATCH, more, done=load_done(second))
    assert third.todo == ()
    assert third.array.tasks == ()


def test_results_of_other_questions_do_not_go_into_one_table() -> None:
    check_same(BATCH, BATCH.model_copy(update={"tasks": 7, "resumes": "x"}), "r")
    with pytest.raises(InputError, match=r'--arg is ."top": 2., and was ."top": 3. in run r'):
        check_same(BATCH, BATCH.model_copy(update={"arguments": {"top": 3}}), "r")
    with pytest.raises(InputError, match="the target is plankton, and was leaves"):
        check_same(BATCH, BATCH.model_copy(update={"target": "leaves"}), "r")


def test_a_run_that_is_no_batch_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no batch of predictions"):
        merge_results(RunFolder(tmp_path))


def test_a_table_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", plan_batch(BATCH, some_inputs(1)))
    assert load_batch(folder).target == "plankton"
    (folder.path / "results.csv").mkdir()
    with pytest.raises(SiteError, match="cannot write"):
        merge_results(folder)
