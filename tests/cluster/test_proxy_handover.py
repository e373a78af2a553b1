"""orca-proxy under systemd: restarted and killed while connections come and long answers are on their way."""
import os
import pathlib
import socket
import subprocess
import threading
import time

import pytest
from orca import APP, ROOT, wait_for
from systemd_node import SystemdNode

DEBS = pathlib.Path(os.environ.get("ORCA_DEBS", ROOT / "build/deb"))


@pytest.fixture(scope="module")
def node():
    with SystemdNode() as n:
        try:
            wait_for(lambda: n.sh("docker version -f '{{.Server.Version}}'", check=False), 30, every=0.2)
        except AssertionError:
            pytest.skip("Docker does not run inside of a container here")
        n.install(DEBS)
        n.load()
        n.sh(f"orcactl init --name n1 --address {n.address}")
        n.sh("systemctl start orca-master.target")
        wait_for(lambda: "ready" in n.sh("orcactl nodes", check=False), 30, every=0.2, message="the node is ready")
        n.write("/root/infra/cluster.toml", f'[cluster]\nname = "test"\n[api]\nlisten = ["{n.address}:6880"]\ntls = true\n')
        n.write("/root/infra/services/shop/service.toml", f'[[service]]\nname = "web"\nimage = "{APP}"\nport = 8080\ndomain = "web.test"\n')
        n.sh("orcactl -C /root/infra deploy 2>&1", timeout=90)
        wait_for(lambda: n.sh(f"curl -s -m 2 -o /dev/null -w '%{{http_code}}' -H 'Host: web.test' http://{n.address}/", check=False) == "200", 20, every=0.1)
        yield n


def load(n, seconds, *options):
    return subprocess.Popen(["wrk", "-t1", "-c64", f"-d{seconds}s", "--timeout", "10s", *options, "-s", ROOT / "tests/cluster/load.lua", f"http://{n.address}/"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def assert_unharmed(wrk):
    text = wrk.communicate(timeout=60)[0]
    assert "Socket errors" not in text and "Non-2xx" not in text and " requests in" in text, text


def test_restarts_drop_nothing_and_long_answers_end_where_they_began(node):
    wrk = load(node, 10)
    download = subprocess.Popen(["curl", "-sS", "--limit-rate", "2M", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", "-H", "Host: web.test",
                                 f"http://{node.address}/bytes?16000000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    slow = subprocess.Popen(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: web.test", f"http://{node.address}/slow?6000"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(1)
    took = []
    for _ in range(4):
        begin = time.monotonic()
        node.sh("systemctl restart orca-proxy")
        took.append(time.monotonic() - begin)
        time.sleep(1)
    assert max(took) < 3, took  # nobody waits for what drains
    assert download.communicate(timeout=40)[0] == "200 16000000"
    assert slow.communicate(timeout=40)[0] == "200"
    assert_unharmed(wrk)
    assert node.sh("systemctl show -p NFileDescriptorStore --value orca-proxy") != "0"
    wait_for(lambda: node.sh("pgrep -c orca-proxy") == "1", 40, every=0.5, message="what drained has ended")


def test_a_killed_proxy_refuses_nobody(node):
    """In the moment between two processes who connects waits, in sockets that systemd holds."""
    refused, stop = [], threading.Event()

    def connect():
        while not stop.is_set():
            for port in (80, 6880):
                try:
                    socket.create_connection((node.address, port), 10).close()
                except OSError as error:
                    refused.append((port, error))
            time.sleep(0.001)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        for _ in range(3):
            pid = node.pid("proxy")
            node.sh(f"kill -9 {pid}")
            wait_for(lambda p=pid: node.pid("proxy") not in (0, p), 15, every=0.05)
            time.sleep(0.5)
    finally:
        stop.set()
        thread.join()
    assert not refused, refused[:5]
    assert "took the sockets that systemd kept" in node.sh("journalctl -u orca-proxy -o cat")


def test_a_stop_gives_the_ports_back(node):
    node.sh("systemctl stop orca-proxy")
    for port in (80, 6880):
        with socket.socket() as s:
            assert s.connect_ex((node.address, port)) != 0, port
    node.sh("systemctl start orca-proxy")
    wait_for(lambda: node.sh(f"curl -s -m 2 -o /dev/null -w '%{{http_code}}' -H 'Host: web.test' http://{node.address}/", check=False) == "200", 20, every=0.1)
    assert "orca-proxy.service" not in node.sh("systemctl --failed --plain --no-legend", check=False)
