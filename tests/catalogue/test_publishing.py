import stat
import threading
from pathlib import Path

import pytest

from deephpc.catalogue.publishing import plan_publication, publish
from deephpc.errors import InputError, SiteError
from tests.catalogue.samples import V2


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "leaf-counter"
    folder.mkdir()
    (folder / "ai4-metadata.yml").write_text(V2)
    return folder


@pytest.fixture
def group(tmp_path: Path) -> Path:
    folder = tmp_path / "group"
    folder.mkdir()
    folder.chmod(0o2775)
    return folder


def test_a_valid_module_is_published_for_the_group(own: Path, group: Path) -> None:
    plan = plan_publication(own, group)
    publish(plan, force=False)
    target = group / "leaf-counter" / "ai4-metadata.yml"
    assert target.read_text() == V2
    assert stat.S_IMODE(target.stat().st_mode) == 0o664
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o2775
    assert [path.name for path in target.parent.iterdir()] == ["ai4-metadata.yml"]
    assert plan_publication(own, group).is_there


def test_an_invalid_module_is_refused_with_the_line(own: Path, group: Path) -> None:
    (own / "ai4-metadata.yml").write_text(V2.replace("PyTorch", "Torch"))
    with pytest.raises(InputError, match=r"ai4-metadata.yml:20: libraries.0: 'Torch' is none of"):
        plan_publication(own, group)
    assert list(group.iterdir()) == []


def test_what_is_published_is_replaced_by_force_alone(own: Path, group: Path) -> None:
    publish(plan_publication(own, group), force=False)
    (own / "ai4-metadata.yml").write_text(V2.replace("Leaf counter", "Better leaf counter"))
    plan = plan_publication(own, group)
    assert plan.replaces
    with pytest.raises(InputError, match="already published"):
        publish(plan, force=False)
    publish(plan, force=True)
    assert "Better" in plan.target.read_text()


def test_of_two_who_publish_the_same_name_at_once_one_is_told(own: Path, group: Path, tmp_path: Path) -> None:
    plans = []
    for number in range(8):
        folder = tmp_path / f"author-{number}"
        folder.mkdir()
        (folder / "ai4-metadata.yml").write_text(V2.replace("Leaf counter", f"Counter {number}"))
        plans.append(plan_publication(folder, group, "same"))
    refused: list[InputError] = []

    def attempt(number: int) -> None:
        try:
            publish(plans[number], force=False)
        except InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert [path.name for path in (group / "same").iterdir()] == ["ai4-metadata.yml"]


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "owner__name", "a b", "-x"])
def test_a_name_that_leads_elsewhere_is_refused(own: Path, group: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name for a module"):
        plan_publication(own, group, name)


def test_a_folder_without_metadata_says_how_to_begin(tmp_path: Path, group: Path) -> None:
    with pytest.raises(InputError, match=r"has no ai4-metadata\.yml") as caught:
        plan_publication(tmp_path, group)
    assert "deephpc module init" in caught.value.hint


def test_a_catalogue_on_a_full_or_missing_place_leaves_nothing(own: Path, group: Path) -> None:
    plan = plan_publication(own, group)
    group.rmdir()
    with pytest.raises(SiteError, match="cannot write"):
        publish(plan, force=False)
    assert not group.exists()
