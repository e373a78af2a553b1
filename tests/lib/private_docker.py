"""A Docker Engine of a test's own, beside the machine's: own data, own socket, networks from an address pool of its own."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from orca import APP, wait_for


class PrivateDocker:
    """with PrivateDocker() as d: d.docker('ps'); d.restart(). Its containers are reached from its own name space only."""

    def __init__(self, pool=150):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="orca-docker-"))
        self.socket = str(self.dir / "docker.sock")
        self.pool = pool
        self.process = None

    def command(self):
        # In a network name space of its own: an engine beside the machine's would share its firewall rules, and removes its docker0 on a restart.
        network = "ip link set lo up && ip link add node0 type veth peer name node1 && ip addr add 10.199.0.1/24 dev node0 && ip link set node0 up && ip link set node1 up"
        engine = ["dockerd", "--data-root", str(self.dir / "data"), "--exec-root", str(self.dir / "exec"), "--pidfile", str(self.dir / "docker.pid"), "-H",
                  f"unix://{self.socket}", "--default-address-pool", f"base=10.{self.pool + os.getpid() % 40}.0.0/16,size=24"]
        return ["unshare", "-n", "sh", "-c", f'{network} && exec "$@"', "sh", *engine]

    def start(self):
        # A killed engine's containerd that nobody has reaped yet passes for alive, and the next engine would wait for it in vain.
        pidfile = self.dir / "exec/containerd/containerd.pid"
        if pidfile.exists():
            wait_for(lambda: self._ended(int(pidfile.read_text())), 10, message="containerd of the engine before ended")
            pidfile.unlink(missing_ok=True)
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: self.docker("version", "-f", "{{.Server.Version}}", check=False), 30, message=f"dockerd in {self.dir}")

    def stop(self, signo=signal.SIGTERM):
        if self.process:
            self.process.send_signal(signo)
            self.process.wait(30)
            self.process = None

    def _ended(self, pid):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        os.kill(pid, signal.SIGKILL)
        return False

    def restart(self):
        self.stop()
        self.start()

    def docker(self, *args, check=True, **kwargs):
        done = subprocess.run(["docker", "-H", f"unix://{self.socket}", *args], capture_output=True, text=True, check=False, **kwargs)
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def load(self, image=APP):
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "-H", f"unix://{self.socket}", "load", "-q"], stdin=saved.stdout, check=True, capture_output=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        try:
            found = self.docker("ps", "-aq", check=False).split() if self.process else []
            if found:
                self.docker("rm", "-fv", *found, check=False)
            networks = self.docker("network", "ls", "-q", "--filter", "type=custom", check=False).split() if self.process else []
            if networks:
                self.docker("network", "rm", *networks, check=False)
            self.stop()
        finally:
            for line in pathlib.Path("/proc/mounts").read_text().splitlines():
                where = line.split()[1]
                if where.startswith(str(self.dir)):
                    subprocess.run(["umount", "-l", where], check=False, capture_output=True)
            shutil.rmtree(self.dir, ignore_errors=True)
