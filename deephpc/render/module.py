"""What a module says of itself to tables, or to JSON with a versioned shape."""

from collections.abc import Sequence
from typing import Any, Literal

from deephpc.render.answer import draw, to_json, visible
from deephpc.serve.argument_values import render_value
from deephpc.serve.module_description import Argument, Method, ModuleDescription

Part = Literal["train", "predict"]
_MOST_CHOICES = 12
_HOW = {"train": "train {target} -- --NAME VALUE", "predict": "predict {target} --input NAME=FILE --arg NAME=VALUE"}


def render_description(target: str, description: ModuleDescription, *, as_json: bool, only: Part | None = None) -> str:
    """Return the arguments of a module's training and predictions.

    Parameters
    ----------
    only
        The one to show; None for both.
    """
    parts: Sequence[Part] = (only,) if only else ("train", "predict")
    if as_json:
        methods: dict[str, Any] = {part: _method(description, part).model_dump(mode="json") for part in parts}
        about = {"target": target, "model": description.served, "models": description.models}
        return to_json("deephpc.module-arguments/1", {**about, "deepaas": description.deepaas, **methods})
    others = [name for name in description.models if name != description.served]
    first = f"{description.served} (DEEPaaS {description.deepaas})"
    blocks = [f"{first}; also in this image: {', '.join(others)} (--model)" if others else first]
    for part in parts:
        method = _method(description, part)
        if not method.exists:
            blocks.append(f"it cannot {part}")
        elif not method.arguments:
            blocks.append(f"{part} takes no arguments")
        else:
            blocks.append(f"{part}: deephpc {_HOW[part].format(target=target)}\n{_table(method.arguments)}")
    return "\n\n".join(visible_lines(blocks))


def visible_lines(blocks: Sequence[str]) -> list[str]:
    """Return texts of several lines with what a terminal would obey written out."""
    return ["\n".join(map(visible, block.split("\n"))) for block in blocks]


def _method(description: ModuleDescription, part: Part) -> Method:
    return description.train if part == "train" else description.predict


def _table(arguments: Sequence[Argument]) -> str:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ARGUMENT", "TYPE", "DEFAULT", "TAKES"):
        table.add_column(name, no_wrap=name in ("ARGUMENT", "TYPE"), overflow="fold")
    table.add_column("WHAT IT IS", overflow="fold")
    for one in arguments:
        kind = f"list of {one.items}" if one.type == "list" and one.items else one.type
        default = "required" if one.required else "-" if one.default is None else render_value(one.default)
        cells = (one.name, kind, default, _takes(one), " ".join(one.description.split()))
        table.add_row(*(Text(cell) for cell in cells))
    return draw(table)


def _takes(argument: Argument) -> str:
    """Return what values are allowed."""
    if argument.choices:
        more = ", …" if len(argument.choices) > _MOST_CHOICES else ""
        return ", ".join(map(render_value, argument.choices[:_MOST_CHOICES])) + more
    low, high = argument.min, argument.max
    if low is None and high is None:
        return "-"
    return f"{'' if low is None else f'{low:g}'}…{'' if high is None else f'{high:g}'}"
