import pytest

from deephpc.catalogue.image_name import parse_image_name


@pytest.mark.parametrize(
    ("written", "name", "changes"),
    [
        ("ai4oshub/posenet-tf", "ai4oshub/posenet-tf", ()),
        (" ai4oshub/posenet-tf", "ai4oshub/posenet-tf", ("has spaces around it",)),
        ("posenet-tf", "ai4oshub/posenet-tf", ("lacks the organisation; read as ai4oshub/posenet-tf",)),
        ("registry.host.eu/group/name", "registry.host.eu/group/name", ()),
        ("registry:5000/group/name", "registry:5000/group/name", ()),
        ("vllm/vllm-openai:latest", "vllm/vllm-openai:latest", ("carries a tag, which pins every user to it",)),
        ("docker://a/b", "a/b", ("needs no docker:// in front",)),
        ("https://hub.docker.com/r/a/b/", "a/b", ("is a web address; write organisation/name",)),
        ("", "", ("names no image",)),
    ],
)
def test_what_people_write_becomes_a_name(written: str, name: str, changes: tuple[str, ...]) -> None:
    image = parse_image_name(written, "ai4oshub")
    assert (image.name, image.changes, image.error) == (name, changes, "")


@pytest.mark.parametrize("written", ["A/b", "a b", "a/b:", "https://github.com/a/b", "a//b", "../a", "a/b\nc", "-a/b"])
def test_what_no_registry_can_have_is_an_error(written: str) -> None:
    image = parse_image_name(written, "ai4oshub")
    assert image.name == ""
    assert "is not the name of an image" in image.error
