"""A cluster of one node for a test: the real daemons, real Docker, real sockets, in a folder and on a loopback address of its own."""
import contextlib
import http.client
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ORCA_BIN", ROOT / "build/bin"))
DAEMONS = ["store", "apiserver", "scheduler", "agent", "proxy", "keeper"]
APP = os.environ.get("ORCA_TEST_IMAGE", "orca-test/app:1")
_numbers = itertools.count(1)


def wait_for(what, timeout=20.0, every=0.02, message=None):
    """Calls what() until it returns something true, which is returned; AssertionError when the time is over."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            last = what()
            if last:
                return last
        except (OSError, http.client.HTTPException, KeyError, IndexError, json.JSONDecodeError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{message or 'condition'} not met in {timeout} s; last: {last!r}")
        time.sleep(every)


def docker(*args, check=True):
    done = subprocess.run(["docker", *args], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout.strip()


def busybox_image(tag, *names):
    """An image of the machine's own busybox, and of links to it by these names; its command sleeps."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as t:
        t.add("/bin/busybox", "bin/busybox")
        for name in names:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            t.addfile(link)
    subprocess.run(["docker", "import", "--change", 'CMD ["/bin/busybox","sleep","1000000"]', "-", tag], input=tar.getvalue(), check=True, stdout=subprocess.DEVNULL)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    def json(self):
        return json.loads(self.body)


class Cluster:
    """with Cluster() as c: c.deploy('shop', '[[service]] …'); c.get('shop.test', '/')"""

    def __init__(self, start=True, address=None, docker_socket=None):
        # An address of its own, so that default ports never clash with those of a test beside it.
        slot = os.getpid() % 60000 + 1
        number = next(_numbers)
        self.address = address or f"127.{100 + number % 100}.{slot >> 8}.{slot & 255 or 1}"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="orca-test-"))
        self.infra = self.dir / "infra"
        self.env = {**os.environ, "ORCA_HOME": str(self.dir / "home"), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        self.env.pop("ORCA_CONTEXT", None)
        self.env.pop("ORCA_DIR", None)
        self.supervisor = None
        self.infra.mkdir()
        (self.infra / "cluster.toml").write_text('[cluster]\nname = "test"\n')
        extra = ["--docker", docker_socket] if docker_socket else []
        self.ctl("init", "--root", str(self.dir / "node"), "--name", "n1", "--address", self.address, "--http-port", "8080", "--https-port", "8443", *extra)
        self.run = self.dir / "node"
        text = (self.run / "node.toml").read_text()
        self.id = text.split('id = "')[1].split('"')[0]
        self.ports = {}
        for line in text.split("[ports]")[1].splitlines():
            if "=" in line:
                name, port = line.split("=")
                self.ports[name.strip()] = int(port)
        if start:
            try:
                self.start()
            except BaseException:
                self.show_logs()
                self.close()
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            self.show_logs()
        self.close()

    # ---- processes

    def start(self):
        self.supervisor = subprocess.Popen([str(ROOT / "deploy/local/supervise"), str(BIN), str(self.run)], start_new_session=True, env=self.env,
                                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_healthy()
        wait_for(lambda: any(n["state"] == "ready" for n in self.api("GET", "/api/v1/nodes").json()["nodes"]), message="node ready")

    def wait_healthy(self, timeout=20):
        wait_for(lambda: self.api("GET", "/api/v1/health", token=None).status == 200, timeout, message="healthy")

    def stop(self):
        if self.supervisor:
            self.supervisor.terminate()
            try:
                self.supervisor.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.supervisor.pid, signal.SIGKILL)
                self.supervisor.wait(5)
                raise AssertionError("the daemons did not end on SIGTERM") from None
            self.supervisor = None

    def pid(self, daemon):
        return int((self.run / "run" / f"{daemon}.pid").read_text())

    def kill(self, daemon, signo=signal.SIGKILL):
        pid = self.pid(daemon)
        os.kill(pid, signo)
        return pid

    def log(self, daemon):
        path = self.run / "log" / f"{daemon}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self):
        return "\n".join(f"--- {daemon}\n" + "\n".join(self.log(daemon).splitlines()[-40:]) for daemon in [*DAEMONS, "supervise"])

    def show_logs(self):
        print(self.logs())

    def close(self):
        try:
            self.stop()
        finally:
            if self.supervisor is None or self.supervisor.poll() is not None:
                self.remove_docker()
            shutil.rmtree(self.dir, ignore_errors=True)

    def remove_docker(self):
        label = f"label=orca.cluster={self.id}"
        for listing, remove in ((["ps", "-aq"], ["rm", "-fv"]), (["network", "ls", "-q"], ["network", "rm"]), (["volume", "ls", "-q"], ["volume", "rm", "-f"])):
            found = docker(*listing, "--filter", label, check=False).split()
            if found:
                docker(*remove, *found, check=False)
        for left in pathlib.Path("/dev/shm").glob(f"orca-{self.id[:8]}-*"):  # files of secrets, of containers that no agent has seen go
            shutil.rmtree(left, ignore_errors=True)

    # ---- people

    def ctl(self, *args, check=True, cwd=None, timeout=60):
        done = subprocess.run([str(BIN / "orcactl"), *args], capture_output=True, text=True, env=self.env, cwd=cwd or self.dir, timeout=timeout, check=False)
        if check and done.returncode:
            raise AssertionError(f"orcactl {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def write(self, project, text):
        folder = self.infra / "services" / project
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "service.toml").write_text(text)

    def deploy(self, project, text, *args, check=True, timeout=90):
        self.write(project, text)
        return self.ctl("-C", str(self.infra), "deploy", *args, check=check, timeout=timeout)

    def token(self):
        return (self.dir / "home/tokens/default").read_text().strip()

    def api(self, method, path, body=None, token="", timeout=10):
        connection = http.client.HTTPConnection(self.address, self.ports["api"], timeout=timeout)
        headers = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token()}"
        data = None
        if body is not None:
            data = body if isinstance(body, (bytes, str)) else json.dumps(body)
            headers["Content-Type"] = "application/json"
        with contextlib.closing(connection):
            connection.request(method, path, body=data, headers=headers)
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())

    def get(self, host, path="/", timeout=10, headers=None):
        """Through the proxy."""
        connection = http.client.HTTPConnection(self.address, self.ports["http"], timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host, **(headers or {})})
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())

    def service(self, name):
        return self.api("GET", f"/api/v1/services/{name}").json()

    def instances(self, name):
        return self.service(name)["instances"]

    # ---- Docker

    def containers(self, service=None, everything=True):
        """docker inspect of this cluster's containers, of one service (PROJECT/NAME) or all."""
        filters = ["--filter", f"label=orca.cluster={self.id}"]
        if service:
            project, name = service.split("/")
            filters += ["--filter", f"label=orca.project={project}", "--filter", f"label=orca.service={name}"]
        ids = docker("ps", "-q", *(["-a"] if everything else []), *filters).split()
        return json.loads(docker("inspect", *ids, check=False) or "[]") if ids else []

    def running(self, service):
        return [c for c in self.containers(service) if c["State"]["Running"]]


class Loop:
    """A client that requests in a loop on a thread and keeps count: `with Loop(c, 'hello.test') as loop: …`, then loop.failed, loop.ok."""

    def __init__(self, cluster, host, path="/", pause=0.002):
        import threading
        self.cluster, self.host, self.path, self.pause = cluster, host, path, pause
        self.ok, self.failed, self.texts = 0, [], set()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._work)

    def _work(self):
        while not self.ending.is_set():
            began = time.monotonic()
            try:
                answer = self.cluster.get(self.host, self.path, timeout=5)
                if answer.status == 200:
                    self.ok += 1
                    self.texts.add(answer.text.strip())
                else:
                    self.failed.append((began, answer.status, answer.text[:200]))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append((began, repr(error), ""))
            time.sleep(self.pause)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def outage(self):
        """Seconds between the first and the last failure, 0.0 when none."""
        return self.failed[-1][0] - self.failed[0][0] if self.failed else 0.0
