"""`orcactl top`: what services use and answer, faster while somebody looks, and back again."""
import json
import os
import pty
import subprocess
import termios
import time

from orca import APP, BIN, Loop, wait_for

SPEC = f"""
[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
replicas = 2
pull = "never"
[service.resources]
memory = "64Mi"
[service.deploy]
min_ready = "0s"
"""


def top(c):
    return c.api("GET", "/api/v1/top").json()


def web(c):
    return next(s for s in top(c)["services"] if s["service"] == "shop/web")


def test_requests_latency_and_network_are_seen(cluster):
    cluster.deploy("shop", SPEC)
    with Loop(cluster, "web.test", pause=0.01):
        seen = wait_for(lambda: (s := web(cluster)) and s["requests_rate"] and s["p50_ms"] and s["net_rx_rate"] and s, 20, 0.5, "rates")
        assert 5 < seen["requests_rate"] < 200 and seen["errors_rate"] == 0
        assert 0 < seen["p50_ms"] <= seen["p99_ms"] < 2000
        assert seen["net_rx_rate"] > 200 and seen["net_tx_rate"] > 200
        assert seen["memory"] > 0 and seen["memory_limit"] == 128 << 20
        assert [i["id"] for i in seen["instances"]] == ["shop/web.1", "shop/web.2"]
        assert all(i["memory_limit"] == 64 << 20 and i["pids"] >= 1 for i in seen["instances"])
        text = cluster.ctl("top").stdout
        assert "shop/web" in text and "REQ/S" in text and "\033" not in text
        assert json.loads(cluster.ctl("top", "-o", "json").stdout)["services"][0]["service"] == "shop/web"
    # Nothing comes any more: the rate says so.
    wait_for(lambda: web(cluster)["requests_rate"] == 0, 20, 0.5, "no requests")


def test_nobody_looks_nobody_hurries(cluster):
    cluster.deploy("shop", SPEC)

    def reports():
        text = cluster.api("GET", "/metrics").text
        return int(next(line.split()[-1] for line in text.splitlines() if line.startswith("orca_gateway_reports_total")))

    for _ in range(3):
        top(cluster)
        time.sleep(2)
    began = reports()
    for _ in range(4):
        top(cluster)
        time.sleep(2)
    assert reports() - began >= 3
    time.sleep(14)  # the wish is over, and the last fast sample is behind us
    began = reports()
    time.sleep(10)
    assert reports() - began <= 2


def on_a_terminal(cluster, keys):
    """Runs `orcactl top` on a terminal of its own; its exit code, what it showed, and the terminal's settings before and after."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    env = {**cluster.env, "TERM": "xterm-256color"}
    with subprocess.Popen([str(BIN / "orcactl"), "top"], stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True) as top_:
        shown = b""
        while b"q: end" not in shown:
            shown += os.read(master, 65536)
        during = termios.tcgetattr(slave)
        if keys:
            os.write(master, keys)
        else:
            top_.terminate()
        code = top_.wait(10)
    os.set_blocking(master, False)
    try:
        shown += os.read(master, 65536)
    except BlockingIOError:
        pass
    after = termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)
    return code, shown, before, during, after


def test_the_terminal_is_as_it_was(cluster):
    for keys in (b"q", b"mrq", None):
        code, shown, before, during, after = on_a_terminal(cluster, keys)
        assert code == 0 and before == after and during[3] != before[3]
        assert b"\033[?1049h" in shown and shown.rstrip().endswith(b"\033[?25h\033[?1049l")
