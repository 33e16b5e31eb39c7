from datetime import timedelta
from pathlib import Path

import pytest

from deephpc.config import Partition, Site, SiteFile, list_site_files, load_site
from deephpc.config.site_writer import render_site
from deephpc.errors import InputError
from deephpc.jobs.spec import Resources

SHIPPED = list_site_files(Path("/nonexistent"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_profile_loads_and_names_its_source(file: SiteFile) -> None:
    site = load_site(file)
    assert site.source
    assert site.description


def test_at_least_six_public_systems_ship() -> None:
    sites = [load_site(file) for file in SHIPPED if file.name not in ("local", "generic")]
    assert len(sites) >= 6
    assert all(site.partitions and "read 2026-11-21" in (site.source or "") for site in sites)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_a_written_profile_loads_as_the_same_site(file: SiteFile, tmp_path: Path) -> None:
    site = load_site(file)
    copy = tmp_path / f"{site.name}.toml"
    copy.write_text(render_site(site, ["a comment\nover two lines"]), encoding="utf-8")
    assert load_site(SiteFile(site.name, copy, "user")) == site


def test_a_profile_is_written_in_the_words_people_use() -> None:
    site = Site(
        name="x",
        partitions={"gpu": Partition(max_walltime=timedelta(hours=2), memory_mib=480 * 1024)},
        defaults=Resources(walltime=timedelta(minutes=90)),
    )
    text = render_site(site)
    assert 'max_walltime = "02:00:00"' in text
    assert 'memory_mib = "480G"' in text
    assert 'walltime = "01:30:00"' in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "other"', "the file is called 'x'"),
        ("", "the key 'name' is missing"),
        ('name = "x"\n[partitions.gpu]\nmax_waltime = "1"', "unknown key 'partitions.gpu.max_waltime'"),
        ('name = "x"\n[variables]\n"A B" = "1"', "'A B' is not a variable's name"),
        ('name = "x"\nnode_scratch = "$(rm -rf ~)"', "node_scratch"),
        ('name = "x"\n[partitions."a b"]\ndefault = true', "characters a scheduler option cannot carry"),
    ],
)
def test_a_bad_profile_is_refused_with_its_reason(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_site(SiteFile("x", file, "user"))
    assert message in caught.value.message
    assert str(file) in caught.value.message


def test_a_nested_key_gets_its_nearest_neighbour(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('name = "x"\n[partitions.gpu]\nmax_waltime = "1"')
    with pytest.raises(InputError) as caught:
        load_site(SiteFile("x", file, "user"))
    assert caught.value.hint == "did you mean 'partitions.gpu.max_walltime'?"
