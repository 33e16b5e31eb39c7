"""What `--host` refuses before any connection, and what it hands on; `tests/cluster` has the rest."""

from pathlib import Path

import pytest

from deephpc.cli.context import Globals
from deephpc.cli.far import far_options
from tests.fakes.programs import CommandLine


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "alice@login", "train", "x.py"], "`train` does not go with --host"),
        (["--host", "-oProxyCommand=touch it", "jobs"], "is no machine for ssh"),
        (["--host", "", "jobs"], "is no machine for ssh"),
        (["--host", "alice@login:22", "logs", "x"], "a port belongs into ~/.ssh/config"),
        (["--host", "a@b c@d", "tunnel", "x"], "is no machine for ssh"),
        (["--host", "größe\n", "predict", "x"], "is no machine for ssh"),
    ],
)
def test_what_does_not_go_is_refused_and_runs_nothing(tmp_path: Path, words, told):
    done = CommandLine.make(tmp_path)(*words)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "it").exists()


def test_global_options_are_for_the_machine_there():
    options = Globals(site="lumi", config=Path("there.toml"), json=True, quiet=True, host="alice@login")
    assert far_options(options) == ("--site", "lumi", "--config", "there.toml", "--json", "--quiet")
    assert far_options(Globals(host="alice@login")) == ()
