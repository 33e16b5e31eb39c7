"""Reasons in words, each with a next step."""

import inspect
import re

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from deephpc.cli import app, jobs
from deephpc.jobs import slurm_reasons
from deephpc.jobs.slurm_reasons import Explanation, explain_end, explain_pending, explain_refusal
from deephpc.jobs.state import JobState

#: JOB REASON CODES of squeue(1), Slurm 22.05, with members of its families (resource_limits.html).
DOCUMENTED = (
    "AssocGrpCpuLimit",
    "AssocGrpMemLimit",
    "AssocGrpCPUMinutesLimit",
    "AssocGrpCPURunMinutesLimit",
    "AssocGrpBillingMinutes",
    "AssocGrpGRES",
    "AssocGrpNodeLimit",
    "AssociationJobLimit",
    "AssocMaxJobsLimit",
    "AssocMaxWallDurationPerJobLimit",
    "AssocMaxCpuPerJobLimit",
    "AssocMaxSubmitJobLimit",
    "AssociationResourceLimit",
    "AssociationTimeLimit",
    "BadConstraints",
    "BeginTime",
    "Cleaning",
    "Dependency",
    "DependencyNeverSatisfied",
    "FrontEndDown",
    "InvalidAccount",
    "InvalidQOS",
    "JobArrayTaskLimit",
    "JobHeldAdmin",
    "JobHeldUser",
    "JobLaunchFailure",
    "Licenses",
    "MaxMemPerLimit",
    "NodeDown",
    "PartitionConfig",
    "PartitionDown",
    "PartitionInactive",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "Priority",
    "Prolog",
    "QOSGrpCpuLimit",
    "QOSGrpGRES",
    "QOSGrpNodeLimit",
    "QOSGrpSubmitJobsLimit",
    "QOSJobLimit",
    "QOSMaxCpuPerUserLimit",
    "QOSMaxGRESPerUser",
    "QOSMaxJobsPerUserLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "QOSMaxWallDurationPerJobLimit",
    "QOSMinGRES",
    "QOSResourceLimit",
    "QOSTimeLimit",
    "QOSUsageThreshold",
    "ReqNodeNotAvail",
    "Reservation",
    "Resources",
    "SystemFailure",
    "TimeLimit",
    "WaitingForScheduling",
)


@pytest.mark.parametrize("reason", DOCUMENTED)
def test_every_documented_reason_is_explained(reason: str):
    explanation = explain_pending(reason)
    assert not explanation.text.startswith("Slurm says")
    assert explanation.next_step


@pytest.mark.parametrize("reason", ["(Resources)", "ReqNodeNotAvail, UnavailableNodes:gpu[01-02]", "", "None"])
def test_reasons_are_known_with_their_details(reason: str):
    explanation = explain_pending(reason)
    assert not explanation.text.startswith("Slurm says")
    if "gpu" in reason:
        assert "UnavailableNodes:gpu[01-02]" in explanation.text


@pytest.mark.parametrize(
    "reason",
    [
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        "launch failed requeued held",
        "job requeued in special exit state",
    ],
)
def test_reasons_that_are_sentences_are_explained(reason: str):
    assert not explain_pending(reason).text.startswith("Slurm says")


@given(st.text(max_size=60))
def test_any_reason_is_explained_or_given_back(reason: str):
    explanation = explain_pending(reason)
    assert explanation.text
    assert explanation.next_step


def test_a_reason_never_heard_of_is_given_back_raw():
    assert explain_pending("FluxCapacitor").text == "Slurm says: FluxCapacitor"


@pytest.mark.parametrize("state", sorted(JobState))
def test_every_state_is_explained_with_a_next_step(state: JobState):
    explanation = explain_end(state)
    assert explanation.text
    assert explanation.next_step


@pytest.mark.parametrize(
    ("exit_code", "signal", "said"),
    [
        (7, None, "exit code 7"),
        (127, None, "not found"),
        (None, 11, "SIGSEGV"),
        (143, None, "SIGTERM"),
        (137, None, "memory"),
        (None, 63, "63"),
        (None, None, "could not start"),
    ],
)
def test_a_failure_names_its_exit_code_or_signal(exit_code: int | None, signal: int | None, said: str):
    assert said in explain_end(JobState.FAILED, exit_code, signal).text


@given(st.integers(-1000, 1000) | st.none(), st.integers(-10, 200) | st.none())
def test_no_exit_code_or_signal_is_an_exception(exit_code: int | None, signal: int | None):
    assert explain_end(JobState.FAILED, exit_code, signal).text


@pytest.mark.parametrize(
    ("given_mib", "said"),
    [(600, "than it was given (600M on"), (2048, "(2G on"), (0, "asks for none"), (None, "asks for none")],
)
def test_out_of_memory_names_what_was_given_where_none_was_asked_for(given_mib: int | None, said: str):
    assert said in explain_end(JobState.OUT_OF_MEMORY, given_mib=given_mib).text


@pytest.mark.parametrize(("memory_mib", "said"), [(4096, "(4G on"), (100, "(100M on"), (1536, "(1536M on")])
def test_out_of_memory_names_what_was_asked_for(memory_mib: int, said: str):
    explanation = explain_end(JobState.OUT_OF_MEMORY, memory_mib=memory_mib)
    assert said in explanation.text
    assert "--mem" in explanation.next_step


@pytest.mark.parametrize("memory_mib", [None, 0])
def test_out_of_memory_that_nobody_asked_for_is_the_sites(memory_mib: int | None):
    explanation = explain_end(JobState.OUT_OF_MEMORY, memory_mib=memory_mib)
    assert "it had asked for" not in explanation.text
    assert "the site gives" in explanation.text
    assert "--mem" in explanation.next_step


def test_every_option_that_a_hint_names_exists():
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), "run")
    known = {option for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", inspect.getsource(slurm_reasons)))
    assert "--max-requeues" in named
    assert named - {"--signal", "--wckey"} <= known  # scancel's, and one for sbatch itself


def test_every_option_that_a_hint_gives_to_rerun_exists():
    known = {
        option for parameter in typer.main.get_command(jobs.app).commands["rerun"].params for option in parameter.opts
    }
    named = set(re.findall(r"jobs rerun RUN (--[a-z-]+)", inspect.getsource(slurm_reasons)))
    assert {"--time", "--mem"} <= named <= known


def test_the_next_step_names_the_jobs_own_ids_and_changes_no_path():
    explanation = Explanation("", "`scontrol release JOBID`, `deephpc jobs rerun RUN --mem …`; see /RUN/x-RUN-1")
    named = "`scontrol release 113_4`, `deephpc jobs rerun run-a --mem …`; see /RUN/x-RUN-1"
    assert explanation.naming("run-a", "113_4").next_step == named


def test_a_refusal_never_heard_of_has_a_hint_too():
    assert "deephpc doctor" in explain_refusal("words never heard of")
