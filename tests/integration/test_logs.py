"""Logs, from a container's mouth to orcactl's: nothing missing, nothing twice, whatever happens on the way."""
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from orca import APP, BIN, Cluster, docker, wait_for

SERVICE = """
[[service]]
name = "{name}"
image = "{image}"
port = 8080
replicas = {replicas}
[service.env]
{env}
"""


def service(name="web", replicas=1, **env):
    return SERVICE.format(name=name, image=APP, replicas=replicas, env="\n".join(f'{k} = "{v}"' for k, v in env.items()))


class Follower:
    """orcactl logs -f, its lines taken apart as the test's service writes them: RUN NUMBER xxx."""

    def __init__(self, cluster, *args, pause=None):
        self.process = subprocess.Popen([str(BIN / "orcactl"), "logs", *args, "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cluster.env)
        self.runs, self.wrong, self.ended, self.other, self.lines = {}, [], [], [], 0
        self.pause = pause
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        last = time.monotonic()
        for line in self.process.stdout:
            self.lines += 1
            words = line.split()
            if len(words) == 3 and len(words[1]) == 8:
                run, number = int(words[0]), int(words[1])
                if number != self.runs.get(run, 0):
                    self.wrong.append((run, self.runs.get(run, 0), number))
                self.runs[run] = number + 1
            elif words[1:] == [b"end"]:
                self.ended.append(int(words[0]))
            else:
                self.other.append(line)
            if self.pause and time.monotonic() - last > self.pause:
                time.sleep(self.pause)
                last = time.monotonic()

    def wait_ended(self, count, timeout=60):
        wait_for(lambda: len(self.ended) >= count, timeout, message=f"{count} runs ended, {self.runs} {self.wrong[:3]}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)
        self.thread.join(10)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self.thread.join(10)


def memory(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("RssAnon")).split()[1]) // 1024


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_history_tail_since_and_instances_in_order(cluster):
    cluster.deploy("shop", service(replicas=3, LOG_LINES=200, LOG_ERR=7, LOG_KBPS=40))
    wait_for(lambda: cluster.ctl("logs", "web").stdout.count(" end\n") == 3)
    lines = [json.loads(line) for line in cluster.ctl("logs", "web", "-o", "json").stdout.splitlines()]
    assert len(lines) == 3 * 202
    assert {line["stream"] for line in lines} == {"stdout", "stderr"}
    for instance in ("shop/web.1", "shop/web.2", "shop/web.3"):
        own = [line for line in lines if line["instance"] == instance]
        for stream in ("stdout", "stderr"):
            numbers = [int(line["text"].split()[1]) for line in own if line["stream"] == stream and " x" in line["text"]]
            assert numbers == sorted(numbers)
        assert len(own) == 202
    # In the order of time but for the two streams of one instance, whose order is the log's own.
    newest = 0
    for line in lines:
        seconds = float(line["time"][17:29]) + 60 * int(line["time"][14:16])
        assert seconds > newest - 0.02
        newest = max(newest, seconds)
    # --tail is of each instance; --instance takes a number or a name.
    assert len(cluster.ctl("logs", "shop/web", "--tail", "4").stdout.splitlines()) == 12
    assert cluster.ctl("logs", "web", "--instance", "2").stdout.count("\n") == 202
    assert cluster.ctl("logs", "web", "--instance", "web.2", "--tail", "0").stdout == ""
    answer = cluster.api("GET", "/api/v1/services/web/logs?instance=shop/web.3&timestamps=true&tail=1")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain") and answer.text.startswith("20") and answer.text.count("\n") == 1
    middle = [line for line in lines if line["instance"] == "shop/web.1"][100]["time"]
    since = cluster.ctl("logs", "web", "--instance", "1", "--since", middle, "--timestamps").stdout.splitlines()
    assert 90 < len(since) < 120 and min(since)[:23] >= middle[:23]
    assert cluster.ctl("logs", "web", "--since", "1h").stdout.count("\n") == 606
    for query, status in (("tail=x", 400), ("since=never", 400), ("instance=9", 404), ("instance=x", 400), ("resume=1:2", 400)):
        assert cluster.api("GET", f"/api/v1/services/web/logs?{query}").status == status
    assert cluster.api("GET", "/api/v1/services/nothing/logs").status == 404
    assert cluster.ctl("logs", "nothing", check=False).returncode == 1


def test_follow_goes_on_over_restarts_of_container_agent_and_apiserver(cluster):
    cluster.deploy("shop", service(LOG_LINES=3000, LOG_LEN=200, LOG_KBPS=200, LOG_ERR=0))
    with Follower(cluster, "web") as follower:
        wait_for(lambda: follower.lines > 200)
        cluster.kill("agent")
        wait_for(lambda: sum(follower.runs.values()) > 1000)
        cluster.kill("apiserver")
        follower.wait_ended(1)
        docker("kill", "-s", "KILL", cluster.running("shop/web")[0]["Id"])
        wait_for(lambda: len(follower.runs) == 2)
        docker("kill", "-s", "KILL", cluster.running("shop/web")[0]["Id"])  # in the middle of a line's being read
        wait_for(lambda: len(follower.runs) == 3)
        cluster.kill("apiserver", signal.SIGTERM)
        follower.wait_ended(2)
        assert follower.stop() == 0
        assert not follower.wrong
        runs = sorted(follower.runs)
        assert [follower.runs[runs[0]], follower.runs[runs[2]]] == [3000, 3000]


def test_instances_that_come_join_and_those_that_go_leave_with_their_last_words(cluster):
    cluster.deploy("shop", service(LOG_LINES=20))
    with Follower(cluster, "web", "--tail", "0") as follower:
        time.sleep(0.5)
        assert follower.lines == 0
        cluster.ctl("scale", "web", "3")
        follower.wait_ended(2)
        cluster.ctl("restart", "web")
        follower.wait_ended(5)
        assert follower.stop() == 0
        assert not follower.wrong and set(follower.runs.values()) == {20}
    # What has ended is read to its end.
    cluster.deploy("back", service("brief", LOG_LINES=5000, EXIT_AFTER_MS=1000, EXIT_CODE=3).replace("port = 8080", 'restart = "never"'), "--no-wait")
    wait_for(lambda: cluster.instances("brief")[0]["state"] == "exited")
    with Follower(cluster, "brief") as follower:
        follower.wait_ended(1)
        assert not follower.wrong and list(follower.runs.values()) == [5000]
        status = cluster.api("GET", "/api/v1/services/brief/explain").json()["instances"][0]
        assert status["last_end"]["by"] == "exit code 3" and len(status["last_end"]["lines"]) == 10 and status["last_end"]["lines"][-1].endswith(" end")


@pytest.fixture
def rotating():
    with Cluster(start=False) as c:
        (c.infra / "cluster.toml").write_text('[cluster]\nname = "test"\n[logs]\nmax_size = "12Mi"\nmax_files = 20\n')
        c.start()
        yield c


def test_a_reader_that_pauses_and_rotation_lose_and_double_nothing(rotating):
    """10 MB/s over a dozen rotations, into a reader that stands still for seconds."""
    cluster, lines = rotating, 12 * 10_000_000 // 1000
    cluster.deploy("shop", service(LOG_LINES=lines, LOG_LEN=999, LOG_KBPS=10000))
    assert cluster.running("shop/web")[0]["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {"max-size": str(12 << 20), "max-file": "20", "compress": "false"}}
    agent, apiserver = cluster.pid("agent"), cluster.pid("apiserver")
    before, most = memory(agent), [0, 0]
    with Follower(cluster, "web", pause=3) as follower:
        while not follower.ended and follower.process.poll() is None:
            most = [max(most[0], memory(agent)), max(most[1], memory(apiserver))]
            time.sleep(0.2)
        assert follower.stop() == 0
        assert not follower.wrong and list(follower.runs.values()) == [lines]
    assert most[0] < before + 12 and most[1] < 40, (before, most)


def test_cut_readers_leave_nothing_open(cluster):
    cluster.deploy("shop", service(LOG_LINES=100000, LOG_LEN=1000))
    agent, apiserver = cluster.pid("agent"), cluster.pid("apiserver")
    time.sleep(1)
    before = descriptors(agent), descriptors(apiserver)
    readers = [subprocess.Popen([str(BIN / "orcactl"), "logs", "web", "-f"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=cluster.env) for _ in range(12)]
    wait_for(lambda: descriptors(agent) >= before[0] + 12)
    for reader in readers[:6]:
        reader.kill()
    for reader in readers[6:]:
        reader.stdout.close()  # a full pipe whose other end goes away: quietly over
    assert [reader.wait(10) for reader in readers[6:]] == [0] * 6
    for reader in readers[:6]:
        reader.wait(10)
        reader.stdout.close()
    wait_for(lambda: descriptors(agent) <= before[0] + 1 and descriptors(apiserver) <= before[1] + 1, message=f"{before} {descriptors(agent)} {descriptors(apiserver)}")


def test_an_agent_that_is_away_is_said_and_escapes_stay_out_of_terminals(cluster):
    cluster.deploy("shop", service(LOG_LINES=3, TEXT="\\u001b[31mred"))
    os.kill(cluster.pid("agent"), signal.SIGSTOP)
    try:
        wait_for(lambda: cluster.api("GET", "/api/v1/nodes").json()["nodes"][0]["state"] != "ready")
        answer = cluster.api("GET", "/api/v1/services/web/logs")
        assert answer.status == 503 and "agent of node n1 is not connected" in answer.text
        with Follower(cluster, "web") as follower:
            time.sleep(1)
            os.kill(cluster.pid("agent"), signal.SIGCONT)
            follower.wait_ended(1)
            assert follower.stop() == 0
            assert b"not connected" in follower.process.stderr.read()
    finally:
        os.kill(cluster.pid("agent"), signal.SIGCONT)
    raw = cluster.ctl("logs", "web").stdout
    assert "\x1b[31mred" in raw
    shown = subprocess.run(["script", "-qec", f"{BIN}/orcactl logs web", "/dev/null"], env={**cluster.env, "TERM": "xterm"}, capture_output=True, text=True, check=True).stdout
    assert "red starting" in shown and "\x1b[31m" not in shown and "web.1 |" in shown
