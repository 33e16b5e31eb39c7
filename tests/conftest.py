"""Hypothesis profiles: `quick` everywhere, `full` (HYPOTHESIS_PROFILE=full) for the 10 000 cases of `make test-long`.

Where CI is set, a skipped test is a failed one: nothing may be missing there. Files that take long begin first, so that
the short ones fill what is left of the time side by side with them.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

HERE = Path(__file__).parent

# Threads of NumPy and PyTorch that wait for each other spin, on cores that tests side by side need.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

# A shell makes what it starts in the background deaf to Ctrl-C, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Files that take over a minute, the longest first; `make test` names the slowest tests at its end.
LONGEST = (
    *("cluster/test_engines.py", "cluster/test_launchers.py", "cluster/test_harness.py", "cluster/test_main_job.py"),
    *("cluster/test_tutorial.py", "cluster/test_releases.py", "cluster/test_requeue.py", "test_readme.py"),
    *("cluster/test_truthful.py", "cluster/test_site_and_doctor.py", "cluster/test_collect.py"),
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, then the others on the cluster, then the rest."""

    def rank(item: pytest.Item) -> int:
        file = str(item.path.relative_to(HERE))
        if file in LONGEST:
            return LONGEST.index(file)
        return len(LONGEST) + (item.get_closest_marker("cluster") is None)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skip into a failure in CI."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but CI may lack nothing: {report.longrepr}"
    return report
