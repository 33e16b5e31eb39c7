"""What sbatch answers, and the environment Slurm's commands get."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs.slurm_answers import (
    classify_sbatch_failure,
    clean_environment,
    outside_of_any_job,
    parse_sbatch_id,
    refusal_reason,
    said_beside_id,
)
from deephpc.jobs.slurm_reasons import explain_refusal
from deephpc.shell import Completed

RECORDED = Path(__file__).parent.parent / "recorded"


@pytest.mark.parametrize(
    ("stdout", "stderr", "said"),
    [
        ("4711\n", "", ()),
        ("4711;box\n", "sbatch: moved to short\n", ("moved to short",)),
        ("Welcome to the cluster\nSubmitted batch job 4711\n\n", "", ("Welcome to the cluster",)),
        (
            "4711\n",
            "sbatch: debug:  power_save\nsbatch: debug2: x\nsbatch: 12 h left\n\nsbatch: 12 h left\n",
            ("12 h left",),
        ),
        (
            "4711\n",
            "".join(f"line {number}\n" for number in range(1000)),
            tuple(f"line {number}" for number in range(20)),
        ),
    ],
)
def test_what_is_said_beside_the_id_is_kept(stdout: str, stderr: str, said: tuple[str, ...]):
    assert said_beside_id(Completed(("sbatch",), 0, stdout, stderr)) == said


def refusals() -> list[tuple[str, int, str]]:
    """Return (request, exit status, what was said) from the recordings."""
    found = []
    for path in sorted(RECORDED.glob("slurm-*-refusals.txt")):
        for block in path.read_text(encoding="utf-8").split("\n$ ")[1:]:
            request, _, rest = block.partition("\n")
            said, _, status = rest.rpartition("rc=")
            if int(status) != 0:
                found.append((f"{path.name}: {request}", int(status), said))
    return found


def failed(stderr: str, returncode: int | None = 1, stdout: str = "") -> Completed:
    return Completed(("sbatch",), returncode, stdout, stderr)


@pytest.mark.parametrize(("request_", "status", "said"), refusals())
def test_every_recorded_refusal_is_told_as_one(request_: str, status: int, said: str):
    assert classify_sbatch_failure(failed(said, status)) == "refused", request_
    assert "\n" not in refusal_reason(said)
    assert refusal_reason(said)


@pytest.mark.parametrize(
    ("request_", "status", "said"), [case for case in refusals() if "submission failed" in case[2]]
)
def test_every_refusal_of_the_controller_has_a_hint_of_its_own(request_: str, status: int, said: str):
    assert not explain_refusal(refusal_reason(said)).startswith("nothing was queued"), request_


@pytest.mark.parametrize(
    ("request_", "status", "said"), [case for case in refusals() if "submission failed" not in case[2]]
)
def test_every_refusal_of_sbatchs_own_has_a_hint_of_its_own(request_: str, status: int, said: str):
    assert not explain_refusal(refusal_reason(said)).startswith("nothing was queued"), request_


def test_the_recordings_hold_what_sbatch_itself_refuses():
    own = [said for _, _, said in refusals() if "submission failed" not in said]
    assert sum("mutually exclusive" in said for said in own) > 10
    assert sum("known by database" in said for said in own) > 5
    assert sum("cli_filter" in said for said in own) == 2


@pytest.mark.parametrize(
    "stderr",
    [
        "sbatch: error: a message of some later release",
        "== Welcome to the cluster ==\nsbatch: fatal: --blue and --green are mutually exclusive",
        "Invalid time specification (pos=0): soon\nsbatch: error: Invalid --begin specification",
        "sbatch: option '--reboot' doesn't allow an argument\nTry \"sbatch --help\" for more information",
    ],
)
def test_sbatchs_last_word_before_it_sent_anything_is_a_refusal(stderr: str):
    assert classify_sbatch_failure(failed(stderr)) == "refused"
    assert classify_sbatch_failure(failed(stderr, 255)) == "refused"


@pytest.mark.parametrize(
    ("stderr", "status"),
    [
        ("sbatch: error: a plugin could not be loaded\nsbatch-wrapper: cannot write the journal", 1),
        ("sbatch: error: a plugin could not be loaded", 124),
        ("sbatch: error: a plugin could not be loaded", 137),
        ("sbatch: error: Slurm job queue full, sleeping and retrying", 1),
        ("sbatch: error: There is a problem talking to the database: Connection refused.", 1),
        ("sbatch: lua: your budget is nearly used up", 1),
    ],
)
def test_a_word_of_sbatchs_that_need_not_be_its_last_is_looked_up(stderr: str, status: int):
    assert classify_sbatch_failure(failed(stderr, status)) == "ambiguous"


@pytest.mark.parametrize(
    "stderr",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sbatch: error: Batch job submission failed: Unexpected message received",
        "sbatch: error: Batch job submission failed: Transport endpoint is not connected",
        "sbatch: error: slurm_receive_msg [10.0.0.1:6817]: Unexpected missing socket error",
        "sbatch: error: Slurm controller not responding, sleeping and retrying\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
        "sbatch: error: Batch job submission failed: Invalid authentication credential",
        "sbatch: error: Batch job submission failed: words never heard of",
        "words never heard of",
        "",
    ],
)
def test_whatever_is_not_surely_a_refusal_is_looked_up(stderr: str):
    assert classify_sbatch_failure(failed(stderr)) == "ambiguous"


@given(st.text(max_size=60), st.sampled_from([None, -9, -15, 0]))
def test_a_deadline_or_a_signal_is_never_a_refusal(stderr: str, returncode: int | None):
    assert classify_sbatch_failure(failed(stderr, returncode)) == "ambiguous"


def test_a_failure_after_an_id_was_printed_is_looked_up():
    said = "sbatch: error: Batch job submission failed: Invalid partition name specified"
    assert classify_sbatch_failure(failed(said, stdout="4711\n")) == "ambiguous"


@pytest.mark.parametrize("option", ["--cluster", "SBATCH_CLUSTERS", "SLURM_CLUSTERS"])
def test_a_cluster_that_does_not_exist_is_refused_at_once(option: str):
    said = (  # of 22.05.8 and 24.11.5
        "sbatch: error: No cluster 'nope' known by database.\n"
        f"sbatch: error: 'nope' can't be reached now, or it is an invalid entry for {option}.  "
        "Use 'sacctmgr list clusters' to see available clusters.\n"
    )
    assert classify_sbatch_failure(failed(said)) == "refused"
    assert "sacctmgr show cluster`" in explain_refusal(refusal_reason(said))


def test_the_sites_own_words_come_before_slurms():
    said = "sbatch: error: GPU jobs need an account\nsbatch: error: Batch job submission failed: Unspecified error\n"
    assert classify_sbatch_failure(failed(said)) == "refused"
    assert refusal_reason(said) == "GPU jobs need an account"


def test_what_a_filter_of_the_site_says_is_not_followed_by_its_name():
    said = "sbatch: error: lua: Please name a project\nsbatch: error: cli_filter plugin terminated with error\n"
    assert refusal_reason(said) == "lua: Please name a project"
    assert refusal_reason("sbatch: error: cli_filter plugin terminated with error") != ""


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        ("4711\n", "4711"),
        ("4711;big\n", "4711;big"),
        ("== Welcome to the cluster ==\nYour balance: 12\n4711\n", "4711"),
        ("Submitted batch job 4711\n", "4711"),
        ("Submitted batch job 4711 on cluster big", "4711;big"),
        ("4711\nHave a nice day\n\n", "4711"),
    ],
)
def test_the_id_is_found_amid_a_wrappers_chatter(stdout: str, expected: str):
    assert parse_sbatch_id(stdout) == expected


@pytest.mark.parametrize("stdout", ["", "hello\n", "0\n", "7_3\n", "job 4711 queued"])
def test_no_id_is_made_up(stdout: str):
    with pytest.raises(ValueError, match="no job id"):
        parse_sbatch_id(stdout)


@given(st.text(max_size=80))
def test_any_output_has_an_id_or_none(stdout: str):
    try:
        assert parse_sbatch_id(stdout)
    except ValueError as error:
        assert "no job id" in str(error)


def test_variables_that_change_the_output_are_taken_away():
    cleaned = clean_environment(
        {
            "PATH": "/bin",
            "SQUEUE_FORMAT": "%i",
            "SACCT_FORMAT": "jobid",
            "SLURM_TIME_FORMAT": "relative",
            "SLURM_BITSTR_LEN": "8",
            "SLURM_JOB_ID": "7",
            "SLURM_CONF": "/etc/slurm.conf",
            "TZ": "Europe/Lisbon",
        }
    )
    assert cleaned == {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_TIME_FORMAT": "%s",
        "SLURM_BITSTR_LEN": "0",
        "TZ": "UTC",
    }


def test_a_job_submitted_inside_a_job_is_not_shaped_by_it():
    inside = {
        "SLURM_JOB_ID": "7",
        "SLURM_MEM_PER_NODE": "1000",
        "SLURMD_NODENAME": "n1",
        "SLURM_CONF": "c",
        "HOME": "/h",
    }
    assert outside_of_any_job(inside) == {"SLURM_CONF": "c", "HOME": "/h"}


def test_outside_of_a_job_the_users_own_variables_stay():
    assert outside_of_any_job({"SLURM_HINT": "nomultithread"}) == {"SLURM_HINT": "nomultithread"}
