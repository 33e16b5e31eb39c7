"""The test cluster itself does what the other tests rely on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .cluster import Cluster
from .host import HarnessError, alive, call, in_namespace_of, wait_for
from .layout import CHEAP, Layout

USE_MEMORY = "python3 -c 'import time; x = bytearray({mib} << 20); time.sleep(3)'"


@pytest.fixture(params=["bare_cluster", "bare_cheap_cluster"])
def either(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue(request.param)
    return found


def _state_of(cluster: Cluster, job: str) -> str:
    return cluster.run(f"sacct -nXP -j {job} -o state").stdout.strip()


def test_a_job_of_alice_runs_on_two_nodes(either: Cluster) -> None:
    answer = either.run("srun -N2 bash -c 'echo $SLURMD_NODENAME $(whoami)' | sort")
    assert answer.stdout == "c1 alice\nc2 alice\n"


def test_both_releases_are_there(bare_cluster: Cluster, bare_cheap_cluster: Cluster) -> None:
    assert bare_cluster.run("sbatch --version").stdout.startswith("slurm-wlm 24.11")
    assert bare_cheap_cluster.run("sbatch --version").stdout.startswith("slurm-wlm 22.05")


def test_each_node_of_the_rich_cluster_is_a_machine_of_its_own(bare_cluster: Cluster) -> None:
    bare_cluster.run("srun -N3 bash -c 'touch /tmp/$(hostname); ls /tmp >/scratch/proj/$(hostname)'")
    assert bare_cluster.run("cd /scratch/proj; tail -n+1 c1 c2 c3; rm c?").stdout == (
        "==> c1 <==\nc1\n\n==> c2 <==\nc2\n\n==> c3 <==\nc3\n"
    )


def test_alice_and_bob_log_in_over_ssh_and_share_one_folder_only(either: Cluster) -> None:
    either.ssh("umask 002; echo hello >/scratch/proj/note; echo secret >~/secret")
    assert (
        either.ssh("id -un; cat /scratch/proj/note; echo more >>/scratch/proj/note", user="bob").stdout
        == "bob\nhello\n"
    )
    refused = either.ssh("cat /home/alice/secret", user="bob", check=False)
    assert refused.returncode == 1
    assert "Permission denied" in refused.stderr


def test_input_environment_and_failure_reach_the_caller(either: Cluster) -> None:
    assert either.run(["cat"], stdin="a\nb").stdout == "a\nb"
    assert either.run("echo $WORD $HOME $PWD", env={"WORD": "x y"}).stdout == "x y /home/alice /home/alice\n"
    with pytest.raises(HarnessError, match="exit 3: said"):
        either.run("echo said; exit 3")
    with pytest.raises(subprocess.TimeoutExpired):
        either.run("sleep 60", timeout=1)


def test_a_background_command_is_killed_itself(either: Cluster) -> None:
    with either.popen("echo ready; exec sleep 1000") as process:
        assert process.popen.stdout is not None
        assert process.popen.stdout.readline() == "ready\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert process.pid is not None
        assert not alive(process.pid)


def test_a_frozen_controller_does_not_answer_until_thawed(either: Cluster) -> None:
    with either.frozen("slurmctld"):
        assert either.run("timeout 2 sinfo", check=False).returncode == 124
    assert either.run("timeout 60 sinfo -h -p debug -o %D").stdout.strip() == str(either.layout.nodes)


def test_a_dead_slurmdbd_fails_sacct_at_once_and_not_squeue(either: Cluster) -> None:
    with either.stopped("slurmdbd"):
        assert either.run("timeout 60 sacct", check=False).returncode == 1
        either.run("timeout 60 squeue")
    either.run("timeout 60 sacct")


def test_accounting_can_be_away_for_a_while(either: Cluster) -> None:
    with either.without_accounting():
        assert "disabled" in either.run("sacct", check=False).stderr
        either.run("srun true")
    either.run("sacct")


def test_purged_jobs_are_gone_from_squeue_but_not_from_sacct(either: Cluster) -> None:
    job = either.run("sbatch --parsable --wait --wrap true").stdout.strip()
    assert either.run(f"squeue -h -t all -j {job} -o %T").stdout.strip() == "COMPLETED"
    either.purge_jobs()
    assert either.run("squeue -h -t all").stdout == ""
    wait_for("the end in sacct", lambda: _state_of(either, job) == "COMPLETED")


def test_a_power_cut_takes_the_node_down_and_power_brings_it_back(bare_cluster: Cluster) -> None:
    words = "sbatch --parsable --no-requeue -w c2 --wrap 'sleep 200'"
    job = bare_cluster.run(words).stdout.strip()
    running = f"squeue -h -j {job} -o %T"
    wait_for("start of the job", lambda: bare_cluster.run(running).stdout == "RUNNING\n")
    bare_cluster.power_off("c2")
    bare_cluster.wait_state("c2", "DOWN")
    bare_cluster.power_on("c2")
    assert bare_cluster.run("srun -w c2 hostname").stdout == "c2\n"
    wait_for("the end in sacct", lambda: _state_of(bare_cluster, job) == "NODE_FAIL")


def test_a_cut_cable_is_noticed_and_mended(bare_cluster: Cluster) -> None:
    with bare_cluster.cable_cut("c3"):
        assert bare_cluster.run("timeout 2 ssh c3 true", check=False).returncode != 0
    assert bare_cluster.run("ssh c3 hostname").stdout == "c3\n"


def test_a_small_disk_is_full_for_every_machine(either: Cluster) -> None:
    fill = "dd if=/dev/zero of=/scratch/alice/small/x bs=64k count=64 2>&1"
    with either.small_disk("/scratch/alice/small", "1m"):
        assert "No space left on device" in either.run(f"srun {fill}", check=False).stdout
        assert "No space left on device" in either.run("echo >/scratch/alice/small/y", check=False).stderr
    either.run(fill)
    either.run("rm -r /scratch/alice/small/x")


def test_a_full_disk_has_no_byte_left(either: Cluster) -> None:
    with either.full_disk("/tmp/full"):
        assert "No space left on device" in either.run("echo >/tmp/full/x", check=False).stderr


def test_a_read_only_folder_refuses_on_login_and_compute_nodes(either: Cluster) -> None:
    with either.read_only("/scratch/alice"):
        assert "Read-only file system" in either.run("touch /scratch/alice/x", check=False).stderr
        assert "Read-only file system" in either.run("srun touch /scratch/alice/x", check=False).stderr
    either.run("touch /scratch/alice/x; rm /scratch/alice/x")


def test_too_much_memory_ends_a_job_as_out_of_memory(bare_cluster: Cluster) -> None:
    if not bare_cluster.confined:
        pytest.skip("the host has no cgroup v1 hierarchies; boot it with systemd.unified_cgroup_hierarchy=0")
    wrap = USE_MEMORY.format(mib=400)
    job = bare_cluster.run(f'sbatch --parsable --wait --mem=50 --wrap "{wrap}"', check=False).stdout.strip()
    wait_for("the end in sacct", lambda: _state_of(bare_cluster, job) == "OUT_OF_MEMORY")


def test_the_memory_a_step_used_is_known(bare_cluster: Cluster) -> None:
    wrap = "srun " + USE_MEMORY.format(mib=200)
    job = bare_cluster.run(f'sbatch --parsable --wait --mem=500 --wrap "{wrap}"').stdout.strip()
    asks = f"sacct -nP -j {job}.0 --units=K -o maxrss"
    wait_for("the memory in sacct", lambda: bare_cluster.run(asks).stdout.strip() != "")
    used = bare_cluster.run(asks).stdout.strip()
    assert 200 << 10 < float(used.rstrip("K")) < 260 << 10


def test_a_gpu_job_sees_only_the_gpus_it_asked_for(either: Cluster) -> None:
    assert either.run("srun --gpus-per-node=2 bash -c 'echo $CUDA_VISIBLE_DEVICES'").stdout == "0,1\n"


@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest.mark.parametrize("fixture", ["cluster", "cheap_cluster"])
def test_deephpc_is_installed_from_the_wheel(request: pytest.FixtureRequest, fixture: str, user: str) -> None:
    found: Cluster = request.getfixturevalue(fixture)
    assert found.run(["which", "deephpc"], user=user).stdout == f"/home/{user}/deephpc-venv/bin/deephpc\n"
    assert found.run("deephpc --version", user=user).stdout == found.ssh("deephpc --version", user=user).stdout


def test_what_a_killed_session_left_is_ended_by_the_next(tmp_path: Path) -> None:
    state = tmp_path / "state"
    program = (
        "import sys, time; from pathlib import Path; from tests.cluster.cluster import Cluster, Box\n"
        "from tests.cluster.layout import CHEAP\n"
        "box = Cluster(CHEAP, Path(sys.argv[1]), tethered=sys.argv[2] == 'tethered'); Box.up(box)\n"
        "print(box.machines['login'].init(), flush=True); time.sleep(60)"
    )
    project = Path(__file__).resolve().parents[2]
    inits = []
    for tether in ("loose", "tethered"):
        words = [sys.executable, "-c", program, str(state), tether]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=project) as session:
            assert session.stdout is not None
            init = int(session.stdout.readline())
            session.kill()
        inits.append(init)
    loose, tethered = inits
    wait_for("end of the tethered machine with its session", lambda: not alive(tethered))
    assert not alive(loose), "the second session found the first one's machine and let it run"
    Cluster(CHEAP, state, tethered=True).down()
    assert not state.exists()


def test_nothing_runs_and_nothing_is_left_after_down(tmp_path: Path) -> None:
    small = Layout(rootfs="bookworm", nodes=1, one_machine=True)
    cluster = Cluster(small, tmp_path / "state", tethered=True)
    cluster.up()
    pids = in_namespace_of(cluster.machines["login"].init())
    assert {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sshd"} <= set(pids.values())
    cluster.down()
    assert not [pid for pid in pids if alive(pid)]
    assert not cluster.state.exists()
    assert cluster.prefix not in call(["ip", "netns", "list"]).stdout
    assert str(cluster.state) not in Path("/proc/self/mounts").read_text()
