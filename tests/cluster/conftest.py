import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from interrupts import take_sigterm  # noqa: E402


def pytest_configure():
    take_sigterm()
