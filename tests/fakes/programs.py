"""Slurm's commands as small programs first on PATH: sbatch can run the job at once, refuse it, or lose its answer."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = {
    "sbatch": r"""
        if [ -e refuse ]; then cat refuse >&2; exit 1; fi
        [ ! -e say ] || cat say >&2
        id=$(($(ls queue | wc -l) + 1)) state=PENDING
        script=$place/${words[-1]}
        name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
        if [ -e run-at-once ]; then
          state=COMPLETED
          (cd "$place" && SLURM_JOB_ID=$id bash "$script" >>job.log 2>&1) || state=FAILED
        fi
        printf '%s\037%s\037None\0371\0372\0373\0371\037n1\037%s\n' "$id" "$state" "$name" >"queue/$id"
        if [ -e lose-the-answer ]; then
          rm lose-the-answer
          echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2
          exit 1
        fi
        echo "$id"
    """,
    "squeue": """
        case "$*" in *%Q*) cat turn 2>/dev/null; exit 0 ;; esac # when a job may start
        for word in "${words[@]}"; do # every job here is of this account, as sbatch goes by it and not by variables
          case $word in --user=*) [ "${word#--user=}" = "$(id -un)" ] || exit 0 ;; esac
        done
        cat queue/* 2>/dev/null
        exit 0
    """,
    "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1",
    "scancel": r"""for word in "${words[@]}"; do
          [ ! -e "queue/$word" ] || sed -i 's/PENDING\|RUNNING/CANCELLED/' "queue/$word"
        done""",
}


@dataclass(frozen=True)
class CommandLine:
    """The installed `deephpc`, a home of its own, and fake Slurm commands."""

    home: Path

    @classmethod
    def make(cls, home: Path) -> "CommandLine":
        """Lay out the programs and the queue."""
        (home / "bin").mkdir()
        (home / "slurm" / "queue").mkdir(parents=True)
        for name, body in _PROGRAMS.items():
            program = home / "bin" / name
            program.write_text(
                '#!/bin/bash\nplace=$PWD words=("$@")\n'
                f"cd '{home}/slurm' || exit 9\necho x >>{name}.calls\nprintf '%s\\n' \"$*\" >>{name}.argv\n{body}\n"
            )
            program.chmod(0o755)
        return cls(home)

    @property
    def slurm(self) -> Path:
        """The fakes' folder: a file `refuse`, `say`, `run-at-once` or `lose-the-answer` changes what sbatch does."""
        return self.home / "slurm"

    def calls(self, name: str) -> int:
        """Return how often a command was called."""
        noted = self.slurm / f"{name}.calls"
        return len(noted.read_text().splitlines()) if noted.exists() else 0

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of the user."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        places = {f"DEEPHPC_{name}_DIR": str(self.home / name.lower()) for name in ("WORK", "CACHE", "STATE")}
        path = f"{self.home}/bin:/usr/local/bin:/usr/bin:/bin"
        return {**kept, **places, "HOME": str(self.home), "PATH": path, "DEEPHPC_SITE": "generic", **more}

    def __call__(self, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run `deephpc`, in the home folder."""
        program = Path(sys.executable).with_name("deephpc")
        return subprocess.run(
            [program, *words], cwd=self.home, env=self.environ(**more), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
