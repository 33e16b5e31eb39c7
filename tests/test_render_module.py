"""What a module says of itself, on a screen and as JSON."""

import json

import pytest

from deephpc.render.module import render_description
from deephpc.serve.module_description import Argument, Method, ModuleDescription

DESCRIPTION = ModuleDescription(
    deepaas="2.6.0",
    models=("leaves", "trees"),
    served="leaves",
    train=Method(
        exists=True,
        arguments=(
            Argument(name="epochs", type="int", default=15, min=1, description="How often\nall is seen"),
            Argument(name="kind", choices=("a", "b"), default="a"),
            Argument(name="sizes", type="list", items="int"),
            Argument(name="weights", type="file", required=True, description="\x1b[31mred"),
        ),
    ),
)


def test_arguments_are_shown_with_all_that_is_known_of_them() -> None:
    text = render_description("leaf-counter", DESCRIPTION, as_json=False)
    assert "leaves (DEEPaaS 2.6.0); also in this image: trees (--model)" in text
    assert "train: deephpc train leaf-counter -- --NAME VALUE" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "int" in rows["epochs"] and "15" in rows["epochs"] and "1…" in rows["epochs"]
    assert "How often all is seen" in rows["epochs"]
    assert "a, b" in rows["kind"]
    assert "list of int" in rows["sizes"]
    assert "required" in rows["weights"]
    assert "\x1b" not in text
    assert "it cannot predict" in text
    assert "predict" not in render_description("leaf-counter", DESCRIPTION, as_json=False, only="train")


@pytest.mark.parametrize("only, there", [(None, {"train", "predict"}), ("train", {"train"})])
def test_the_same_is_json(only: str | None, there: set[str]) -> None:
    answer = json.loads(render_description("x", DESCRIPTION, as_json=True, only=only))  # type: ignore[arg-type]
    assert answer["schema"] == "deephpc.module-arguments/1"
    assert {"train", "predict"} & answer.keys() == there
    assert answer["train"]["arguments"][0]["default"] == 15
