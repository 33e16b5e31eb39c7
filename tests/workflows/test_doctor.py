import json
from pathlib import Path

import pytest

from deephpc.config import Settings, load_settings
from deephpc.render.sites import render_checks
from deephpc.workflows.checks import Check, exit_code
from deephpc.workflows.doctor import Examination, examine
from deephpc.workflows.storage import file_system_of, inspect_folder
from tests.workflows.fake_slurm import HEALTHY, calls, fake_slurm


def settings(tmp_path: Path, environ: dict[str, str], *, has_slurm: bool = True) -> Settings:
    return load_settings(environ=environ, home=tmp_path, has_slurm=has_slurm)


def diagnose(tmp_path: Path, environ: dict[str, str], *, on_nodes: bool = False) -> dict[str, Check]:
    checks = examine(Examination(settings(tmp_path, environ), environ, on_nodes=on_nodes, node_wait_s=5))
    return {check.name: check for check in checks}


def test_a_healthy_cluster_has_no_failure(tmp_path: Path) -> None:
    checks = diagnose(tmp_path, fake_slurm(tmp_path, HEALTHY))
    assert exit_code(tuple(checks.values())) == 0
    assert checks["Slurm release"].found == "commands 24.11.5, controller 24.11.5"
    assert checks["controller clock"].found == "+0 s from this machine"
    assert checks["accounting"].found.startswith("slurmdbd answered in")
    assert "debug* (3 nodes, 8 cores, 4 GPUs)" in checks["partitions"].found
    assert checks["compute node"].outcome == "skip"
    assert not any(call.startswith("srun") for call in calls(tmp_path))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    diagnose(tmp_path, fake_slurm(tmp_path, HEALTHY))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "calls"]


def test_a_dead_controller_fails(tmp_path: Path) -> None:
    dead = "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    checks = diagnose(tmp_path, fake_slurm(tmp_path, {**HEALTHY, "scontrol": dead}))
    assert checks["controller"].outcome == "fail"
    assert "connect failure" in checks["controller"].found
    assert "try again" in checks["controller"].remedy
    assert exit_code(tuple(checks.values())) == 3


def test_dead_accounting_only_warns(tmp_path: Path) -> None:
    dead = "echo 'sacctmgr: error: Connection refused' >&2; exit 1"
    checks = diagnose(tmp_path, fake_slurm(tmp_path, {**HEALTHY, "sacctmgr": dead}))
    assert checks["accounting"].outcome == "warn"


def test_a_partition_that_does_not_exist_is_found_out(tmp_path: Path) -> None:
    checks = diagnose(tmp_path, fake_slurm(tmp_path, HEALTHY, SBATCH_PARTITION="gone"))
    assert checks["default partition"].outcome == "fail"
    assert "environment SBATCH_PARTITION" in checks["default partition"].found
    assert "debug, long" in checks["default partition"].remedy


def test_variables_that_are_left_out_are_told(tmp_path: Path) -> None:
    checks = diagnose(tmp_path, fake_slurm(tmp_path, HEALTHY, SBATCH_OUTPUT="x"))
    assert "SBATCH_OUTPUT" in checks["variables"].found


def test_a_node_is_looked_at_when_asked_for(tmp_path: Path) -> None:
    checks = diagnose(tmp_path, fake_slurm(tmp_path, HEALTHY), on_nodes=True)
    assert checks["compute node"].outcome == "ok"
    assert "work_dir seen" in checks["compute node"].found
    assert any(call.startswith("srun") and "--time=1" in call for call in calls(tmp_path))


def test_a_node_that_does_not_see_the_work_dir_fails(tmp_path: Path) -> None:
    elsewhere = r"""while [ "$1" != /bin/sh ]; do shift; done
"$1" "$2" "$(echo "$3" | sed 's#[^ ]*$#/nowhere#')" """
    checks = diagnose(tmp_path, fake_slurm(tmp_path, {**HEALTHY, "srun": elsewhere}), on_nodes=True)
    assert checks["compute node"].outcome == "fail"
    assert "share" in checks["compute node"].remedy


@pytest.mark.parametrize(
    ("srun", "outcome", "words"),
    [
        ("echo '/bin/sh: 1: exec: python3: not found' >&2; exit 127", "fail", "not found"),
        ("echo 'srun: error: Unable to allocate resources: Requested nodes are busy' >&2; exit 1", "warn", "busy"),
    ],
)
def test_a_node_that_does_not_answer_is_told_from_one_without_python(
    tmp_path: Path, srun: str, outcome: str, words: str
) -> None:
    checks = diagnose(tmp_path, fake_slurm(tmp_path, {**HEALTHY, "srun": srun}), on_nodes=True)
    assert checks["compute node"].outcome == outcome
    assert words in checks["compute node"].found


def test_a_folder_that_cannot_be_made_fails(tmp_path: Path) -> None:
    environ = fake_slurm(tmp_path, HEALTHY, DEEPHPC_WORK_DIR="/proc/self/nothing")
    checks = diagnose(tmp_path, environ)
    assert checks["work_dir"].outcome == "fail"
    assert "DEEPHPC_WORK_DIR" in checks["work_dir"].remedy


def test_without_slurm_only_folders_are_looked_at(tmp_path: Path) -> None:
    environ = {"PATH": "/nonexistent", "HOME": str(tmp_path)}
    checks = examine(Examination(settings(tmp_path, environ, has_slurm=False), environ))
    assert {check.name: check.outcome for check in checks}["Slurm"] == "skip"
    assert exit_code(checks) == 0


def test_a_site_with_slurm_but_no_commands_fails(tmp_path: Path) -> None:
    checks = diagnose(tmp_path, {"PATH": "/nonexistent", "HOME": str(tmp_path)})
    assert checks["Slurm commands"].outcome == "fail"


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "with space"
    folder.mkdir()
    real = str(folder.resolve()).replace(" ", "\\040")
    mounts.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / {real} rw shared:1 - lustre mgs:/fs rw\n"
        f"3 1 0:6 / {real}er rw - tmpfs tmpfs rw\n"
    )
    assert file_system_of(folder / "below", mounts) == "lustre"
    assert file_system_of(tmp_path, mounts) == "ext4"


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    state = inspect_folder(tmp_path / "a" / "b")
    assert state.problem is None
    assert state.free_bytes is not None
    assert list(tmp_path.iterdir()) == []


def test_checks_are_shown_with_their_remedy(tmp_path: Path) -> None:
    checks = (
        Check(name="x", outcome="fail", found="[bad]", remedy="mend it"),
        Check(name="y", outcome="ok", found="z"),
    )
    text = render_checks(checks, as_json=False)
    assert "[bad]" in text
    assert "→ mend it" in text
    assert text.endswith("1 ok, 1 fail")
    answer = json.loads(render_checks(checks, as_json=True))
    assert (answer["schema"], answer["healthy"]) == ("deephpc.doctor/1", False)


def test_with_profiles_of_which_none_is_named_the_remedy_is_the_line_that_names_one(tmp_path: Path) -> None:
    sites = tmp_path / ".config" / "deephpc" / "sites"
    sites.mkdir(parents=True)
    for name in ("box", "old"):
        (sites / f"{name}.toml").write_text(f'name = "{name}"\n')
    site = diagnose(tmp_path, fake_slurm(tmp_path, HEALTHY))["site"]
    assert site.outcome == "warn"
    assert 'put `site = "box"` or `site = "old"` in config.toml' in site.remedy
