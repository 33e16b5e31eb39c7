from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.jobs import slurm_probe as slurm
from deephpc.shell import Completed

# the lines of sinfo(1) as the format of sinfo_argv orders them
SINFO = "\n".join(
    line.replace("|", "\x1f")
    for line in (
        "debug*|up|1:00:00|30:00|1-2|8|6000|3|(null)|all",
        "gpu|up|2-00:00:00|n/a|1-infinite|64|512000|10|gpu:a100:4(S:0-1),tmp:100|staff,ml",
        "gpu|up|2-00:00:00|n/a|1-infinite|128|256000|4|gpu:a100:2(S:0)|staff,ml",
        "old|down|infinite|infinite|1-infinite|4+|100+|1|gpu:2|all",
        "welcome to the cluster",
    )
)
CONFIG = """Configuration data as of 1763700000
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = box
MpiDefault              = pmix
SLURM_VERSION           = 24.11.5
TmpFS                   = /tmp
Prolog                  = (null)

Slurmctld(primary) at ctl is UP
"""


def test_partitions_are_read_with_the_most_any_node_has() -> None:
    debug, gpu, old = slurm.parse_partitions(SINFO, {"ml"})
    assert (debug.name, debug.default, debug.max_walltime) == ("debug", True, timedelta(hours=1))
    assert (debug.default_walltime, debug.max_nodes, debug.gpus_per_node) == (timedelta(minutes=30), 2, 0)
    assert (gpu.node_count, gpu.cpus_per_node, gpu.memory_mib) == (14, 128, 512000)
    assert (gpu.gpus_per_node, gpu.gpu_type, gpu.max_nodes) == (4, "a100", None)
    assert (old.up, old.max_walltime, old.cpus_per_node, old.gpus_per_node) == (False, None, 4, 2)
    assert slurm.default_partition((gpu, debug)) == "debug"


@pytest.mark.parametrize(
    ("groups", "names"),
    [((), ["debug", "old"]), (("users", "m"), ["debug", "old"]), (("users", "staff"), ["debug", "gpu", "old"])],
)
def test_partitions_are_those_that_the_users_groups_may_use(groups: tuple[str, ...], names: list[str]) -> None:
    assert [each.name for each in slurm.parse_partitions(SINFO, groups)] == names


def test_the_configuration_is_read_as_a_table() -> None:
    config = slurm.parse_config(CONFIG)
    assert (config["ClusterName"], config["SLURM_VERSION"]) == ("box", "24.11.5")
    assert "Prolog" not in config
    assert slurm.has_accounting(config) is True
    assert slurm.has_accounting({"AccountingStorageType": "accounting_storage/none"}) is False
    assert slurm.has_accounting({"ClusterName": "box"}) is False
    assert slurm.has_accounting({}) is None
    assert slurm.node_local_scratch(config) == "/tmp"
    assert slurm.node_local_scratch({"TmpFS": "/tmp/%h"}) is None


def test_the_controllers_clock_is_compared_with_ours() -> None:
    def skew(seconds: float) -> timedelta | None:
        before = datetime.fromtimestamp(1763700000 - seconds, timezone.utc)
        return slurm.controller_clock_skew(CONFIG, before, before + timedelta(seconds=0.2))

    assert skew(0) == timedelta(0)
    assert skew(60.2) == timedelta(seconds=60)
    assert skew(-61) == timedelta(seconds=-60)
    assert slurm.controller_clock_skew("", datetime.now(timezone.utc), datetime.now(timezone.utc)) is None
    iso = "Configuration data as of 2025-11-21T04:40:00"
    assert slurm.parse_config_time("Configuration data as of 300000000000") is None
    assert slurm.parse_config_time("Configuration data as of 2025-99-99T04:40:00") is None
    assert slurm.parse_config_time(iso) == datetime(2025, 11, 21, 4, 40, tzinfo=timezone.utc)


def test_releases_and_controllers_are_read() -> None:
    assert slurm.parse_slurm_version("slurm-wlm 22.05.8") == "22.05.8"
    assert slurm.parse_slurm_version("slurm 24.11.5\n") == "24.11.5"
    assert slurm.parse_slurm_version("") is None
    text = "Slurmctld(primary) at ctl1 is UP\nSlurmctld(backup) at ctl2 is DOWN\n"
    assert slurm.parse_ping(text) == {"ctl1 (primary)": True, "ctl2 (backup)": False}


def test_accounts_are_listed_with_the_default_first() -> None:
    found = slurm.parse_associations("proj|other|normal,high\nproj|proj|normal\nproj|proj|normal\nnoise\n")
    assert [(each.account, each.is_default) for each in found] == [("proj", True), ("other", False)]
    assert found[1].qos == ("normal", "high")


def test_only_a_clear_no_is_a_refusal() -> None:
    def answer(code: int | None, stderr: str) -> bool | None:
        return slurm.parse_test_only(Completed(("sbatch",), code, "", stderr)).accepted

    assert answer(0, "sbatch: Job 3 to start at 2026-11-21T05:00:00 using 1 processors on nodes c1 in partition debug")
    assert answer(1, "allocation failure: Invalid generic resource (gres) specification") is False
    assert answer(1, "allocation failure: Unable to contact slurm controller (connect failure)") is None
    assert answer(None, "") is None


def test_several_gpu_types_are_counted_together() -> None:
    assert slurm.parse_gpus("gpu:a100:2(S:0,1),gpu:h100:1,ssd:4") == (3, "a100")
    assert slurm.parse_gpus("(null)") == (0, None)


def test_a_trial_queues_nothing() -> None:
    argv = slurm.test_only_argv("--gpus-per-node=1", partition="gpu")
    assert argv[:2] == ["sbatch", "--test-only"]
    assert "--partition=gpu" in argv


@given(st.text())
def test_no_text_makes_a_parser_fail(text: str) -> None:
    assert isinstance(slurm.parse_partitions(text), tuple)
    assert isinstance(slurm.parse_config(text), dict)
    assert isinstance(slurm.parse_associations(text), tuple)
    assert slurm.parse_gpus(text)[0] >= 0
    slurm.parse_config_time("Configuration data as of " + text)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r\x1f")), min_size=10, max_size=10))
def test_no_line_of_sinfo_makes_the_parser_fail(words: list[str]) -> None:
    assert len(slurm.parse_partitions("\x1f".join(words))) <= 9
