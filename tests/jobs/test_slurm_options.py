"""The `#SBATCH` lines: what deephpc writes, and what it lets the user add."""

import string
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.errors import InputError
from deephpc.jobs.slurm_controller import clusters_meant
from deephpc.jobs.slurm_option_names import OURS_ALWAYS, SHORT, VALUE_NEEDED
from deephpc.jobs.slurm_options import Dialect, check_raw_options, quote_directive, render_directives
from deephpc.jobs.spec import Array, Dependency, Environment, JobSpec, Mail, Resources

GPUS_PER_NODE = Dialect()
GRES = Dialect(gpu_request="gres")
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40).filter(
    str.isprintable
)


def spec(**changes: Any) -> JobSpec:
    fields = {
        "run_id": "train-x-7f3a",
        "token": "0123456789abcdef",
        "kind": "train",
        "folder": Path("/fast/runs/train-x-7f3a"),
        "command": ("python", "train.py"),
        "workdir": Path("/work"),
        "resources": Resources(),
        "environment": Environment(),
    }
    return JobSpec(**{**fields, **changes})


def directive_words(line: str) -> list[str]:
    """Split the rest of an `#SBATCH` line as sbatch does: a model of `_get_argument` in src/sbatch/opt.c."""
    words: list[str] = []
    position = 0
    while True:
        while position < len(line) and line[position] in string.whitespace:
            position += 1
        if position >= len(line) or line[position] == "#":
            return words
        word, quote = "", ""
        while position < len(line) and (quote or line[position] not in string.whitespace):
            character = line[position]
            position += 1
            if character == "\\":
                if position < len(line) and (quote or line[position] not in string.whitespace):
                    word += line[position]
                    position += 1
            elif quote and character == quote:
                quote = ""
            elif not quote and character in "\"'":
                quote = character
            elif not quote and character == "#":
                return [*words, word]
            else:
                word += character
        words.append(word)


@given(PRINTABLE)
def test_a_quoted_word_reads_back_as_itself(word: str):
    assert directive_words(quote_directive(word)) == [word]


@given(st.sampled_from(["--wckey", "--reservation"]), PRINTABLE)
def test_a_quoted_value_reads_back_as_itself(option: str, value: str):
    assert directive_words(quote_directive(f"{option}={value}")) == [f"{option}={value}"]


@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_raw_text_is_taken_or_refused_and_never_makes_a_second_line(raw: list[str]):
    try:
        options = check_raw_options(raw)
    except InputError as error:
        assert error.hint
        return
    for line in render_directives(spec(raw_options=options), GRES):
        assert len(line.splitlines()) == 1
        assert len(directive_words(line.removeprefix("#SBATCH"))) == 1


@pytest.mark.parametrize("said", ["--clusters=box", "-M box", "-Mbox", "--cluster box,big"])
def test_clusters_are_the_users_and_stand_in_no_directive(said: str):
    options = check_raw_options([said, "--nice=10"])
    assert clusters_meant({"SBATCH_CLUSTERS": "other"}, options)[0] == "box"
    assert not any("box" in line for line in render_directives(spec(raw_options=options), GRES))


#: Joined with ours, or given to sbatch itself.
ELSEWHERE = {"gres", "tres-per-task", "cluster", "clusters"}


@given(st.sampled_from(sorted(set(VALUE_NEEDED) - set(OURS_ALWAYS) - ELSEWHERE)), PRINTABLE)
def test_a_raw_value_reaches_the_directive_exactly(name: str, value: str):
    if VALUE_NEEDED[name] == "no":
        assert check_raw_options([f"--{name}"]) == (f"--{name}",)
        return
    quoted = "'" + value.replace("'", "'\"'\"'") + "'"
    options = check_raw_options([f"--{name}={quoted}"])
    line = render_directives(spec(raw_options=options), GRES)[-1]
    assert directive_words(line.removeprefix("#SBATCH")) == [f"--{name}={value}"]


def test_every_fact_has_one_line_in_a_fixed_order():
    whole = spec(
        resources=Resources(
            nodes=2,
            tasks_per_node=4,
            cpus_per_task=8,
            gpus_per_node=4,
            gpu_type="a100",
            memory_mib=16384,
            walltime=timedelta(hours=26),
            partition="gpu",
            account="proj",
            qos="long",
            constraint="a100&nvlink",
            exclusive=True,
        ),
        array=Array(tasks=(0, 1, 2, 7), at_once=2),
        dependencies=(
            Dependency(kind="afterok", job_ids=("12", "13;big")),
            Dependency(kind="afterany", job_ids=("5_3",)),
        ),
        max_requeues=2,
        mail=Mail(address="me@example.org"),
        raw_options=("--reservation=my res",),
    )
    assert render_directives(whole, GPUS_PER_NODE) == (
        "#SBATCH --job-name=train-x-7f3a.01234567",
        "#SBATCH --comment=deephpc:train-x-7f3a:0123456789abcdef",
        "#SBATCH --output=job-%a.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --gpus-per-node=a100:4",
        "#SBATCH --mem=16G",
        "#SBATCH --time=1-02:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=proj",
        "#SBATCH --qos=long",
        "#SBATCH --constraint=a100&nvlink",
        "#SBATCH --exclusive",
        "#SBATCH --array=0-2,7%2",
        "#SBATCH --dependency=afterok:12:13,afterany:5_3",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@60",
        "#SBATCH --mail-user=me@example.org",
        "#SBATCH --mail-type=END,FAIL",
        '#SBATCH --reservation="my res"',
    )


def test_a_job_that_asks_for_nothing_leaves_resources_to_the_site():
    """Slurm's signal too: its partition's time limit may leave no room for it, so the job script asks and tells."""
    assert render_directives(spec(), GPUS_PER_NODE) == (
        "#SBATCH --job-name=train-x-7f3a.01234567",
        "#SBATCH --comment=deephpc:train-x-7f3a:0123456789abcdef",
        "#SBATCH --output=job.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --no-requeue",
    )


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (GPUS_PER_NODE, ["#SBATCH --gpus-per-node=2"]),
        (GRES, ["#SBATCH --gres=gpu:2"]),
        (Dialect(gpu_request="none"), []),
    ],
)
def test_gpus_are_asked_for_once_and_as_the_site_wants(dialect: Dialect, expected: list[str]):
    lines = render_directives(spec(resources=Resources(gpus_per_node=2)), dialect)
    assert [line for line in lines if "gpu" in line] == expected


def test_the_users_other_generic_resources_join_ours_on_a_gres_site():
    asked = spec(resources=Resources(gpus_per_node=2), raw_options=("--gres=lustre:1",))
    assert [line for line in render_directives(asked, GRES) if "gres" in line] == ["#SBATCH --gres=gpu:2,lustre:1"]
    assert "#SBATCH --gres=lustre:1" in render_directives(asked, GPUS_PER_NODE)


def test_memory_is_left_out_where_the_site_takes_none():
    asked = spec(resources=Resources(memory_mib=0))
    assert "#SBATCH --mem=0M" in render_directives(asked, GPUS_PER_NODE)
    assert not any("--mem" in line for line in render_directives(asked, Dialect(memory_request=False)))


def test_tasks_per_node_always_come_with_a_number_of_nodes():
    lines = render_directives(spec(resources=Resources(tasks_per_node=4)), GPUS_PER_NODE)
    assert "#SBATCH --nodes=1" in lines


@pytest.mark.parametrize(("minutes", "grace_s", "signalled"), [(2, 60, False), (3, 60, True), (60, 0, False)])
def test_a_job_too_short_for_its_grace_period_is_not_told_to_stop_as_it_starts(
    minutes: int, grace_s: int, signalled: bool
):
    asked = spec(resources=Resources(walltime=timedelta(minutes=minutes)), grace=timedelta(seconds=grace_s))
    assert any("--signal" in line for line in render_directives(asked, GPUS_PER_NODE)) is signalled


@pytest.mark.parametrize("name", sorted(OURS_ALWAYS))
def test_what_deephpc_sets_is_refused_with_what_to_use_instead(name: str):
    text = f"--{name}=1" if VALUE_NEEDED[name] != "no" else f"--{name}"
    with pytest.raises(InputError, match=f"--{name} is set by deephpc") as caught:
        check_raw_options([text])
    assert caught.value.hint == OURS_ALWAYS[name]


@pytest.mark.parametrize("letter", sorted(letter for letter, name in SHORT.items() if name in OURS_ALWAYS))
@pytest.mark.parametrize("form", ["-{} 1", "-{}1", "-{}"])
def test_short_forms_of_what_deephpc_sets_are_refused_too(letter: str, form: str):
    with pytest.raises(InputError):
        check_raw_options([form.format(letter)])


@pytest.mark.parametrize("text", ["--job=x", "--partitio=p", "--dep afterok:1", "--outpu=x", "--ntasks-per-n=3"])
def test_sbatchs_own_abbreviations_are_refused_naming_the_option(text: str):
    with pytest.raises(InputError, match="sbatch has no option") as caught:
        check_raw_options([text])
    assert "did you mean --" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["--gres=gpu:2", "--gres gpu", "--gres=lustre:1,gpu:a100:1", "--tres-per-task=gres/gpu:1", "--tres-per-task=gpu=1"],
)
def test_gpus_by_the_back_door_are_refused(text: str):
    with pytest.raises(InputError, match="asks for GPUs"):
        check_raw_options([text])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["--reservation foo"], ("--reservation=foo",)),
        (["--reservation=foo"], ("--reservation=foo",)),
        (["-w n1,n2 -x n3"], ("--nodelist=n1,n2", "--exclude=n3")),
        (["-wn1"], ("--nodelist=n1",)),
        (["--nice", "--hold"], ("--nice", "--hold")),
        (["--nice=100 -H"], ("--nice=100", "--hold")),
        (["--licenses 'a b'"], ("--licenses=a b",)),
        (["--gres=lustre:1"], ("--gres=lustre:1",)),
        ([""], ()),
    ],
)
def test_the_users_own_options_come_out_one_word_each(raw: list[str], expected: tuple[str, ...]):
    assert check_raw_options(raw) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("--hold\n#SBATCH --account=x", "control character"),
        ("--wckey=a\x1b[0m", "control character"),
        ("job.sh", "not an option"),
        ("-", "not an option"),
        ("--", "no option"),
        ("--reservation", "needs a value"),
        ("--reservation --hold", "needs a value"),
        ("--hold=yes", "takes no value"),
        ("-Hk", "takes no value"),
        ("--wckey 'a", "cannot be read"),
        ("--hold -H", "twice"),
        ("--no-such", "no option"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(text: str, reason: str):
    with pytest.raises(InputError, match=reason) as caught:
        check_raw_options([text])
    assert caught.value.hint


def test_every_line_of_every_job_is_one_printable_line():
    for line in render_directives(spec(array=Array(tasks=(1,))), GRES):
        assert line.isprintable()
        assert line.startswith("#SBATCH --")


def test_a_dependency_may_name_one_task_of_an_array():
    waits = spec(dependencies=(Dependency(kind="afterok", job_ids=("4711_3", "18_1;big")),))
    assert "#SBATCH --dependency=afterok:4711_3:18_1" in render_directives(waits, GPUS_PER_NODE)
