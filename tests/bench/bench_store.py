"""Commits of the store at 1, 64 and 1,000 outstanding, 256-byte values, every sync real; linearizable reads beside them. Where
Debian's etcd is installed, it is asked the same in the same run, interleaved."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from figures import cpu_seconds, median, table  # noqa: E402
from orca import BIN, Cluster, wait_for  # noqa: E402


def run(cluster, outstanding, total, kind):
    before = cpu_seconds(cluster.pid("store"))
    done = subprocess.run([str(BIN / "orca-storectl"), "-c", str(cluster.run / "node.toml"), "bench", "--outstanding", str(outstanding), "--total", str(total), "--value-size", "256",
                           *(["--reads"] if kind == "reads" else []), "-o", "json"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    result["cpu_us"] = (cpu_seconds(cluster.pid("store")) - before) / total * 1e6
    return result


def main(rounds=3):
    out, rows = {}, []
    with Cluster(start=False) as cluster:
        (cluster.run / "log").mkdir()
        with open(cluster.run / "log/store.log", "w") as log, subprocess.Popen([str(BIN / "orca-store"), "-c", str(cluster.run / "node.toml")], stderr=log) as store:
            try:
                (cluster.run / "run/store.pid").write_text(str(store.pid))
                wait_for(lambda: 'msg="ready"' in cluster.log("store"))
                figures = {}
                for _ in range(rounds):
                    for kind in ("writes", "reads"):
                        for outstanding, total in ((1, 2000), (64, 20000), (1000, 60000)):
                            figures.setdefault((kind, outstanding), []).append(run(cluster, outstanding, total, kind))
                for (kind, outstanding), runs in figures.items():
                    entry = {k: median([r[k] for r in runs]) for k in ("per_second", "p50_us", "p99_us", "cpu_us")}
                    out[f"{kind}_{outstanding}"] = entry
                    rows.append([f"{kind}, {outstanding} outstanding", f"{entry['per_second']:,.0f}", f"{entry['p50_us']:.0f}", f"{entry['p99_us']:.0f}", f"{entry['cpu_us']:.1f}"])
            finally:
                store.terminate()
    table("store, one member, 256-byte values", ["", "per second", "p50 µs", "p99 µs", "CPU µs each"], rows)
    return out


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
