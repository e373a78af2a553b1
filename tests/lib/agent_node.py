"""One orca-agent alone against the real Docker; tests/tools/agent-drive.c plays its master and its keeper."""
import json
import os
import pathlib
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import uuid

from orca import BIN as BUILT, ROOT, docker, wait_for

BIN = pathlib.Path(os.environ.get("ORCA_BIN", BUILT))  # another build's programs
IMAGE = "orca-test/busybox:1"


def make_image():
    """A static busybox, as an image: nothing can be pulled here."""
    if docker("image", "inspect", IMAGE, check=False) not in ("", "[]"):
        return IMAGE
    with tempfile.TemporaryDirectory() as d:
        tree = pathlib.Path(d) / "root"
        (tree / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        for name in ("sh", "sleep", "nc", "httpd", "cat", "ls", "echo", "id", "env", "wget", "nslookup", "mkdir", "touch", "true", "false"):
            (tree / "bin" / name).symlink_to("busybox")
        tar = pathlib.Path(d) / "root.tar"
        subprocess.run(["tar", "-C", tree, "-cf", tar, "."], check=True)
        docker("import", str(tar), IMAGE)
    return IMAGE


class Agent:
    def __init__(self, node="n1", cluster=None, docker_socket="/run/docker.sock", start=True):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="orca-agent-"))
        self.node = node
        self.cluster = cluster or uuid.uuid4().hex[:16]
        self.said = []
        self.lines = queue.Queue()
        self.log = open(self.dir / "log", "ab")
        self.agent = None
        self.specs = 0
        make_image()
        self.docker_socket = docker_socket
        self.start_master()
        if start:
            self.start()

    # ---- processes

    def start_master(self, port=0):
        self.master = subprocess.Popen([BIN.parent / "tests/agent-drive", self.dir, self.node, self.cluster, "127.0.0.1", str(port), self.docker_socket],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1)
        threading.Thread(target=self._read, args=(self.master.stdout,), daemon=True).start()
        endpoint = self.wait(lambda kind, value: kind == "listening" and value, message="the master listens")
        self.port = int(endpoint.rsplit(":", 1)[1])
        config = self.dir / "node.toml"
        config.write_text(config.read_text().replace("gateway = 0\n", f"gateway = {self.port}\n"))

    def stop_master(self):
        self.master.kill()
        self.master.wait()

    def start(self):
        self.agent = subprocess.Popen([BIN / "orca-agent", "-c", self.dir / "node.toml", "-v"], stderr=self.log, env={**os.environ, "DOCKER_CONFIG": str(self.dir)})

    def kill(self, signal=9):
        self.agent.send_signal(signal)
        code = self.agent.wait()
        self.agent = None
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.agent:
            self.agent.kill()
            self.agent.wait()
        self.stop_master()
        self.log.close()
        if kind:
            print((self.dir / "log").read_text()[-8000:])
        self.clean()

    def clean(self):
        label = f"label=orca.cluster={self.cluster}"
        for what, listing in (("container", ["ps", "-aq"]), ("network", ["network", "ls", "-q"]), ("volume", ["volume", "ls", "-q"])):
            found = docker(*listing, "--filter", label, "--no-trunc", check=False).split() if what != "volume" else docker(*listing, "--filter", label).split()
            if found:
                docker(what, "rm", *(["-f"] if what != "network" else []), *found, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- talk

    def _read(self, stream):
        for line in stream:
            self.lines.put(json.loads(line))

    def _drain(self):
        while True:
            try:
                self.said.append(self.lines.get_nowait())
            except queue.Empty:
                return

    def send(self, *words):
        self.master.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.master.stdin.flush()

    def mark(self):
        """What is said from here on."""
        self._drain()
        return len(self.said)

    def all(self, kind, since=0):
        self._drain()
        return [line[kind] for line in self.said[since:] if kind in line]

    def wait(self, match, since=0, timeout=20, message=None):
        """The first thing said since for which match(kind, value) is true; its result is returned."""
        def look():
            self._drain()
            for line in self.said[since:]:
                for kind, value in line.items():
                    found = match(kind, value)
                    if found:
                        return found
            return None
        return wait_for(look, timeout, message=message)

    def status(self, instance, since=0, timeout=20, **want):
        return self.wait(lambda kind, v: kind == "status" and v["id"] == instance and all(v[k] == w for k, w in want.items()) and v, since, timeout,
                         message=f"{instance} {want}")

    def gone(self, instance, since=0, timeout=20):
        return self.wait(lambda kind, v: kind == "gone" and v == instance, since, timeout, message=f"{instance} gone")

    def spec(self, text, revision=1):
        self.specs += 1
        path = self.dir / f"spec{self.specs}.toml"
        path.write_text(text)
        self.send("spec", path, revision)

    def cluster_toml(self, text):
        path = self.dir / "cluster.toml"
        path.write_text(text)
        self.send("cluster", path)

    def assign(self, name, number=1, revision=1, epoch=1, desired="run", *image):
        self.send("assign", "shop", name, number, revision, epoch, desired, *image)

    def containers(self, *extra):
        return docker("ps", "-aq", "--no-trunc", "--filter", f"label=orca.cluster={self.cluster}", *extra).split()

    def inspect(self, instance_or_id):
        return json.loads(docker("inspect", instance_or_id))[0]

    def name(self, service, number=1):
        return f"orca-{self.cluster[:8]}-{self.node}.shop.{service}.{number}"


def service(name="web", command='["/bin/busybox", "sleep", "1000"]', extra=""):
    return f'[[service]]\nname = "{name}"\nimage = "{IMAGE}"\ncommand = {command}\nstop_grace = "1s"\n{extra}\n'


__all__ = ["Agent", "IMAGE", "ROOT", "docker", "service", "time", "wait_for"]
