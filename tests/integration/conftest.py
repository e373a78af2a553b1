import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from interrupts import take_sigterm  # noqa: E402
from orca import Cluster  # noqa: E402


def pytest_configure():
    take_sigterm()


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
