"""A short soak, always with the same wishes; `make soak` is the long one, with others."""
import pathlib
import subprocess
import sys

import pytest

SOAK = pathlib.Path(__file__).resolve().parents[1] / "soak/soak.py"


@pytest.mark.timeout(600)
def test_a_short_soak_ends_clean():
    done = subprocess.run([sys.executable, str(SOAK), "--minutes", "0.8", "--seed", "7", "--verbose"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=580, check=False)
    assert done.returncode == 0, done.stdout
    assert "soak: clean" in done.stdout
