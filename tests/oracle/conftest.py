"""Makes the Python files of `jobscripts/` importable: they are no package, on a node they lie beside each other."""

import sys

from deephpc.places import shipped

sys.path.append(str(shipped("jobscripts")))
