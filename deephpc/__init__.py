"""deephpc: the whole machine-learning cycle on any Slurm cluster, from a plain user account."""

__version__ = "0.1.0"
