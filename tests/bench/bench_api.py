"""Reads of the REST API with 200 services and 1,000 instances in the cache (records put straight into a real store; no scheduler, no containers):
`status`, a small read, a plan and a deploy of 200 unchanged services. CPU is the apiserver's, time on a core per request."""
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from figures import median, quantile, run_seconds, table  # noqa: E402
from orca import BIN, Cluster, wait_for  # noqa: E402

SERVICES, REPLICAS = 200, 5


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def message(fields):
    """{field number: int or text} as protobuf."""
    out = b""
    for number, value in fields.items():
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode()
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


class Half(Cluster):
    """Only store and apiserver run."""

    def __init__(self):
        super().__init__(start=False)
        self.processes = {}
        for name in ("store", "apiserver"):
            log = (self.dir / f"{name}.log").open("w")
            self.processes[name] = subprocess.Popen([str(BIN / f"orca-{name}"), "-c", str(self.run / "node.toml")], env=self.env, stdout=log, stderr=log)
        self.wait_healthy()

    def put(self, key, value):
        subprocess.run([str(BIN / "orca-storectl"), "-c", str(self.run / "node.toml"), "put", key, "-"], input=value, check=True, stdout=subprocess.DEVNULL)

    def close(self):
        for process in self.processes.values():
            process.terminate()
            process.wait(10)
        super().close()


def specs():
    return [{"name": f"s{n}", "project": "bench", "image": "registry.test/app:1", "port": 8080, "replicas": REPLICAS, "domains": [f"s{n}.test"],
             "env": {f"KEY_{k}": "a value of some length" for k in range(10)}} for n in range(SERVICES)]


def fill(c):
    body = {"services": specs()}
    assert c.api("POST", "/api/v1/deploy", body).status == 200
    now = int(time.time() * 1000)
    for n in range(SERVICES):
        name = f"s{n}"
        for k in range(1, REPLICAS + 1):
            c.put(f"/instances/bench/{name}/{k:010}", message({1: "bench", 2: name, 3: k, 4: 1, 6: "n1", 7: 1, 8: 0, 11: now, 12: now}))
            c.put(f"/instance-status/bench/{name}/{k:010}",
                  message({1: "bench", 2: name, 3: k, 4: 1, 5: "n1", 6: 4, 7: 1, 8: 1, 9: "c" * 64, 10: f"172.20.{n}.{k}", 15: now, 16: now, 17: now}))
        c.put(f"/rollouts/bench/{name}", message({1: "bench", 2: name, 3: 0, 4: 1, 6: 1, 11: REPLICAS + 1}))
    wait_for(lambda: sum(s["ready_replicas"] for s in c.api("GET", "/api/v1/status").json()["services"]) == SERVICES * REPLICAS)
    return body


def one_by_one(c, method, path, rounds, body=None):
    connection = http.client.HTTPConnection(c.address, c.ports["api"], timeout=30)
    data = json.dumps(body) if body else None
    headers = {"Authorization": f"Bearer {c.token()}", "Content-Type": "application/json"}
    times, size = [], 0
    pid = c.processes["apiserver"].pid
    before = run_seconds(pid)
    for _ in range(rounds):
        began = time.perf_counter()
        connection.request(method, path, data, headers)
        answer = connection.getresponse().read()
        times.append((time.perf_counter() - began) * 1e3)
        size = len(answer)
    cpu = (run_seconds(pid) - before) / rounds * 1e3
    connection.close()
    return times, cpu, size


def throughput(c, path, connections=16):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.headers["Authorization"] = "Bearer {c.token()}"\n')
        script.flush()
        pid = c.processes["apiserver"].pid
        before = run_seconds(pid)
        out = subprocess.run(["wrk", "-t1", f"-c{connections}", "-d4s", "--latency", "-s", script.name, f"http://{c.address}:{c.ports['api']}{path}"],
                             capture_output=True, text=True, check=True).stdout
        cpu = run_seconds(pid) - before
    assert "Non-2xx" not in out, out
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), cpu / requests * 1e6


def main():
    results, rows = {}, []
    with Half() as c:
        body = fill(c)
        for name, method, path, rounds, sent in (("status, 1,000 instances", "GET", "/api/v1/status", 400, None), ("top, 1,000 instances", "GET", "/api/v1/top", 100, None),
                                                 ("explain", "GET", "/api/v1/services/s7/explain", 400, None),
                                                 ("deploy, 200 unchanged", "POST", "/api/v1/deploy", 40, body)):
            times, cpu, size = one_by_one(c, method, path, rounds, sent)
            results[name] = {"p50_ms": median(times), "p99_ms": quantile(times, 0.99), "cpu_ms": cpu, "bytes": size}
            rows.append((name, f"{median(times):.2f}", f"{quantile(times, 0.99):.2f}", f"{cpu:.2f}", f"{size / 1024:.0f}", ""))
        for name, path in (("health", "/api/v1/health"), ("nodes", "/api/v1/nodes"), ("one service", "/api/v1/services/s7")):
            rate, cpu = throughput(c, path)
            results[name] = {"per_second": rate, "cpu_us": cpu}
            rows.append((f"{name}, 16 connections", "", "", f"{cpu / 1e3:.3f}", "", f"{rate:,.0f}"))
    table("REST API, 200 services, 1,000 instances (aims: status p99 < 5 ms, 20,000/s of small reads, deploy of 200 unchanged < 100 ms)",
          ("", "p50 ms", "p99 ms", "CPU ms", "KiB", "per s"), rows)
    return results


if __name__ == "__main__":
    main()
