"""Reasons in words, each with a next step."""

import inspect
import re
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from deephpc.cli import app, jobs
from deephpc.jobs import slurm_reasons
from deephpc.jobs.slurm_reasons import Explanation, explain_end, explain_pending, explain_refusal
from deephpc.jobs.state import JobState

RECORDED = Path(__file__).parent.parent / "recorded"
_KINDS = ["BB", "Billing", "Cpu", "CPU", "Energy", "GRES", "License", "Mem", "Memory", "Node", "Unknown"]


def each(form: str) -> str:
    """Return a name of a family for each kind of resource Slurm counts."""
    return " ".join(form.format(kind) for kind in _KINDS)


#: What a person does about a reason: words of the explanation and of the next step → the reasons.
FAMILIES = {
    ("", "nothing to do but wait"): "None Resources BeginTime Licenses Reservation Cleaning Prolog JobArrayTaskLimit "
    "BurstBufferResources BurstBufferStageIn FedJobLock SchedDefer MaxPoweredUpNodes MpiPortsBusy PowerNotAvail "
    "PowerReserved BlockFreeAction WaitingForScheduling",
    ("", "wait; less --time"): "Priority",
    ("another job must end", "jobs show RUN"): "Dependency",
    ("never lets this one start", "jobs cancel RUN"): "DependencyNeverSatisfied",
    ("your jobs run or wait", "wait for your other jobs to end"): "AssociationJobLimit AssocMaxJobsLimit "
    "AssocMaxSubmitJobLimit QOSJobLimit QOSMaxJobsPerUserLimit QOSMaxSubmitJobPerUserLimit MaxJobsPerAccount "
    "MaxSubmitJobsPerAccount",
    ("jobs of your group run or wait", "wait for others of the group"): "AssocGrpJobsLimit AssocGrpSubmitJobsLimit "
    "QOSGrpJobsLimit QOSGrpSubmitJobsLimit",
    ("group's running jobs together use", "wait for others of the group"): "AssociationResourceLimit QOSResourceLimit "
    + " ".join(each(form) for form in ("AssocGrp{}", "AssocGrp{}Limit", "QOSGrp{}", "QOSGrp{}Limit")),
    ("your running jobs together use", "wait for your other jobs to end, or"): " ".join(
        each(form) for form in ("QOSMax{}PerUser", "QOSMax{}PerUserLimit", "Max{}PerAccount")
    ),
    ("still have to run", "less --time"): " ".join(
        each(form)
        for form in (
            "AssocGrp{}RunMinutes", "AssocGrp{}RunMinutesLimit", "QOSGrp{}RunMinutes", "QOSGrp{}RunMinutesLimit",
            "Max{}RunMinsPerAccount", "Max{}RunMinsPerUser",
        )
    ),
    ("budget", "--account"): "AssocGrpWallLimit QOSGrpWallLimit "
    + " ".join(
        each(form)
        for form in ("AssocGrp{}Minutes", "AssocGrp{}MinutesLimit", "QOSGrp{}Minutes", "QOSGrp{}MinutesLimit")
    ),
    ("site allows one job", "cancel it"): "AssociationTimeLimit QOSTimeLimit AssocMaxWallDurationPerJobLimit "
    "QOSMaxWallDurationPerJobLimit QOSMinCpuNotSatisfied "
    + " ".join(
        each(form)
        for form in (
            "AssocMax{}PerJob", "AssocMax{}PerJobLimit", "AssocMax{}PerNode", "AssocMax{}MinutesPerJob",
            "AssocMax{}MinutesPerJobLimit", "QOSMax{}PerJob", "QOSMax{}PerJobLimit", "QOSMax{}PerNode",
            "QOSMax{}MinutesPerJob", "QOSMax{}MinutesPerJobLimit", "QOSMin{}",
        )
    ),
    ("", "ask for"): "BadConstraints Constraints MaxMemPerLimit PartitionConfig PartitionNodeLimit PartitionTimeLimit "
    "NodeDown ReqNodeNotAvail",
    ("", "--time"): "Deadline DeadLine TimeLimit PartitionTimeLimit",
    ("", "--partition"): "PartitionDown PartitionInactive",
    ("", "--account"): "AccountNotAllowed InvalidAccount",
    ("", "--qos"): "InvalidQOS QOSNotAllowed QOSUsageThreshold",
    ("reservation", "reservation"): "ReservationDeleted ReservationInvalid",
    ("held by you", "scontrol release"): "JobHeldUser",
    ("held", "logs RUN"): "JobHoldMaxRequeue",
    ("", "support"): "JobHeldAdmin FrontEndDown SystemFailure JobLaunchFailure AccountingPolicy BlockMaxError "
    "BurstBufferOperation",
    ("previous attempt", "logs RUN"): "NonZeroExitCode RaisedSignal InactiveLimit",
    ("memory", "--mem"): "OutOfMemory",
}  # fmt: skip


def reasons_of_the_releases() -> set[str]:
    """Return the names that the programs themselves have, from the recordings."""
    recorded = [path.read_text(encoding="utf-8").splitlines() for path in RECORDED.glob("slurm-*-reasons.txt")]
    assert len(recorded) == 2
    return {name for lines in recorded for name in lines[1:]}


@pytest.mark.parametrize("reason", sorted(reasons_of_the_releases()))
def test_every_reason_of_the_releases_says_what_a_person_does_about_it(reason: str):
    families = [words for words, names in FAMILIES.items() if reason in names.split()]
    assert families, f"{reason} has no row"
    explanation = explain_pending(reason)
    for text, next_step in families:
        assert text in explanation.text
        assert next_step in explanation.next_step
    if families[0][1] != "cancel it":
        assert "cancel it and ask for another amount" not in explanation.next_step


@pytest.mark.parametrize("reason", ["WaitingForScheduling", "Deadline", "AssocGrpBillingMinutes", "QOSMinGRES"])
def test_reasons_of_other_releases_are_explained(reason: str):
    assert not explain_pending(reason).text.startswith("Slurm says")


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
        "Nodes required for job are DOWN, DRAINED, POWERED_DOWN or reserved for jobs in higher priority partitions",
        "launch failed requeued held",
        "launch failure limit exceeded requeued held",
        "job requeued in held state",
        "job requeued in special exit state",
        "Job's account not permitted to use this partition (gpu allows proj1 not proj2)",
        "Job's QOS not permitted to use this partition (gpu denies low including low)",
        "Job's requested licenses are invalid: matlab",
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
    assert (
        named - {"--signal", "--clusters", "--wckey", "--reservation"} <= known
    )  # scancel's, and those for sbatch itself


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
