"""A machine with systemd and Docker for a test: a container made of tests/cluster/node-image."""
import itertools
import json
import os
import pathlib
import subprocess

import pytest
from orca import APP, ROOT, wait_for

CAPABILITIES = (
    "AUDIT_CONTROL BLOCK_SUSPEND DAC_READ_SEARCH IPC_LOCK IPC_OWNER LEASE LINUX_IMMUTABLE NET_ADMIN NET_BROADCAST SYS_ADMIN SYS_BOOT SYS_MODULE SYS_NICE "
    "SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM"
).split()
_numbers = itertools.count(1)


def host_docker(*args, check=True, **kwargs):
    done = subprocess.run(["docker", *args], capture_output=True, text=True, check=False, **kwargs)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout.strip()


def image():
    return subprocess.run([ROOT / "tests/cluster/node-image"], check=True, capture_output=True, text=True).stdout.strip()


class SystemdNode:
    """with SystemdNode() as n: n.install(FOLDER); n.sh('systemctl status'); n.load(IMAGE)"""

    def __init__(self, name="n1"):
        self.name = name
        self.container = f"orca-test-node-{os.getpid()}-{next(_numbers)}"
        self.address = None

    def __enter__(self):
        args = ["run", "-d", "--name", self.container, "--hostname", self.name, "--cgroupns=host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "-v", "/var/lib/docker"]
        args += ["--tmpfs", "/run", "--tmpfs", "/tmp", "--label", "orca.test=node"]
        for option in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
            args += ["--security-opt", option]
        for capability in CAPABILITIES:
            args += ["--cap-add", capability]
        name = image()
        try:
            host_docker(*args, name)
            wait_for(lambda: self.sh("systemctl is-system-running", check=False) in ("running", "degraded"), 60, every=0.2, message="systemd in a container")
            wait_for(lambda: self.sh("docker version -f '{{.Server.Version}}'", check=False), 30, every=0.2, message="Docker in a container")
            self.address = host_docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.container)
        except BaseException as why:
            self.__exit__()
            if isinstance(why, AssertionError):
                pytest.skip(f"a machine inside of a container can't be had here: {why}")
            raise
        return self

    def __exit__(self, *_):
        host_docker("rm", "-fv", self.container, check=False)

    def run(self, *args, check=True, data=None, timeout=120):
        return subprocess.run(["docker", "exec", *(["-i"] if data is not None else []), self.container, *args], check=check, capture_output=True, input=data, timeout=timeout)

    def sh(self, script, check=True, timeout=120):
        done = self.run("sh", "-c", script, check=False, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"{script}: exit status {done.returncode}\n{done.stdout.decode(errors='replace')[-3000:]}{done.stderr.decode(errors='replace')[-3000:]}")
        return done.stdout.decode(errors="replace").strip()

    def write(self, path, text):
        self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat >{path}', data=text.encode())

    def copy(self, source, to):
        host_docker("cp", str(source), f"{self.container}:{to}")

    def load(self, name=APP):
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "exec", "-i", self.container, "docker", "load", "-q"], stdin=saved.stdout, check=True, capture_output=True)

    def install(self, folder, packages=("orca-common", "orcactl", "orca-worker", "orca-master")):
        files = [str(f) for p in packages for f in pathlib.Path(folder).glob(f"{p}_*.deb")]
        assert len(files) == len(packages), f"{folder}: not one file per package: make deb"
        self.sh("rm -rf /root/debs && mkdir -p /root/debs")
        for f in files:
            self.copy(f, "/root/debs/")
        return self.sh("DEBIAN_FRONTEND=noninteractive dpkg -i /root/debs/*.deb 2>&1", timeout=180)

    def containers(self):
        """Of orca: {name: (id, when it was started, pid)}"""
        ids = self.sh("docker ps -q --filter label=orca.cluster").split()
        if not ids:
            return {}
        found = json.loads(self.sh(f"docker inspect {' '.join(ids)}"))
        return {c["Name"]: (c["Id"], c["State"]["StartedAt"], c["State"]["Pid"]) for c in found}

    def pid(self, daemon):
        return int(self.sh(f"systemctl show -p MainPID --value orca-{daemon}"))
