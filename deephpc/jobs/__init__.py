"""Jobs: what to submit, Slurm's dialect, the script, the run folder, submission and the record."""
