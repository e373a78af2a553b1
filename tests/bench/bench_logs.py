"""Logs: from dockerd through agent and apiserver, beside `docker logs` of the same container; interleaved, medians of three."""
import http.client
import subprocess
import time

from figures import cpu_seconds, median, table
from orca import APP, Cluster, docker, wait_for

MB = 200
ROUNDS = 3
SERVICE = """
[[service]]
name = "l{length}"
image = "{image}"
port = 8080
[service.env]
LOG_LINES = "{lines}"
LOG_LEN = "{chars}"
"""


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        fields = dict(line.split(":", 1) for line in f)
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))


def through_api(cluster, name):
    connection = http.client.HTTPConnection(cluster.address, cluster.ports["api"], timeout=120)
    connection.request("GET", f"/api/v1/services/{name}/logs", headers={"Authorization": f"Bearer {cluster.token()}"})
    reply = connection.getresponse()
    got, most = 0, 0.0
    buffer = bytearray(1 << 20)
    while n := reply.readinto(buffer):
        got += n
        most = max(most, resident(cluster.pid("agent"))[0])
    connection.close()
    return got, most


def docker_logs(container):
    reader = subprocess.Popen(["docker", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    got, buffer = 0, bytearray(1 << 20)
    while n := reader.stdout.readinto(buffer):
        got += n
    reader.stdout.close()
    reader.wait()
    return got


def main():
    results, rows = {}, []
    with Cluster(start=False) as c:
        (c.infra / "cluster.toml").write_text('[cluster]\nname = "bench"\n[logs]\nmax_size = "1Gi"\nmax_files = 2\n')
        c.start()
        idle = resident(c.pid("agent"))
        for length in (100, 1000, 15000):
            lines = MB * 1_000_000 // length
            c.deploy("bench", SERVICE.format(length=length, image=APP, lines=lines, chars=length - 1))
            wait_for(lambda: docker("logs", "--tail", "1", c.running(f"bench/l{length}")[0]["Id"]).endswith(" end"), 120)
            container = c.running(f"bench/l{length}")[0]["Id"]
            ours, theirs, cpu, api_cpu, most = [], [], [], [], 0.0
            for _ in range(ROUNDS):
                began, agent, apiserver = time.monotonic(), cpu_seconds(c.pid("agent")), cpu_seconds(c.pid("apiserver"))
                got, resident_most = through_api(c, f"l{length}")
                ours.append(got / 1e6 / (time.monotonic() - began))
                cpu.append((cpu_seconds(c.pid("agent")) - agent) * 1e3 / (got / 1e6))
                api_cpu.append((cpu_seconds(c.pid("apiserver")) - apiserver) * 1e3 / (got / 1e6))
                most = max(most, resident_most)
                assert got >= MB * 1_000_000 * 0.99, got
                began = time.monotonic()
                got = docker_logs(container)
                theirs.append(got / 1e6 / (time.monotonic() - began))
            results[length] = {"mb_per_s": median(ours), "docker_logs_mb_per_s": median(theirs), "agent_cpu_ms_per_mb": median(cpu),
                               "apiserver_cpu_ms_per_mb": median(api_cpu), "agent_rss_mb": most, "agent_rss_idle_mb": idle[0], "agent_anon_mb": resident(c.pid("agent"))[1]}
            rows.append([f"lines of {length} bytes", f"{median(ours):.0f}", f"{median(theirs):.0f}", f"{median(cpu):.1f}", f"{median(api_cpu):.1f}",
                         f"{idle[0]:.1f} → {most:.1f} ({resident(c.pid('agent'))[1]:.1f} own)"])
    table(f"Logs: {MB} MB of history over REST, as text", ["", "MB/s", "docker logs", "agent ms/MB", "apiserver ms/MB", "agent's memory, MB"], rows)
    return results
