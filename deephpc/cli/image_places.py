"""Where a command finds images: the store of the site's cache, the registries, and the catalogue that names them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from deephpc.cli.context import Context
from deephpc.errors import InputError

if TYPE_CHECKING:
    from deephpc.catalogue.module import Module
    from deephpc.containers.reference import Target
    from deephpc.containers.store import Store
    from deephpc.workflows.image import ImagePlaces
    from deephpc.workflows.in_image import ImageDesk


def image_store(here: Context) -> "Store":
    """Open the store of images."""
    from deephpc.workflows.image_upkeep import open_store

    return open_store(here.settings.cache_dir)


def image_places(here: Context, insecure: Sequence[str] = ()) -> "ImagePlaces":
    """Return where images lie, and which registries may go without TLS: those named here or in the environment."""
    from deephpc.workflows.image import ImagePlaces

    allowed = here.environ.get("DEEPHPC_INSECURE_REGISTRIES", "").replace(",", " ").split()
    return ImagePlaces(image_store(here), here.environ, here.home, frozenset((*insecure, *allowed)))


def image_desk(here: Context) -> "ImageDesk":
    """Return what a run's image is brought with."""
    from deephpc.workflows.in_image import ImageDesk

    return ImageDesk(here.settings, image_places(here), partial(module_image, here), here.clock, here.say)


def find_module(here: Context, name: str) -> "Module":
    """Ask the catalogue for a module by its name.

    Raises
    ------
    InputError
        There is none; with the nearest names.
    """
    from deephpc.config import locate_user_places
    from deephpc.workflows.catalogue import open_catalogue, show_module

    places = locate_user_places(here.options.config, here.environ, here.home)
    return show_module(open_catalogue(places, here.settings.cache_dir), name)[0]


def module_image(here: Context, target: "Target") -> str | None:
    """Ask the catalogue for a module's image, else the store for the digest of one called so; nothing else has one.

    Raises
    ------
    InputError
        Neither has it.
    EngineError
        The store has no image, or several, of that digest.
    """
    from deephpc.containers.reference import ModuleImage
    from deephpc.containers.upkeep import find_image, is_called

    if not isinstance(target, ModuleImage):
        return None
    if target.module == "sha256":
        return find_image(image_store(here), str(target)).digest
    try:
        return find_module(here, target.module).image
    except InputError:
        kept = [image for image in image_store(here).images() if is_called(image, str(target))]
        if len(kept) != 1:
            raise
        return kept[0].digest
