"""`exec true`, round trip: the Engine API by hand (create, start on a raw connection, its end, the exit code), orca's WebSocket by hand, and the
two programs `docker exec` and `orcactl exec`; all on the same container, interleaved."""
import http.client
import json
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from figures import median, quantile, table  # noqa: E402
from orca import BIN, Cluster, busybox_image, docker  # noqa: E402
from websocket import WebSocket  # noqa: E402

ROUNDS = 60
SOCKET = "/run/docker.sock"
IMAGE = f"orca-test/bench-exec:run-{os.getpid()}"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("docker", timeout=30)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


class Engine:
    def __init__(self, container):
        self.container = container
        self.connection = UnixConnection()

    def call(self, method, path, body=None):
        self.connection.request(method, "/v1.41" + path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        return json.loads(self.connection.getresponse().read())

    def run(self):
        made = self.call("POST", f"/containers/{self.container}/exec", {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True})
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(SOCKET)
            body = b'{"Detach":false,"Tty":false}'
            s.sendall(b"POST /v1.41/exec/%s/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                      b"Content-Length: %d\r\n\r\n%s" % (made["Id"].encode(), len(body), body))
            while s.recv(65536):
                pass
        return self.call("GET", f"/exec/{made['Id']}/json")["ExitCode"]


def over_websocket(cluster, token):
    ws = WebSocket(cluster.address, cluster.ports["api"], "/api/v1/services/box/exec?cmd=true", token)
    code = None
    while code is None:
        opcode, payload = ws.receive()
        if opcode == 2 and payload[0] == 3:
            code = json.loads(payload[1:]).get("exit")
    ws.close()
    return code


def program(*argv, env=None):
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, check=False).returncode


def main():
    busybox_image(IMAGE, "true")
    try:
        with Cluster() as c:
            c.deploy("shop", f'[[service]]\nname = "box"\nimage = "{IMAGE}"\npull = "never"\n')
            container = c.running("shop/box")[0]["Id"]
            engine, token = Engine(container), c.token()
            ways = {
                "Engine API by hand": engine.run,
                "orca's API by hand": lambda: over_websocket(c, token),
                "docker exec": lambda: program("docker", "exec", container, "true"),
                "orcactl exec": lambda: program(str(BIN / "orcactl"), "exec", "box", "--", "true", env=c.env),
            }
            times = {name: [] for name in ways}
            for number in range(ROUNDS + 3):
                for name, way in ways.items():
                    began = time.perf_counter()
                    assert way() == 0, name
                    if number >= 3:
                        times[name].append((time.perf_counter() - began) * 1000)
    finally:
        docker("image", "rm", IMAGE, check=False)
    results = {name: {"p50_ms": median(t), "p90_ms": quantile(t, 0.9), "min_ms": min(t)} for name, t in times.items()}
    # Each round's difference: what the machine does beside it is in both.
    over_api = median([b - a for a, b in zip(times["Engine API by hand"], times["orca's API by hand"])])
    over_program = median([b - a for a, b in zip(times["docker exec"], times["orcactl exec"])])
    table(f"exec true, round trip ({ROUNDS} rounds, interleaved)", ["", "least ms", "p50 ms", "p90 ms"],
          [[name, f"{r['min_ms']:.1f}", f"{r['p50_ms']:.1f}", f"{r['p90_ms']:.1f}"] for name, r in results.items()])
    print(f"  over Docker's own, median of the rounds' differences: API {over_api:+.2f} ms, program {over_program:+.2f} ms (aim: below 2)")
    return {**results, "over_api_ms": over_api, "over_program_ms": over_program}


if __name__ == "__main__":
    main()
