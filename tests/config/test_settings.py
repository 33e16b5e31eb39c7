from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deephpc.config import Settings, choose_site, load_settings
from deephpc.errors import InputError
from deephpc.jobs.spec import Resources


def load(home: Path, config: str | None = None, *, has_slurm: bool = True, **environ: str) -> Settings:
    if config is not None:
        file = home / ".config" / "deephpc" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config, encoding="utf-8")
    return load_settings(environ=environ, home=home, has_slurm=has_slurm)


def add_site(home: Path, name: str, text: str = "") -> Path:
    file = home / ".config" / "deephpc" / "sites" / f"{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'name = "{name}"\n{text}', encoding="utf-8")
    return file


def test_without_slurm_the_site_is_local(tmp_path: Path) -> None:
    settings = load(tmp_path, has_slurm=False)
    assert (settings.site.name, settings.scheduler) == ("local", "local")
    assert settings.origins["site"] == "built-in: no Slurm commands on PATH"


def test_with_slurm_and_no_profile_the_site_is_generic(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.site.name, settings.scheduler) == ("generic", "slurm")
    assert settings.max_requeues == 3
    assert settings.grace == timedelta(seconds=60)


def test_the_only_profile_of_the_user_is_taken(tmp_path: Path) -> None:
    file = add_site(tmp_path, "mine")
    settings = load(tmp_path)
    assert settings.site.name == "mine"
    assert settings.origins["site"] == f"built-in: the only profile in {file.parent}"


def test_of_two_profiles_none_is_guessed(tmp_path: Path) -> None:
    add_site(tmp_path, "one")
    add_site(tmp_path, "two")
    settings = load(tmp_path)
    assert settings.site.name == "generic"
    assert settings.own_sites == ("one", "two")
    assert settings.origins["site"].endswith("has one, two")


def test_other_folders_may_hold_a_percent_sign(tmp_path: Path) -> None:
    assert load(tmp_path, 'cache_dir = "/x/50%"').cache_dir == Path("/x/50%")


def test_a_users_profile_hides_a_shipped_one(tmp_path: Path) -> None:
    add_site(tmp_path, "lumi", 'description = "mine"\nwork_dir = "/w"\n')
    assert load(tmp_path, DEEPHPC_SITE="lumi").site.description == "mine"


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    add_site(tmp_path, "mine", 'work_dir = "/site"\ncache_dir = "/site"\n[defaults]\nnodes = 2\nwalltime = "1:00:00"\n')
    user = 'cache_dir = "/user"\n[defaults]\nnodes = 3\npartition = "user"\n'
    settings = load(tmp_path, user, SBATCH_PARTITION="environment", DEEPHPC_STATE_DIR="/state")
    assert (settings.work_dir, settings.cache_dir, settings.state_dir) == (Path("/site"), Path("/user"), Path("/state"))
    expected = Resources(nodes=3, walltime=timedelta(hours=1), partition="environment")
    assert settings.defaults == expected
    assert settings.origins["defaults.walltime"].startswith("site file ")
    assert settings.origins["defaults.nodes"].startswith("user file ")
    assert settings.origins["defaults.partition"] == "environment SBATCH_PARTITION"
    assert settings.origins["state_dir"] == "environment DEEPHPC_STATE_DIR"


def test_the_option_wins_over_the_environment(tmp_path: Path) -> None:
    settings = load_settings(site="local", environ={"DEEPHPC_SITE": "generic"}, home=tmp_path, has_slurm=True)
    assert (settings.site.name, settings.origins["site"]) == ("local", "option --site")


def test_a_file_named_by_option_wins_and_must_exist(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    with pytest.raises(InputError, match="No such file"):
        load_settings(config=other, environ={}, home=tmp_path, has_slurm=True)
    other.write_text("max_requeues = 7\n")
    assert load_settings(config=other, environ={}, home=tmp_path, has_slurm=True).max_requeues == 7


def test_variables_of_site_and_user_come_together(tmp_path: Path) -> None:
    add_site(tmp_path, "mine", 'variables = {A = "site", B = "site"}\nfabric = {NCCL_DEBUG = "INFO"}\n')
    settings = load(tmp_path, '[environment.variables]\nB = "user"\n"C.D" = "dotted"\n')
    assert settings.environment.variables == {"A": "site", "B": "user", "NCCL_DEBUG": "INFO", "C.D": "dotted"}
    assert settings.origins["environment.variables.B"].startswith("user file ")


def test_runs_lie_in_scratch_where_there_is_one(tmp_path: Path) -> None:
    assert load(tmp_path, SCRATCH="/scratch/me").work_dir == Path("/scratch/me/deephpc/runs")
    assert load(tmp_path, WORK="/fast/me").cache_dir == Path("/fast/me/deephpc/cache")
    assert load(tmp_path).work_dir == tmp_path / "deephpc" / "runs"


def test_folders_are_filled_in(tmp_path: Path) -> None:
    settings = load(
        tmp_path, 'work_dir = "/p/{account}/${WHO}/x"\ncache_dir = "~/c"\n[environment]\nvenv = "$V/env"', WHO="me",
        SBATCH_ACCOUNT="proj", V="/v",
    )  # fmt: skip
    assert (settings.work_dir, settings.cache_dir) == (Path("/p/proj/me/x"), tmp_path / "c")
    assert settings.environment.venv == Path("/v/env")


def test_relative_xdg_folders_are_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, XDG_STATE_HOME="relative").state_dir == tmp_path / ".local/state/deephpc"
    assert load(tmp_path, XDG_STATE_HOME="/abs").state_dir == Path("/abs/deephpc")


def test_what_is_asked_for_is_completed_by_the_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, "[defaults]\nnodes = 2\ncpus_per_task = 4\n")
    asked = settings.resources(Resources(nodes=1, walltime=timedelta(minutes=5)))
    assert asked == Resources(nodes=1, cpus_per_task=4, walltime=timedelta(minutes=5))


def test_a_bare_number_is_minutes(tmp_path: Path) -> None:
    assert load(tmp_path, "[defaults]\nwalltime = 30\n").defaults.walltime == timedelta(minutes=30)


def test_choosing_a_site_needs_no_folders(tmp_path: Path) -> None:
    asked: Mapping[str, Any] = {"environ": {"DEEPHPC_SITE": "lumi"}, "home": tmp_path, "has_slurm": True}
    assert choose_site(**asked) == "lumi"
    with pytest.raises(InputError, match="account"):
        load_settings(**{**asked, "environ": {"DEEPHPC_SITE": "lumi", "USER": "me"}})


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ('[defaults]\nwallime = "3"', "unknown key 'defaults.wallime'", "did you mean 'defaults.walltime'?"),
        ("zzz = 1", "unknown key 'zzz'", "valid here: binds, cache_dir"),
        ("[environment]\nmodule = []", "unknown key 'environment.module'", "did you mean 'environment.modules'?"),
        ('[defaults]\nnodes = "x"', "defaults.nodes = 'x' should be a whole number", ""),
        ("[defaults]\nnodes = 0", "defaults.nodes = 0 should be greater than or equal to 1", ""),
        ('[defaults]\nwalltime = "x"', "defaults.walltime = 'x': 'x' is not a time limit", ""),
        ('scheduler = "slum"', "scheduler = 'slum' should be 'slurm'", "did you mean 'slurm'?"),
        ("site = 3", "site = 3 should be text in quotes", ""),
        ('[environment]\nmodules = "a"', "environment.modules = 'a' should be a list", ""),
        ("environment = 1", "environment = 1 should be a table", ""),
        ("grace = -1", "grace = -1 should be greater", ""),
        ("a = 1\nb =\n", "config.toml:2: not valid TOML", "quotes"),
        ('work_dir = "$NOPE/x"', "needs $NOPE, which is not set", "DEEPHPC_WORK_DIR"),
        ('work_dir = "/x/50%"', "has '%' in it", "plain name"),
        (r'work_dir = "/x\\y"', "has '\\\\' in it", "plain name"),
        (r'work_dir = "/x\ny"', r"has '\n' in it", "plain name"),
        (r'cache_dir = "/x\ny"', r"has '\n' in it", "plain name"),
        (r'state_dir = "/x\ty"', r"has '\t' in it", "plain name"),
        ('work_dir = "x"', "is not an absolute path", "begin it with /"),
        ('work_dir = "/x/{account}"', "needs your account", "SBATCH_ACCOUNT"),
        ('site = "lummi"', "no site is called 'lummi'", "did you mean lumi"),
    ],
)
def test_a_mistake_is_named_with_its_file_key_value_and_remedy(
    tmp_path: Path, config: str, message: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, config)
    assert message in caught.value.message
    assert "config.toml" in caught.value.message
    assert hint in caught.value.hint


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="environment SBATCH_TIMELIMIT: walltime = 'soon'") as caught:
        load(tmp_path, SBATCH_TIMELIMIT="soon")
    assert caught.value.hint == "change or unset SBATCH_TIMELIMIT"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(InputError, match="not UTF-8"):
        load_settings(config=file, environ={}, home=tmp_path, has_slurm=True)
