"""A job is found by the verbs that people know from services: logs, exec, explain, inspect, history, events, status, metrics."""
import json
import re
import signal
import subprocess
import time

import pytest
from orca import BIN, Cluster, wait_for
from test_jobs import detail, ended, image, job, runs  # noqa: F401


@pytest.fixture(scope="module")
def cluster(image):  # noqa: F811, ARG001
    with Cluster() as c:
        yield c


def forget(cluster, project, name):
    (cluster.infra / "services" / project / "service.toml").unlink()
    cluster.ctl("job", "rm", f"{project}/{name}", "--yes")


def test_only_jobs_are_deployed(cluster):
    assert "nothing is deployed yet" in cluster.ctl("status").stdout
    cluster.deploy("shop", job("hello", "echo one; echo two; echo three", 'schedule = "0 0 1 1 *"'))
    status = cluster.ctl("status").stdout
    assert status.splitlines()[0] == "All is well: 1 job" and "shop/hello" in status and "0 0 1 1 *" in status
    explained = cluster.ctl("explain", "hello").stdout
    assert "job shop/hello: waiting" in explained and re.search(r"next run in \w+ \(\d{4}-01-01T00:00:00Z\)", explained) and "It has not run yet" in explained
    assert cluster.ctl("logs", "hello").stdout == ""


def test_the_log_of_a_run_that_has_ended(cluster):
    cluster.ctl("job", "run", "hello")
    wait_for(lambda: "three" in runs(cluster, "hello")[-1]["log"], message="the log's end")
    wait_for(lambda: not cluster.containers("shop/hello"), message="its container is removed")
    wait_for(lambda: not detail(cluster, "hello")["instances"], message="its record is gone")
    logs = cluster.ctl("logs", "hello")
    assert logs.stdout == "one\ntwo\nthree\n"
    assert "run 1 has ended (succeeded), its container is gone" in logs.stderr
    assert cluster.ctl("logs", "hello", "--tail", "1").stdout == "three\n"
    number = runs(cluster, "hello")[-1]["instance"].rsplit(".", 1)[1]
    assert cluster.ctl("logs", "shop/hello", "--instance", number).stdout == "one\ntwo\nthree\n"
    assert cluster.ctl("logs", "hello", "--instance", "99", check=False).returncode != 0
    answer = cluster.ctl("exec", "hello", "--", "/bin/busybox", "true", check=False)
    assert answer.returncode != 0 and "no run of job shop/hello is running now" in answer.stderr


def test_who_interrupts_is_told_that_it_goes_on(cluster):
    cluster.deploy("busy", job("slow", "sleep 1000"))
    waiting = subprocess.Popen([str(BIN / "orcactl"), "job", "run", "slow"], env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "busy/slow run" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=10)
    assert waiting.returncode == -signal.SIGINT and "the run goes on: `orcactl job stop busy/slow` ends it" in said
    forget(cluster, "busy", "slow")
    wait_for(lambda: not cluster.containers("busy/slow"), message="it is gone")


def test_a_run_that_goes_on(cluster):
    cluster.deploy("busy", job("long", "echo begun; while true; do sleep 1; done"))
    wait_for(lambda: runs(cluster, "long", "busy") and runs(cluster, "long", "busy")[-1]["state"] == "running", message="runs")
    wait_for(lambda: cluster.ctl("logs", "long").stdout == "begun\n", message="its log")
    done = cluster.ctl("exec", "busy/long", "--", "/bin/busybox", "sh", "-c", "echo inside; exit 7", check=False)
    assert done.returncode == 7 and done.stdout == "inside\n"
    explained = cluster.ctl("explain", "long").stdout
    assert "job busy/long: running" in explained and "busy/long.1: running on n1" in explained and "chosen" in explained
    inspected = cluster.ctl("inspect", "long").stdout
    assert "Job          busy/long" in inspected and '"image"' in inspected
    forget(cluster, "busy", "long")
    wait_for(lambda: not cluster.containers("busy/long"), message="it is gone")


def test_why_a_run_waits_and_what_failed(cluster):
    cluster.deploy("wait", job("huge", "true", 'resources = { memory = "900Gi" }'))
    text = wait_for(lambda: (t := cluster.ctl("explain", "huge").stdout) and "does not fit" in t and t, message="verdicts")
    assert "job wait/huge: pending" in text and "memory" in text
    first = cluster.ctl("status").stdout.splitlines()[0]
    assert first.startswith("Not well: job wait/huge is pending")
    forget(cluster, "wait", "huge")
    cluster.deploy("fails", job("bad", "echo it went wrong; exit 9"))
    ended_runs = wait_for(lambda: [r for r in runs(cluster, "bad", "fails") if r["state"] == "failed" and r["log"]], message="failed")
    assert ended_runs[0]["exit_code"] == 9
    first = cluster.ctl("status").stdout.splitlines()[0]
    assert first == "Not well: the last run of job fails/bad has failed: exit code 9", first
    text = cluster.ctl("explain", "bad").stdout
    assert "run 1: failed on n1" in text and "exit code 9" in text and "| it went wrong" in text
    history = cluster.ctl("history", "bad", check=False)
    assert history.returncode != 0 and "orcactl job history fails/bad" in history.stderr
    assert "service or job not found" in cluster.ctl("explain", "nothing", check=False).stderr
    kinds = [json.loads(line)["kind"] for line in cluster.ctl("events", "--service", "fails/bad", "-o", "json").stdout.splitlines()]
    assert "job.failed" in kinds and "job.started" in kinds, kinds
    metrics = cluster.api("GET", "/metrics").text
    assert 'orca_job_runs_total{project="fails",job="bad",state="failed"} 1' in metrics
    assert 'orca_job_runs_total{project="shop",job="hello",state="succeeded"} 1' in metrics
    line = next(x for x in metrics.splitlines() if x.startswith('orca_job_next_tick_timestamp_seconds{project="shop",job="hello"}'))
    assert float(line.split()[-1]) > time.time()
