"""A module's tag by where it will run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deephpc.containers.tags import choose_tag
from deephpc.errors import EngineError


@pytest.mark.parametrize(
    ("tags", "for_gpus", "tag", "reason"),
    [
        (["latest", "cpu", "gpu", "gpu-test"], True, "gpu", "with GPUs"),
        (["latest", "cpu", "gpu"], False, "cpu", "without GPUs"),
        (["latest"], True, "latest", "has no tag gpu"),
        (["latest", "gpu"], False, "latest", "has no tag cpu"),
        (["cpu"], True, "cpu", "will not use the GPUs"),
        (["1.0.0"], True, "1.0.0", "the only one"),
    ],
)
def test_the_tag_fits_the_partition_and_the_reason_is_said(
    tags: list[str], for_gpus: bool, tag: str, reason: str
) -> None:
    choice = choose_tag(tags, for_gpus=for_gpus, repository="docker.io/org/module")
    assert choice.tag == tag
    assert reason in choice.why


@pytest.mark.parametrize("tags", [[], ["gpu-test", "cpu-test"]])
def test_without_a_usual_tag_the_user_is_asked(tags: list[str]) -> None:
    with pytest.raises(EngineError) as caught:
        choose_tag(tags, for_gpus=True)
    assert all(tag in caught.value.message for tag in tags)


@given(st.lists(st.sampled_from(["cpu", "gpu", "latest", "cpu-test", "v1"]), unique=True), st.booleans())
def test_only_a_tag_that_exists_is_chosen(tags: list[str], for_gpus: bool) -> None:
    try:
        assert choose_tag(tags, for_gpus=for_gpus).tag in tags
    except EngineError as error:
        assert error.exit_code == 4


@pytest.mark.parametrize(
    ("here", "for_gpus", "tag"),
    [
        (["gpu"], False, "gpu"),
        (["latest"], False, "latest"),
        (["cpu", "gpu"], False, "cpu"),
        (["cpu"], True, "gpu"),
        (["latest"], True, "gpu"),
        (["v1"], False, "cpu"),
    ],
)
def test_what_is_here_is_taken_where_it_does_the_same(here: list[str], for_gpus: bool, tag: str) -> None:
    choice = choose_tag(["latest", "cpu", "gpu", "v1"], for_gpus=for_gpus, here=here)
    assert choice.tag == tag
    assert ("which is here" in choice.why) is (tag in here and tag != ("gpu" if for_gpus else "cpu"))
