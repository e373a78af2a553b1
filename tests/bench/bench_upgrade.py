"""An upgrade of all daemons in turn under `wrk -c64` through the proxy: requests that fail, connections that are lost, containers that change.
Each is ended as systemd ends it (SIGTERM) and started again by its supervisor; the next one follows when the cluster is healthy."""
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from figures import table  # noqa: E402
from orca import APP, DAEMONS, Cluster, wait_for  # noqa: E402

CONNECTIONS = 64


def restart(c, daemon):
    """→ seconds until another process of it runs and the cluster is healthy."""
    old, began = c.pid(daemon), time.monotonic()
    os.kill(old, signal.SIGTERM)
    wait_for(lambda: c.pid(daemon) != old, 30, message=f"{daemon} is started again")
    c.wait_healthy()
    wait_for(lambda: any(n["state"] == "ready" for n in c.api("GET", "/api/v1/nodes").json()["nodes"]), message="node ready")
    return time.monotonic() - began


def main():
    with Cluster() as c:
        c.deploy("shop", f'[[service]]\nname = "web"\nimage = "{APP}"\nport = 8080\nreplicas = 2\ndomain = "web.test"\nhealth = "/healthz"\n')
        wait_for(lambda: c.get("web.test").status == 200)
        containers = {x["Id"] for x in c.running("shop/web")}
        wrk = subprocess.Popen(["wrk", "-t1", f"-c{CONNECTIONS}", "-d12s", "--latency", "--timeout", "10s", "-H", "Host: web.test", f"http://{c.address}:{c.ports['http']}/"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(1)
        took = {}
        for daemon in DAEMONS:
            took[daemon] = restart(c, daemon)
            time.sleep(0.5)
        within = wrk.poll() is None
        out = wrk.communicate(timeout=60)[0]
        kept = containers == {x["Id"] for x in c.running("shop/web")}
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    answers = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    p99 = re.search(r"99%\s+(\S+)", out).group(1)
    lost, failed = sum(map(int, errors.groups())) if errors else 0, int(answers.group(1)) if answers else 0
    result = {"requests": requests, "failed_answers": failed, "socket_errors": lost, "p99": p99, "containers_kept": kept, "under_load_throughout": within, "restart_seconds": took}
    table(f"upgrade: all daemons restarted in turn under wrk -c{CONNECTIONS} (aim: 0 failed)", ["", "count"],
          [["requests", f"{requests:,}"], ["answers that are no success", failed], ["connections refused, reset or timed out", lost], ["p99", p99],
           ["containers", "the same" if kept else "others"], ["under load to the last restart", "yes" if within else "no"],
           *[[f"orca-{d} back after", f"{s:.2f} s"] for d, s in took.items()]])
    return result


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
