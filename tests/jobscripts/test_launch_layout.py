"""What a rank makes of Slurm's variables: the same as the tested parsers of the package, in bash."""

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from deephpc.jobs.slurm_hostlist import compress_hostlist, expand_counts, expand_hostlist
from deephpc.places import shipped

LAYOUT = shipped("jobscripts") / "launch_layout.sh"
LETTERS = st.text("abcxyz-", min_size=1, max_size=4).filter(lambda text: not text.startswith("-"))
SPANS = st.tuples(st.integers(0, 120), st.integers(0, 5), st.integers(1, 4)).map(
    lambda span: f"{span[0]:0{span[2]}d}-{span[0] + span[1]:0{span[2]}d}" if span[1] else f"{span[0]:0{span[2]}d}"
)
BRACKETS = st.lists(SPANS, min_size=1, max_size=3).map(lambda spans: f"[{','.join(spans)}]")
NAMES = st.lists(st.one_of(LETTERS, BRACKETS), min_size=1, max_size=4).map(lambda parts: "n" + "".join(parts))
HOSTLISTS = st.lists(NAMES, min_size=1, max_size=4).map(",".join)
COUNTS = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 5)), min_size=1, max_size=5).map(
    lambda pairs: ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in pairs)
)


def bash(function: str, texts: list[str]) -> list[list[str]]:
    """Call a function of launch_layout.sh once for each text; many in one shell, as starting it is what takes time."""
    program = '. "$1"; function=$2; shift 2; for text; do "$function" "$text"; printf "\\n--\\n"; done'
    done = subprocess.run(
        ["bash", "-u", "-c", program, "bash", LAYOUT, function, *texts], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return (
        [answer.split() for answer in done.stdout.split("--\n")[:-1]]
        if function != "edge_hosts"
        else _lines(done.stdout)
    )


def _lines(said: str) -> list[list[str]]:
    return [answer.strip("\n").split("\n") for answer in said.split("\n--\n")[:-1]]


@settings(max_examples=25)  # each tries up to twenty texts in one shell
@given(st.lists(HOSTLISTS, min_size=1, max_size=20))
def test_the_first_and_the_last_host_are_those_of_the_whole_list(lists: list[str]) -> None:
    names = [expand_hostlist(text) for text in lists]
    assert bash("edge_hosts", lists) == [[each[0], each[-1]] for each in names]


@settings(max_examples=25)  # each tries up to twenty texts in one shell
@given(
    st.lists(st.sets(st.from_regex(r"[a-z]{1,3}[0-9]{1,3}(-ib)?", fullmatch=True), min_size=1), min_size=1, max_size=10)
)
def test_what_slurm_would_write_is_read(sets: list[set[str]]) -> None:
    lists = [compress_hostlist(sorted(names)) for names in sets]
    assert bash("edge_hosts", lists) == [[expand_hostlist(text)[0], expand_hostlist(text)[-1]] for text in lists]


@settings(max_examples=25)  # each tries up to twenty texts in one shell
@given(st.lists(COUNTS, min_size=1, max_size=20))
def test_counts_are_written_out(texts: list[str]) -> None:
    assert bash("expand_counts", texts) == [[",".join(map(str, expand_counts(text)))] for text in texts]


def test_examples_from_real_clusters() -> None:
    lists = ["gpu[01-03,7],b1,r[1-2]n[3-4]-ib", "c1", "node-a,node-b"]
    assert bash("edge_hosts", lists) == [["gpu01", "r2n4-ib"], ["c1", "c1"], ["node-a", "node-b"]]
    assert bash("expand_counts", ["4,2(x3),1"]) == [["4,2,2,2,1"]]


def place(**slurm: str) -> dict[str, str]:
    names = ["RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "NODE_RANK", "TASKS", "ADDRESS", "PEER"]
    show = "; ".join(f'printf "%s\\n" "${{DEEPHPC_{name}-unset}}"' for name in names)
    done = subprocess.run(
        ["bash", "-u", "-c", f'. "$1"; find_place; {show}', "bash", LAYOUT],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **{f"SLURM_{name}": value for name, value in slurm.items()}},
    )
    return dict(zip(names, done.stdout.split("\n"), strict=False))


def test_what_belongs_to_the_step_goes_before_the_jobs() -> None:
    found = place(
        PROCID="3", NTASKS="9", STEP_NUM_TASKS="4", LOCALID="0", NODEID="1", TASKS_PER_NODE="5,4",
        STEP_TASKS_PER_NODE="3,1", JOB_NODELIST="other[1-2]", STEP_NODELIST="127.0.0.1,127.0.0.2",
    )  # fmt: skip
    assert found == {
        "RANK": "3", "SIZE": "4", "LOCAL_RANK": "0", "LOCAL_SIZE": "1", "NODE_RANK": "1", "TASKS": "3,1",
        "ADDRESS": "127.0.0.1", "PEER": "127.0.0.1",
    }  # fmt: skip


def test_the_first_node_looks_for_its_peer_at_the_last() -> None:
    step = {"PROCID": "0", "STEP_NUM_TASKS": "2", "LOCALID": "0", "NODEID": "0", "STEP_TASKS_PER_NODE": "1(x2)"}
    found = place(STEP_NODELIST="127.0.0.1,127.0.0.2", **step)
    assert (found["ADDRESS"], found["PEER"]) == ("127.0.0.1", "127.0.0.2")
    unknown = {**step, "STEP_NODELIST": "no-such-host.invalid,b"}
    assert place(**unknown)["ADDRESS"] == "no-such-host.invalid"
    assert place(**unknown, LAUNCH_NODE_IPADDR="10.0.0.7")["ADDRESS"] == "10.0.0.7"


def test_ranks_of_one_node_need_no_address() -> None:
    found = place(
        PROCID="1", STEP_NUM_TASKS="2", LOCALID="1", NODEID="0", STEP_TASKS_PER_NODE="2", STEP_NODELIST="c[7]"
    )
    assert (found["LOCAL_SIZE"], found["ADDRESS"], found["PEER"]) == ("2", "unset", "unset")
