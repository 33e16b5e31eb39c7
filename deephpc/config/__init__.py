"""What users write: settings and sites; their precedence, and where each value came from."""

from deephpc.config.layers import UserFile
from deephpc.config.paths import UserPlaces, locate_user_places
from deephpc.config.settings import Settings, choose_site, load_settings
from deephpc.config.site import Partition, Site
from deephpc.config.site_files import SiteFile, list_site_files, load_site

__all__ = [
    "Partition",
    "Settings",
    "Site",
    "SiteFile",
    "UserFile",
    "UserPlaces",
    "choose_site",
    "list_site_files",
    "load_settings",
    "load_site",
    "locate_user_places",
]
