"""Choosing an engine from what a node said."""

from datetime import datetime, timedelta, timezone

import pytest

from deephpc.errors import EngineError, InputError
from deephpc.workflows.node_engines import FoundEngine, NodeEngines, checked_engine, choose_engine

NOW = datetime(2026, 11, 21, tzinfo=timezone.utc)


def node(**works: str) -> NodeEngines:
    """A node on which these engines work, by version; the others do not."""
    names = ("apptainer", "singularity", "udocker-r", "udocker-f", "udocker-p2", "udocker-p1", "udocker-s")
    engines = [
        FoundEngine(
            name=name,
            works=name.replace("-", "_") in works,
            command=f"/opt/{name}",
            said=works.get(name.replace("-", "_"), "not on PATH"),
        )
        for name in names
    ]
    return NodeEngines(site="x", partition="gpu", asked_at=NOW, where="c1", engines=tuple(engines))


def test_auto_takes_the_best_that_works_and_says_what_it_passed_over():
    choice = choose_engine("auto", node(udocker_r="crun 1.21", udocker_p2="proot 5.4"), is_sif=False)
    assert choice.engine.name == "udocker-r"
    assert choice.command == "/opt/udocker-r"
    assert choice.reason == ("udocker-r crun 1.21 works on c1 (apptainer: not on PATH; singularity: not on PATH)")


def test_udocker_means_its_best_mode():
    choice = choose_engine("udocker", node(apptainer="1.4", udocker_p2="proot 5.4"), is_sif=False)
    assert choice.engine.name == "udocker-p2"
    assert "asked for with --engine udocker" in choice.reason


def test_no_engine_is_an_engine_error_that_names_each_and_the_way_out():
    with pytest.raises(EngineError, match="no engine for images works on c1: apptainer: not on PATH;") as caught:
        choose_engine("auto", node(), is_sif=False)
    assert caught.value.exit_code == 4
    assert "--engine native" in caught.value.hint


def test_a_sif_runs_in_apptainer_alone():
    with pytest.raises(EngineError, match="udocker-r cannot run a SIF"):
        choose_engine("udocker-r", node(udocker_r="crun"), is_sif=True)
    assert choose_engine("auto", node(udocker_r="crun", singularity="3.8"), is_sif=True).engine.name == "singularity"


def test_an_engine_named_by_the_user_is_trusted_where_nothing_is_known():
    assert choose_engine("apptainer", None, is_sif=False).command == "apptainer"


@pytest.mark.parametrize("word", ["", "docker", "Apptainer", "udocker-x", "auto ", "p2"])
def test_an_engine_that_is_none_is_refused_with_those_there_are(word: str):
    with pytest.raises(InputError, match="there is no such engine") as caught:
        checked_engine(word)
    assert "udocker-r" in caught.value.hint
    assert repr(word) in caught.value.message


def test_what_a_node_said_survives_being_kept():
    said = node(apptainer="1.4.5")
    assert NodeEngines.model_validate_json(said.model_dump_json()) == said
    assert said.asked_at - NOW == timedelta(0)
