"""What a proxied request costs: orca-proxy beside a bare relay that parses nothing (the floor), haproxy and nginx, one core for the proxy, the other for
origin and wrk, rounds interleaved. CPU per request is the process's own user and system time, and quoted as a ratio to the relay in the same run."""
import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from figures import cpu_seconds, median, table

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ORCA_BIN", ROOT / "build/bin")).parent
TICK = os.sysconf("SC_CLK_TCK")
SIZES = [128, 65536]
CONNECTIONS = 64
AIMS = {128: 1.08, 65536: 0.85}

HAPROXY = """global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  option http-keep-alive
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  option forwardfor
  server s 127.0.0.1:{origin}
"""

NGINX = """worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream o {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}
  }}
}}
"""

NODE = """[node]
name = "bench"
address = "127.0.0.1"
role = "worker"
state_dir = "{dir}/state"
run_dir = "{dir}/run"
key_dir = "{dir}/keys"
[cluster]
id = "0123456789abcdef"
masters = []
[ports]
http = {port}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def children(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(c) for c in f.read().split()]
    return []


def user_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[11]) / TICK


class Bench:
    def __init__(self, build):
        self.build = build
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="orca-bench-proxy-"))
        self.processes = []
        cores = sorted(os.sched_getaffinity(0))
        self.proxy_core, self.load_core = str(cores[0]), str(cores[-1])

    def start(self, core, argv, port):
        p = subprocess.Popen(["taskset", "-c", core, *map(str, argv)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(p)
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return p
            if p.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{argv[0]} does not start")
            time.sleep(0.02)

    def origin(self, size):
        port = free_port()
        self.start(self.load_core, [self.build / "tests/bench/origin", port, size], port)
        return port

    def peers(self, origin, only):
        """name → (port, pids whose time counts)"""
        found = {}

        def add(name, argv, port):
            if only and name not in only:
                return
            p = self.start(self.proxy_core, argv, port)
            found[name] = (port, p)

        port = free_port()
        add("relay", [self.build / "tests/bench/relay", port, origin], port)
        port = free_port()
        d = self.dir / f"orca-{origin}"
        for name in ("state/proxy", "run", "keys"):
            (d / name).mkdir(parents=True)
        (d / "node.toml").write_text(NODE.format(dir=d, port=port))
        subprocess.run([self.build / "tests/make-routes", "file", d / "state/proxy/routes"], check=True, text=True,
                       input=f"route bench/origin domain=127.0.0.1 to=bench/origin.1@127.0.0.1@{origin}\n")
        add("orca", [self.build / "bin/orca-proxy", "-c", d / "node.toml", "--workers", 1], port)
        if shutil.which("haproxy"):
            port = free_port()
            (d / "haproxy.cfg").write_text(HAPROXY.format(port=port, origin=origin))
            add("haproxy", ["haproxy", "-db", "-f", d / "haproxy.cfg"], port)
        if shutil.which("nginx"):
            port = free_port()
            (d / "nginx.conf").write_text(NGINX.format(port=port, origin=origin, dir=d))
            add("nginx", ["nginx", "-c", d / "nginx.conf", "-e", d / "error.log"], port)
        return found

    def load(self, port, process, seconds):
        pids = [process.pid, *children(process.pid)]
        before, user = sum(map(cpu_seconds, pids)), sum(map(user_seconds, pids))
        out = subprocess.run(["taskset", "-c", self.load_core, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"],
                             capture_output=True, text=True, check=True).stdout
        cpu, user = sum(map(cpu_seconds, pids)) - before, sum(map(user_seconds, pids)) - user
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        if "Non-2xx" in out or "Socket errors" in out:
            raise RuntimeError(out)
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
        scale = {"us": 1e-3, "ms": 1, "s": 1e3}[p99.group(2)]
        return {"rate": requests / seconds, "cpu_us": cpu / requests * 1e6, "user_us": user / requests * 1e6, "p99_ms": float(p99.group(1)) * scale}

    def close(self):
        for p in self.processes:
            p.send_signal(signal.SIGKILL if p.poll() is None else 0)
            with contextlib.suppress(ProcessLookupError):
                for child in children(p.pid):
                    os.kill(child, signal.SIGKILL)
            p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def main(build=BUILD, rounds=3, seconds=4, only=None, sizes=None):
    bench = Bench(pathlib.Path(build))
    results = {}
    try:
        for size in sizes or SIZES:
            peers = bench.peers(bench.origin(size), only)
            samples = {name: [] for name in peers}
            for name, (port, p) in peers.items():
                bench.load(port, p, 1)
            for _ in range(rounds):
                for name, (port, p) in peers.items():
                    samples[name].append(bench.load(port, p, seconds))
            rows, sized = [], {}
            for name, runs in samples.items():
                figures = {key: median([r[key] for r in runs]) for key in runs[0]}
                if "relay" in samples:  # of the same round: the floor moves with the machine
                    figures["ratio"] = median([r["cpu_us"] / floor["cpu_us"] for r, floor in zip(runs, samples["relay"])])
                sized[name] = figures
                rows.append([name, f"{figures['rate']:.0f}", f"{figures['cpu_us']:.1f}", f"{figures['user_us']:.1f}", f"{figures.get('ratio', 0):.2f}",
                             f"{figures['p99_ms']:.2f}"])
            table(f"proxy, {size} bytes, {CONNECTIONS} connections, one core (aim: {AIMS.get(size, '-')} of the relay)",
                  ["", "requests/s", "CPU µs/request", "user µs", "of relay", "p99 ms"], rows)
            results[str(size)] = sized
            for _, p in peers.values():
                p.send_signal(signal.SIGTERM)
    finally:
        bench.close()
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=BUILD)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--sizes", nargs="*", type=int)
    args = parser.parse_args()
    print(json.dumps(main(args.build, args.rounds, args.seconds, args.only, args.sizes), indent=2))
