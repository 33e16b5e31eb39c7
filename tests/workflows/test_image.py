"""The story of `image pull`: plans, pins, what a job needs; and its answers for people and programs."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from deephpc.containers.container import ImageOptions
from deephpc.containers.manifest import parse_platform
from deephpc.containers.reference import parse_target
from deephpc.containers.transfer import Silent
from deephpc.containers.upkeep import Keep
from deephpc.errors import EngineError, InputError
from deephpc.jobs.spec import Resources
from deephpc.render.image import (
    render_export,
    render_image,
    render_images,
    render_pull_plan,
    render_pulled,
    render_removal,
    render_verdict,
)
from deephpc.workflows.image import ImagePlaces, PullPlan, PullRequest, PullResult, carry_out_pull, plan_pull
from deephpc.workflows.image_upkeep import (
    check_verdict,
    collect_garbage,
    digests_in_use,
    export_image,
    images_in_use,
    open_store,
    parse_age,
    parse_size,
    remove_image,
    verify_image,
)
from deephpc.workflows.in_image import ImageDesk, foresee
from deephpc.workflows.request import JobOptions, load_module_request
from tests.containers.images import build_image, some_layers
from tests.containers.servers import front_of, real_registry
from tests.fakes.samples import settings_in

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
AMD64 = parse_platform("linux/amd64")
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def places(tmp_path: Path) -> ImagePlaces:
    return ImagePlaces(open_store(tmp_path / "cache"), {"PATH": "/usr/bin"}, tmp_path / "home")


def plan(target: str, module_image: str | None = None, **asked: object) -> PullPlan:
    return plan_pull(PullRequest(target=parse_target(target), platform=AMD64, **asked), module_image)  # type: ignore[arg-type]


def pulled(places: ImagePlaces, target: str, now: datetime = NOW, **asked: object) -> PullResult:
    return carry_out_pull(plan(target, **asked), places, now)


@pytest.mark.parametrize(
    ("target", "named", "image", "chooses"),
    [
        ("plankton", "org/plankton", "docker://docker.io/org/plankton", True),
        ("plankton:gpu", "org/plankton", "docker://docker.io/org/plankton:gpu", False),
        ("plankton", "reg.org:5000/org/plankton:v2", "docker://reg.org:5000/org/plankton:v2", False),
        ("plankton:gpu", "org/plankton:v2", "docker://docker.io/org/plankton:gpu", False),
        (f"plankton@{DIGEST}", "org/plankton", f"docker://docker.io/org/plankton@{DIGEST}", False),
        ("docker://ubuntu", None, "docker://docker.io/library/ubuntu:latest", False),
        ("oci:/x", None, "oci:/x", False),
    ],
)
def test_a_target_becomes_a_full_name(target: str, named: str | None, image: str, chooses: bool) -> None:
    found = plan(target, named)
    assert (str(found.image), found.chooses_tag) == (image, chooses)


def test_a_module_without_an_image_is_refused() -> None:
    with pytest.raises(InputError, match="plankton names no image"):
        plan("plankton", "")


@pytest.mark.slow
def test_a_module_s_tag_fits_the_partition_and_is_told(tmp_path: Path, places: ImagePlaces) -> None:
    with real_registry(tmp_path / "registry") as registry:
        for tag in ("cpu", "gpu"):
            built = build_image(tmp_path / tag, [{tag: b""}])
            registry.push(built.layout, f"org/plankton:{tag}")
            request = PullRequest(target=parse_target("plankton"), platform=AMD64, for_gpus=tag == "gpu")
            result = carry_out_pull(plan_pull(request, f"{registry.host}/org/plankton"), places, NOW)
            assert result.digest == built.digest
            assert result.name.endswith(f"/org/plankton:{tag}")
            assert f"tag {tag}, since" in result.why


@pytest.fixture(scope="module")
def plankton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A module's image in a registry, and its digests by the usual tags."""
    place = tmp_path_factory.mktemp("plankton")
    with real_registry(place / "registry") as registry:
        built = {tag: build_image(place / tag, [{tag: b""}]) for tag in ("cpu", "gpu", "latest")}
        for tag, image in built.items():
            registry.push(image.layout, f"org/plankton:{tag}")
        yield f"{registry.host}/org/plankton", {tag: image.digest for tag, image in built.items()}


#: What is here of a module, how many GPUs a run asks for, and the tag that it takes.
PULLED = [
    (("gpu",), 0, "gpu", "tag gpu, which is here"),
    (("latest",), 0, "latest", "tag latest, which is here"),
    (("gpu", "cpu"), 0, "cpu", "tag cpu, since it will run without GPUs"),
    (("cpu",), 1, "gpu", "tag gpu, since it will run with GPUs"),
    (("cpu", "gpu"), 2, "gpu", "tag gpu, since it will run with GPUs"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("here", "gpus", "tag", "why"), PULLED)
def test_what_was_pulled_is_taken_where_it_does_the_same(
    places: ImagePlaces, plankton: tuple[str, dict[str, str]], here: tuple[str, ...], gpus: int, tag: str, why: str
) -> None:
    image, digests = plankton
    for one in here:
        pulled(places, f"docker://{image}:{one}")
    request = PullRequest(target=parse_target("plankton"), platform=AMD64, for_gpus=gpus > 0)
    result = carry_out_pull(plan_pull(request, image), places, NOW)
    assert (result.digest, result.name) == (digests[tag], f"docker://{image}:{tag}")
    assert why in result.why


@pytest.mark.slow
@pytest.mark.parametrize(("here", "gpus", "tag", "why"), PULLED)
def test_a_dry_run_foresees_the_tag_that_is_taken_or_none(
    tmp_path: Path,
    places: ImagePlaces,
    plankton: tuple[str, dict[str, str]],
    here: tuple[str, ...],
    gpus: int,
    tag: str,
    why: str,
) -> None:
    image, digests = plankton
    for one in here:
        pulled(places, f"docker://{image}:{one}")
    options = JobOptions(resources=Resources(gpus_per_node=gpus or None), image=ImageOptions(engine="apptainer"))
    run = load_module_request("train", "plankton", ("train",), tmp_path, options)
    told: list[str] = []
    foreseen = foresee(run, ImageDesk(settings_in(tmp_path), places, lambda _: image, lambda: NOW, told.append))
    if tag in here:
        assert foreseen.container is not None
        assert (foreseen.container.digest, foreseen.container.image) == (digests[tag], f"docker://{image}:{tag}")
        assert why in "".join(told)
    else:
        assert foreseen.container is None


@pytest.mark.slow
def test_a_locked_name_that_moved_is_refused_before_anything_is_fetched(tmp_path: Path, places: ImagePlaces) -> None:
    lock = tmp_path / "deephpc.lock"
    with real_registry(tmp_path / "registry") as registry, front_of(registry.port) as front:
        first = build_image(tmp_path / "one", some_layers(1))
        registry.push(first.layout, "org/tool")
        target = f"docker://{front.host}/org/tool"
        with pytest.raises(EngineError, match="is not in"):
            pulled(places, target, locked=lock)
        assert pulled(places, target, lock=lock).lockfile == lock
        assert first.digest in lock.read_text()
        assert pulled(places, target, locked=lock).fetched_bytes == 0
        second = build_image(tmp_path / "two", [{"new": b"new"}])
        registry.push(second.layout, "org/tool")
        before = len(front.blob_requests())
        with pytest.raises(EngineError, match="moved") as caught:
            pulled(places, target, locked=lock)
        assert caught.value.exit_code == 4
        assert len(front.blob_requests()) == before
        old = pulled(places, f"docker://{front.host}/org/tool@{first.digest}", locked=None)
    assert old.digest == first.digest


@pytest.mark.slow
def test_a_digest_that_is_here_asks_nobody(tmp_path: Path, places: ImagePlaces) -> None:
    with real_registry(tmp_path / "registry") as registry:
        built = build_image(tmp_path / "one", some_layers(1))
        registry.push(built.layout, "org/tool")
        pulled(places, f"docker://{registry.host}/org/tool")
    assert pulled(places, f"docker://{registry.host}/org/tool@{built.digest}").fetched_bytes == 0


def test_a_sif_is_used_where_it_lies_and_pinned_by_its_hash(tmp_path: Path, places: ImagePlaces) -> None:
    sif, lock = tmp_path / "x.sif", tmp_path / "deephpc.lock"
    sif.write_bytes(b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"0" * 100)
    result = pulled(places, str(sif), lock=lock)
    assert (result.kind, result.path) == ("sif", sif)
    assert f'sif_sha256 = "{result.digest}"' in lock.read_text()
    sif.write_bytes(sif.read_bytes() + b"1")
    with pytest.raises(EngineError, match="moved"):
        pulled(places, str(sif), locked=lock)
    sif.write_bytes(b"no sif")
    with pytest.raises(EngineError, match="is not a SIF"):
        pulled(places, str(sif))


@pytest.fixture
def two_images(tmp_path: Path, places: ImagePlaces) -> tuple[str, str]:
    """Two images, a day apart."""
    digests = []
    for day, name in enumerate(("one", "two")):
        built = build_image(tmp_path / name, [{name: b"x" * 1000}])
        digests.append(pulled(places, f"oci:{built.layout}", NOW + timedelta(days=day)).digest)
    return digests[0], digests[1]


def test_what_a_job_needs_is_neither_removed_nor_collected(
    tmp_path: Path, places: ImagePlaces, two_images: tuple[str, str]
) -> None:
    needed, other = two_images
    run_plan = tmp_path / "plan.json"
    run_plan.write_text(json.dumps({"image": {"digest": needed}, "name": f"docker://x/y@{DIGEST}"}, indent=2))
    in_use = images_in_use(places.store, [run_plan, tmp_path / "gone.json"], "alice", NOW)
    assert in_use == {needed, DIGEST}
    assert digests_in_use([]) == frozenset()
    with pytest.raises(EngineError, match="needed by a queued or running job"):
        remove_image(places.store, needed, in_use, force=False, dry_run=False)
    keep, later = Keep(timedelta(0), None, in_use), datetime.now(timezone.utc) + timedelta(days=1)
    planned = collect_garbage(places.store, keep, later, dry_run=True)
    assert (planned.removed, planned.done) == ((other,), False)
    assert len(places.store.images()) == 2
    done = collect_garbage(places.store, keep, later, dry_run=False)
    assert done.removed == (other,)
    assert done.freed_bytes >= planned.freed_bytes > 0
    assert [image.digest for image in places.store.images()] == [needed]
    assert remove_image(places.store, needed, in_use, force=True, dry_run=False).done
    assert places.store.images() == ()


def test_gc_on_a_store_that_never_was_leaves_none_behind(places: ImagePlaces) -> None:
    done = collect_garbage(places.store, Keep(timedelta(0)), NOW, dry_run=False)
    assert done.removed == ()
    assert not places.store.root.exists()


def test_a_faulty_image_ends_with_4_and_can_be_mended(
    tmp_path: Path, places: ImagePlaces, two_images: tuple[str, str]
) -> None:
    image = places.store.image(two_images[0])
    image.layers[0].chmod(0o600)
    image.layers[0].write_bytes(b"changed")
    with pytest.raises(EngineError):
        verify_image(places.store, two_images[0], drop=False)  # its size changed: not complete any more
    content = bytearray(places.store.image(two_images[1]).layers[0].read_bytes())
    content[20] ^= 1
    path = places.store.image(two_images[1]).layers[0]
    path.chmod(0o600)
    path.write_bytes(content)
    verdict = verify_image(places.store, two_images[1], drop=True)
    assert verdict.dropped
    with pytest.raises(EngineError, match="its bytes have the digest"):
        check_verdict(verdict)
    assert pulled(places, f"oci:{tmp_path / 'two'}").fetched_bytes > 0
    check_verdict(verify_image(places.store, two_images[1], drop=False))


@pytest.mark.parametrize(("text", "size"), [("50G", 50 << 30), ("1.5k", 1536), ("10", 10), ("2TiB", 2 << 40), ("0", 0)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("30d", 720), ("1w", 168), ("0", 0)])
def test_ages_are_read(text: str, hours: int) -> None:
    assert parse_age(text) == timedelta(hours=hours)


@pytest.mark.parametrize("parse", [parse_size, parse_age])
@pytest.mark.parametrize("text", ["", "x", "-1d", "1y", "1 2", "9" * 400 + "x"])
def test_what_is_neither_size_nor_age_is_named(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


def test_every_answer_has_a_schema_and_words(tmp_path: Path, places: ImagePlaces, two_images: tuple[str, str]) -> None:
    image = places.store.image(two_images[0])
    result = pulled(places, f"oci:{tmp_path / 'one'}")
    file = tmp_path / "out.tar"
    answers = {
        "deephpc.image-pull-plan/1": lambda as_json: render_pull_plan(
            plan("docker://x"), places.store, as_json=as_json
        ),
        "deephpc.image-pull/1": lambda as_json: render_pulled(result, as_json=as_json),
        "deephpc.images/1": lambda as_json: render_images(places.store.images(), as_json=as_json),
        "deephpc.image/1": lambda as_json: render_image(image, as_json=as_json),
        "deephpc.image-verify/1": lambda as_json: render_verdict(
            verify_image(places.store, image.digest, drop=False), as_json=as_json
        ),
        "deephpc.image-removal/1": lambda as_json: render_removal(
            remove_image(places.store, image.digest, frozenset(), force=False, dry_run=True), as_json=as_json
        ),
        "deephpc.image-export/1": lambda as_json: render_export(
            export_image(places.store, image.digest, file, Silent(), force=True, dry_run=False), as_json=as_json
        ),
    }
    for schema, answer in answers.items():
        assert json.loads(answer(True))["schema"] == schema
        assert answer(False).strip()
    assert image.digest[7:19] in render_images(places.store.images(), as_json=False)


def test_labels_cannot_steer_the_terminal(tmp_path: Path, places: ImagePlaces) -> None:
    built = build_image(tmp_path / "one", [{"a": b""}], tag="docker://x/\x1b[2Jy")
    result = pulled(places, f"oci:{built.layout}")
    assert "\x1b" not in render_image(places.store.image(result.digest), as_json=False)
