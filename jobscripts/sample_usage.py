"""Samples what a program and its children use, as JSON lines: CPU seconds, resident memory, GPUs.

usage: sample_usage.py PID FILE

Runs on the compute node beside the program, with Python 3.6's standard library, until it is told to end or the program
is gone. Samples come after 1, 2, 4, ... seconds, then every 30. Fields: proc(5), `nvidia-smi --help-query-gpu`.
"""

import json
import os
import shutil
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024
LONGEST_PAUSE_S = 30.0


def processes():
    """Return {pid: (parent, CPU ticks with ended children, resident pages)} of every process that shows."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/" + name + "/stat", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:  # ended while we looked
            continue
        found[int(name)] = (int(fields[1]), sum(int(ticks) for ticks in fields[11:15]), int(fields[21]))
    return found


def tree(root, table):
    """Return the pids of `root` and all its descendants."""
    children = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    pids, queue = [], [root]
    while queue:
        pid = queue.pop()
        if pid in table:
            pids.append(pid)
            queue.extend(children.get(pid, ()))
    return pids


def gpus():
    """Return one {index, utilization_percent, memory_mib} for each GPU that nvidia-smi shows this job."""
    if shutil.which("nvidia-smi") is None:
        return []
    argv = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = []
    for line in out.decode(errors="replace").splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 3 and all(word.isdigit() for word in words):
            rows.append({"index": int(words[0]), "utilization_percent": int(words[1]), "memory_mib": int(words[2])})
    return rows


def sample(root):
    """Return one sample, or None when the program is gone."""
    table = processes()
    pids = tree(root, table)
    if not pids:
        return None
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu_s": round(sum(table[pid][1] for pid in pids) / TICKS, 2),
        "rss_mib": sum(table[pid][2] for pid in pids) * PAGE_KIB // 1024,
        "processes": len(pids),
        "gpus": gpus(),
    }


def main():
    """Append samples until the program is gone."""
    root, path = int(sys.argv[1]), sys.argv[2]
    pause = 1.0
    while True:
        time.sleep(pause)
        line = sample(root)
        if line is None:
            return
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
        pause = min(pause * 2, LONGEST_PAUSE_S)


if __name__ == "__main__":
    main()
