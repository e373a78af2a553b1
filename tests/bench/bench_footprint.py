"""What the daemons weigh: resident memory (PSS), idle CPU, start-up time, stripped size."""
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from figures import median, pss_bytes, run_seconds, table  # noqa: E402
from orca import APP, BIN, DAEMONS, ROOT, Cluster, wait_for  # noqa: E402

IDLE_SECONDS = 20


def startup_ms(cluster, daemon):
    """exec → "ready", for a daemon started by hand while the supervised one is stopped for it: (on the clock, of it on a core)."""
    env = dict(os.environ)
    times, on_core = [], []
    for _ in range(9):
        began = time.monotonic()
        with subprocess.Popen([str(BIN / f"orca-{daemon}"), "-c", str(cluster.run / "node.toml")], stderr=subprocess.PIPE, env=env) as p:
            for line in p.stderr:
                if b'msg="ready"' in line:
                    times.append((time.monotonic() - began) * 1e3)
                    on_core.append(run_seconds(p.pid) * 1e3)
                    break
            p.terminate()
            p.stderr.read()
    return median(times), median(on_core)


def stripped_size(program):
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["strip", "-o", out.name, str(BIN / program)], check=True)
        return os.path.getsize(out.name)


def main():
    sizes = {p.name: stripped_size(p.name) for p in sorted(BIN.iterdir())}
    with Cluster() as cluster:
        cluster.deploy("bench", f'[[service]]\nname = "b"\nimage = "{APP}"\nport = 8080\ndomain = "b.test"\nhealth = "/healthz"\n[service.deploy]\nmin_ready = "100ms"\n')
        time.sleep(3)
        before = {d: run_seconds(cluster.pid(d)) for d in DAEMONS}
        time.sleep(IDLE_SECONDS)
        idle = {d: (run_seconds(cluster.pid(d)) - before[d]) / IDLE_SECONDS * 100 for d in DAEMONS}
        pss = {d: pss_bytes(cluster.pid(d)) for d in DAEMONS}
        cluster.stop()
        began = time.monotonic()
        cluster.supervisor = subprocess.Popen([str(ROOT / "deploy/local/supervise"), str(BIN), str(cluster.run)], start_new_session=True, env=cluster.env)
        wait_for(lambda: cluster.get("b.test").status == 200 and cluster.api("GET", "/api/v1/health", token=None).status == 200, every=0.002)
        node_ms = (time.monotonic() - began) * 1e3
        cluster.stop()
        start, start_cpu = {}, {}
        # Each daemon alone: its "ready" doesn't wait for the others.
        for d in DAEMONS:
            start[d], start_cpu[d] = startup_ms(cluster, d)
    result = {"pss_bytes": pss, "idle_percent": idle, "start_ms": start, "start_cpu_ms": start_cpu, "node_start_ms": node_ms, "stripped_bytes": sizes}
    rows = [[f"orca-{d}", f"{pss[d] / 1e6:.1f}", f"{idle[d]:.2f}", f"{start[d]:.1f}", f"{start_cpu[d]:.1f}", f"{sizes['orca-' + d] / 1e3:.0f}"] for d in DAEMONS]
    rows += [[p, "", "", "", "", f"{sizes[p] / 1e3:.0f}"] for p in sizes if p[5:] not in DAEMONS]
    rows.append(["together", f"{sum(pss.values()) / 1e6:.1f}", f"{sum(idle.values()):.2f}", f"{node_ms:.0f} (node)", f"{sum(start_cpu.values()):.1f}", f"{sum(sizes.values()) / 1e3:.0f}"])
    table("footprint", ["", "PSS MB", "idle CPU %", "start ms", "of it CPU", "stripped kB"], rows)
    return result


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
