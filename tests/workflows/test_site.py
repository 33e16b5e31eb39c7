import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from deephpc.config import UserPlaces, load_site, locate_user_places
from deephpc.config.site_files import find_site
from deephpc.errors import InputError, SiteError
from deephpc.render.sites import render_probe, render_site, render_site_file, render_sites
from deephpc.workflows.site import Surroundings, list_sites, plan_site_file, probe_site, show_site, write_site_file
from tests.workflows.fake_slurm import HEALTHY, calls, fake_slurm

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
REFUSE = 'case "$*" in *{word}*) echo "allocation failure: {why}" >&2; exit 1;; esac; echo ok >&2'


def around(environ: dict[str, str]) -> Surroundings:
    return Surroundings(environ, "alice", NOW)


def places(tmp_path: Path) -> UserPlaces:
    return locate_user_places(None, {}, tmp_path)


def test_a_probe_learns_partitions_gpus_memory_accounts_and_scratch(tmp_path: Path) -> None:
    environ = fake_slurm(tmp_path, HEALTHY, SCRATCH=str(tmp_path), SBATCH_PARTITION="nowhere")
    probe = probe_site(None, around(environ))
    site = probe.site
    assert (site.name, site.slurm_version, site.mpi, site.node_scratch) == ("box", "24.11.5", "pmix", "/tmp")
    assert (site.gpu_request, site.memory_request, site.default_partition) == ("gpus-per-node", True, "debug")
    assert site.partitions["debug"].gpus_per_node == 4
    assert site.partitions["debug"].max_walltime == timedelta(hours=1)
    assert site.partitions["long"].max_walltime is None
    assert site.work_dir == "$SCRATCH/deephpc/runs"
    assert "accounts you may charge: proj (default), other" in probe.learned
    assert probe.unknown == ()


def test_a_probe_queues_nothing(tmp_path: Path) -> None:
    probe_site(None, around(fake_slurm(tmp_path, HEALTHY)))
    assert all("--test-only" in call for call in calls(tmp_path) if call.startswith("sbatch"))
    assert not any(call.startswith("srun") for call in calls(tmp_path))


def test_a_site_that_wants_gres_is_recognized(tmp_path: Path) -> None:
    sbatch = REFUSE.format(word="--gpus-per-node", why="Invalid generic resource (gres) specification")
    probe = probe_site(None, around(fake_slurm(tmp_path, {**HEALTHY, "sbatch": sbatch})))
    assert probe.site.gpu_request == "gres"


def test_a_site_that_refuses_memory_is_recognized(tmp_path: Path) -> None:
    sbatch = REFUSE.format(word="--mem", why="Memory specification can not be satisfied")
    probe = probe_site(None, around(fake_slurm(tmp_path, {**HEALTHY, "sbatch": sbatch})))
    assert probe.site.memory_request is False


def test_a_site_that_refuses_every_job_leaves_the_form_open(tmp_path: Path) -> None:
    sbatch = REFUSE.format(word="--test-only", why="Requested node configuration is not available")
    probe = probe_site(None, around(fake_slurm(tmp_path, {**HEALTHY, "sbatch": sbatch}, SCRATCH=str(tmp_path))))
    assert (probe.site.gpu_request, probe.site.memory_request) == ("gpus-per-node", True)
    assert [line.split(":")[0] for line in probe.unknown] == ["how GPUs are asked for", "whether `--mem` is accepted"]
    assert "even a plain job (Requested node configuration is not available)" in probe.unknown[0]


def test_a_cluster_without_accounting_is_not_asked_for_accounts(tmp_path: Path) -> None:
    config = "cat <<'END'\nClusterName = box\nAccountingStorageType = (null)\nEND"
    probe = probe_site(None, around(fake_slurm(tmp_path, {**HEALTHY, "scontrol": config})))
    assert "accounting: this cluster keeps none" in probe.learned
    assert not any(call.startswith("sacctmgr") for call in calls(tmp_path))


def test_dead_accounting_costs_one_line(tmp_path: Path) -> None:
    dead = "echo 'sacctmgr: error: Problem talking to the database: Connection refused' >&2; exit 1"
    probe = probe_site(None, around(fake_slurm(tmp_path, {**HEALTHY, "sacctmgr": dead}, SCRATCH=str(tmp_path))))
    assert len(probe.unknown) == 1
    assert probe.unknown[0].startswith("your accounts: ")
    assert "Connection refused" in probe.unknown[0]


def test_a_dead_controller_leaves_no_profile(tmp_path: Path) -> None:
    dead = "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1"
    environ = fake_slurm(tmp_path, {**HEALTHY, "scontrol": dead, "sinfo": dead})
    with pytest.raises(SiteError, match="Unable to contact") as caught:
        probe_site(None, around(environ))
    assert caught.value.transient


def test_a_probed_profile_is_written_and_loads_as_the_same_site(tmp_path: Path) -> None:
    probe = probe_site("mine", around(fake_slurm(tmp_path, HEALTHY)))
    path, text = plan_site_file(probe, places(tmp_path))
    assert not path.exists()
    write_site_file(path, text, force=False)
    assert load_site(find_site("mine", path.parent, "test")) == probe.site
    assert "# found: 2 partitions from sinfo" in text
    assert "2026-11-21" in text


@pytest.mark.parametrize("name", ["a b", "", "-x", "a/b", "a\n", "x" * 65])
def test_a_name_that_cannot_be_a_profiles_is_refused_before_anything_is_asked(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a profile"):
        probe_site(name, around(fake_slurm(tmp_path, HEALTHY)))
    assert not (tmp_path / "calls").exists()


def test_a_profile_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "sites" / "x.toml"
    write_site_file(path, "one", force=False)
    with pytest.raises(InputError, match="exists"):
        write_site_file(path, "two", force=False)
    assert path.read_text() == "one"
    write_site_file(path, "two", force=True)
    assert path.read_text() == "two"
    assert [each.name for each in path.parent.iterdir()] == ["x.toml"]


def test_a_broken_profile_is_listed_with_its_reason(tmp_path: Path) -> None:
    where = places(tmp_path)
    where.sites_dir.mkdir(parents=True)
    (where.sites_dir / "broken.toml").write_text("name = ")
    entries = {entry.name: entry for entry in list_sites(where)}
    assert "not valid TOML" in entries["broken"].problem
    assert entries["lumi"].problem == ""
    assert "* broken" not in render_sites(list(entries.values()), "lumi", as_json=False)


def test_answers_in_json_name_their_shape(tmp_path: Path) -> None:
    probe = probe_site(None, around(fake_slurm(tmp_path, HEALTHY)))
    site, file = show_site("lumi", places(tmp_path))
    answers = (
        render_probe(probe, as_json=True),
        render_site(site, file, as_json=True),
        render_sites(list_sites(places(tmp_path)), "lumi", as_json=True),
        render_site_file(tmp_path, "text", written=False, as_json=True),
    )
    schemas = [json.loads(answer)["schema"] for answer in answers]
    assert schemas == ["deephpc.site-probe/1", "deephpc.site/1", "deephpc.sites/1", "deephpc.site-file/1"]


def test_a_profile_is_explained_in_words(tmp_path: Path) -> None:
    site, file = show_site("lumi", places(tmp_path))
    text = render_site(site, file, as_json=False)
    assert "GPUs are asked for with --gpus-per-node" in text
    assert "every job must name an account" in text
    assert "standard-g" in text
