"""Programs named like Slurm's, first on PATH, that answer what a test wants and note how they were called."""

import os
from collections.abc import Mapping
from pathlib import Path

D = "\x1f"
_ROWS = (
    ("debug*", "up", "1:00:00", "30:00", "1-2", "8", "6000", "3", "gpu:4", "all"),
    ("long", "up", "infinite", "n/a", "1-infinite", "64", "250000", "9", "(null)", "all"),
)
SINFO = "\n".join(D.join(row) for row in _ROWS)
CONFIG = """ClusterName = box
SLURM_VERSION = 24.11.5
MpiDefault = pmix
TmpFS = /tmp
AccountingStorageType = accounting_storage/slurmdbd"""
_SCONTROL = f"""case "$1" in
ping) echo 'Slurmctld(primary) at ctl is UP' ;;
*) date -u '+Configuration data as of %s'
cat <<'END'
{CONFIG}
END
;;
esac"""
_SACCTMGR = """case "$*" in
*withassoc*) echo 'proj|proj|normal'; echo 'proj|other|normal' ;;
*) echo 'box|10.0.0.1' ;;
esac"""
HEALTHY = {
    "sinfo": f"cat <<'END'\n{SINFO}\nEND",
    "scontrol": _SCONTROL,
    "sacctmgr": _SACCTMGR,
    "sbatch": """case "$*" in *--version*) echo slurm 24.11.5 ;; *) echo 'sbatch: Job 1 to start' >&2 ;; esac""",
    "srun": """while [ "$1" != /bin/sh ]; do shift; done; "$@" """,
    "squeue": "",
    "scancel": "",
    "sacct": "",
}


def fake_slurm(tmp_path: Path, programs: Mapping[str, str], **more: str) -> dict[str, str]:
    """Write the programs and return the environment that finds them; a call adds a line to `calls`."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, body in programs.items():
        program = bin_dir / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n{body}\n', encoding="utf-8")
        program.chmod(0o755)
    return {"PATH": f"{bin_dir}:{os.environ['PATH']}", "HOME": str(tmp_path), **more}


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
