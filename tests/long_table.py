"""Table of `make test-long`: each test with its cases, its seconds and how it ended, the slowest first.

A pytest plugin: `pytest -p tests.long_table`.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import pytest

#: In a test's last report, from the process it ran in.
_CASES = "cases"
#: A part of what Hypothesis 6 says of each phase of a test (`--hypothesis-show-statistics`).
_PASSED = re.compile(r"\b(\d+) passing")


@dataclass(frozen=True)
class _Line:
    test: str
    cases: int
    seconds: float
    outcome: str


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count the cases of a property, where it was tried."""
    report = yield
    if report.when == "teardown":
        said = getattr(item, "hypothesis_statistics", "")
        report.user_properties.append((_CASES, sum(map(int, _PASSED.findall(said)))))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    lines = sorted(_lines(terminalreporter), key=lambda line: -line.seconds)
    if not lines:
        return
    terminalreporter.section("cases tried")
    terminalreporter.write_line(f"{'CASES':>8}  {'SECONDS':>8}  {'':8}TEST")
    for line in lines:
        outcome = "" if line.outcome == "passed" else line.outcome
        terminalreporter.write_line(f"{line.cases or '-':>8}  {line.seconds:8.1f}  {outcome:8}{line.test}")
    cases, seconds = sum(line.cases for line in lines), sum(line.seconds for line in lines)
    terminalreporter.write_line(f"{cases:>8}  {seconds:8.1f}  {'':8}all {len(lines)}")


def _lines(terminalreporter: pytest.TerminalReporter) -> Iterator[_Line]:
    cases = {report.nodeid: dict(report.user_properties).get(_CASES, 0) for report in terminalreporter.getreports("")}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call":
                yield _Line(report.nodeid, cases.get(report.nodeid, 0), report.duration, outcome)
