"""Where a module that is already imported keeps its models and data, by what its own configuration says.

Runs inside the image: Python 3.6 or later, standard library only. Nothing is imported, and of the module's functions
only those below are called, which take nothing and join paths.
"""

import os
import sys
import types

_CONFIGURATIONS = ("config", "configs", "paths")
_NAMES = {
    # DATA_PATH, MODELS_PATH: config.py of ai4os-hub/thermal-anomaly-segmenter, and of the templates; MODEL_DIR: configs
    # of deephdc/fasterrcnn_pytorch_api; app_data, app_models: config.py of deephdc/mods; functions: paths.py of
    # deephdc/satsr and of ai4os-hub/integrated-plant-protection
    "data": ("DATA_PATH", "DATA_DIR", "app_data", "get_data_dir", "get_images_dir"),
    "models": ("MODELS_PATH", "MODELS_DIR", "MODEL_DIR", "app_models", "get_models_dir"),
}
_SYSTEM = ("bin", "boot", "deephpc", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "usr")


def folders_of(plugin):
    """Return the module's folders by what they are for, `data` or `models`: those that the image has."""
    found = {role: [] for role in _NAMES}
    for place in _configurations(plugin):
        for role, names in _NAMES.items():
            for name in names:
                folder = _folder(vars(place).get(name))
                if folder and folder not in found[role]:
                    found[role].append(folder)
    return found


def _configurations(plugin):
    """Yield the parts of the module that may say it: itself, and what is imported of its packages under such a name."""
    if not isinstance(plugin, types.ModuleType):
        plugin = sys.modules.get(getattr(plugin, "__module__", None) or type(plugin).__module__)
    if plugin is None:
        return
    yield plugin
    others = [
        value for value in vars(plugin).values() if isinstance(value, types.ModuleType) and not _is_installed(value)
    ]
    packages = {each.__name__.partition(".")[0] for each in (plugin, *others)}
    for name, module in sorted(sys.modules.items()):
        above, _, last = name.rpartition(".")
        if last in _CONFIGURATIONS and above.partition(".")[0] in packages and isinstance(module, types.ModuleType):
            yield module


def _is_installed(module):
    """Return whether it is a library's, and not part of a module's own checkout."""
    file = getattr(module, "__file__", None) or os.__file__
    return file.startswith(os.path.dirname(os.__file__) + os.sep) or "-packages" + os.sep in file


def _folder(value):
    """Return what a name stands for as the path of a folder, when it is one of the image's that may be a module's."""
    if isinstance(value, types.FunctionType) and not value.__code__.co_argcount + value.__code__.co_kwonlyargcount:
        try:
            value = value()
        except Exception:  # noqa: BLE001 -- whatever a stranger's module raises
            return None
    if not isinstance(value, (str, os.PathLike)):
        return None
    text = os.fspath(value)
    if not isinstance(text, str) or not os.path.isabs(text) or any(each in text for each in ":,\n\0"):
        return None
    folder = "/" + os.path.normpath(text).lstrip("/")
    return folder if _may_be_a_modules(folder) and os.path.isdir(folder) else None


def _may_be_a_modules(folder):
    parts = folder.split("/")[1:]
    if folder in ("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp"):
        return False
    if folder == os.path.normpath(os.path.expanduser("~")) or os.path.exists(os.path.join(folder, "__init__.py")):
        return False  # code of that name
    return (parts[:2] == ["usr", "src"] and len(parts) > 2) or parts[0] not in _SYSTEM
