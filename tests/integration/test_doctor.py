"""`orcactl doctor` finds what is wrong on a node and here, says what to do, and says so by its exit code."""
import json
import os
import socket

from orca import APP, wait_for
from test_api_tls import machine_address

SPEC = """
[[service]]
name = "db"
image = "{image}"
port = 8080
host_port = {port}
pull = "never"
"""


def doctor(c):
    done = c.ctl("doctor", "-o", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def texts(told, level=None):
    lists = [told["orcactl"], told["findings"], *(n["findings"] for n in told["nodes"])]
    return [f["text"] for one in lists for f in one if level is None or f["level"] == level]


def test_what_is_well_and_what_is_not(cluster):
    wait_for(lambda: cluster.ctl("plan", "-C", str(cluster.infra), check=False).returncode in (0, 1))
    _, told = doctor(cluster)
    said = texts(told)
    for part in ("Docker 2", "cgroup v", "state folder", "apiserver.key is private", "agent.key is private", "a scheduler leads", "the cluster's CA", "keys,"):
        assert any(part in text for text in said), (part, said)
    assert not any("does not tell" in text for text in said)
    assert sum(text.startswith("the clock is ") for text in said) == 1, said  # one machine has one clock
    text = cluster.ctl("doctor", check=False).stdout
    assert "node n1" in text and "✓" in text and " well, " in text

    # A key that others can read.
    key = cluster.run / "keys" / "agent.key"
    os.chmod(key, 0o644)
    code, told = doctor(cluster)
    assert code == 1 and any("agent.key can be read by others" in text for text in texts(told, "wrong"))
    os.chmod(key, 0o400)

    # A port that a service declares, and somebody else has.
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cluster.deploy("shop", SPEC.format(image=APP, port=port), "--no-wait")
        wait_for(lambda: any(f"port {port}, which shop/db.1 declares, is taken" in text for text in texts(doctor(cluster)[1], "wrong")), 20, 0.5, "said")


def test_without_an_apiserver(cluster):
    cluster.stop()
    done = cluster.ctl("doctor", check=False)
    assert done.returncode == 1 and "✗" in done.stdout and "the apiserver does not tell" in done.stdout


def test_the_apis_certificate(cluster):
    if any("certificate on n1" in text for text in texts(doctor(cluster)[1])):
        raise AssertionError("it has none yet")
    address, port = machine_address()
    (cluster.infra / "cluster.toml").write_text(f'[cluster]\nname = "test"\n[api]\nlisten = ["{address}:{port}"]\ntls = true\n')
    cluster.deploy("shop", SPEC.format(image=APP, port=0).replace("host_port = 0\n", ""))
    wait_for(lambda: any(t.startswith("the API's certificate on n1 is good for ") for t in texts(doctor(cluster)[1], "well")), 20, 0.5, "its certificate is looked at")
