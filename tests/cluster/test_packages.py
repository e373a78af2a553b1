"""The packages as files: what Debian's own checker says, what they hold, and that the same input makes the same bytes."""
import os
import pathlib
import shutil
import subprocess

import pytest
from orca import ROOT

DEBS = pathlib.Path(os.environ.get("ORCA_DEBS", ROOT / "build/deb"))
NEWER = pathlib.Path(os.environ.get("ORCA_DEBS_NEXT", ROOT / "build/deb-next"))
PACKAGES = ["orca-common", "orca-master", "orca-worker", "orcactl"]


def deb(package, folder=DEBS):
    return str(next(folder.glob(f"{package}_*.deb")))


def said(*args):
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("lintian"), reason="no lintian here")
def test_lintian():
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", *map(deb, PACKAGES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_is_in_two_packages_and_nothing_is_forgotten():
    seen = {}
    for package in PACKAGES:
        for line in said("dpkg-deb", "-c", deb(package)).splitlines():
            mode, owner, _, _, _, path = line.split(None, 5)
            assert owner == "root/root" and mode[8] != "w" and "s" not in mode[:10], line
            if not path.endswith("/"):
                assert path not in seen, (path, package, seen[path])
                seen[path] = package
    for daemon in ("store", "apiserver", "scheduler", "agent", "keeper", "proxy"):
        assert seen[f"./usr/libexec/orca/orca-{daemon}"] == seen[f"./lib/systemd/system/orca-{daemon}.service"] == seen[f"./usr/share/man/man8/orca-{daemon}.8.gz"]
    assert {"./usr/bin/orcactl", "./usr/bin/orca-storectl", "./usr/share/man/man1/orcactl.1.gz", "./usr/share/man/man7/orca.7.gz", "./usr/lib/sysusers.d/orca.conf"} <= seen.keys()


def test_dependencies_are_those_of_the_libraries():
    for package, library in (("orca-master", "liblmdb0"), ("orca-master", "libmicrohttpd12"), ("orca-worker", "libzmq5"), ("orcactl", "libcurl4")):
        assert library in said("dpkg-deb", "-f", deb(package), "Depends"), (package, library)
    assert "orca-common" not in said("dpkg-deb", "-f", deb("orcactl"), "Depends")


def test_programs_are_the_same_in_each_build(tmp_path):
    sums = []
    for folder in (DEBS, NEWER):
        control = tmp_path / folder.name
        said("dpkg-deb", "-e", deb("orca-worker", folder), str(control))
        sums.append(sorted(line for line in (control / "md5sums").read_text().splitlines() if "changelog" not in line))
    assert sums[0] == sums[1]
