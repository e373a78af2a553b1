import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from orca import Cluster  # noqa: E402


def interrupted(_signo, _frame):
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def pytest_configure():
    signal.signal(signal.SIGTERM, interrupted)  # of a time limit around the run: fixtures end as they do at ctrl-C


@pytest.fixture
def cluster():
    with Cluster() as c:
        yield c


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and report.when == "call" and "cluster" in item.funcargs:
        report.sections.append(("the daemons' logs", item.funcargs["cluster"].logs()))
