"""Module catalogues: sources, their cached copies, both metadata schemas, search; all of it works offline."""
