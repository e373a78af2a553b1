"""A snapshot, taken while everything runs, becomes the state of a store again: what came after it is gone, what ran then goes on."""
import subprocess

from orca import APP, BIN, wait_for


def service(name, text):
    return f'[[service]]\nname = "{name}"\nimage = "{APP}"\npull = "never"\nport = 8080\ndomain = "{name}.test"\n[service.env]\nTEXT = "{text}"\n[service.deploy]\nmin_ready = "100ms"\n'


def storectl(c, *args, check=True):
    return subprocess.run([BIN / "orca-storectl", "-c", c.run / "node.toml", *args], capture_output=True, text=True, timeout=60, check=check)


def test_a_snapshot_is_restored(cluster):
    c = cluster
    c.deploy("shop", service("web", "one"))
    c.ctl("secrets", "set", "KEPT", "of-then")
    snapshot = c.run / "saved.snapshot"
    storectl(c, "snapshot", "save", snapshot)

    # After it: another version, another service. Both are to be gone.
    c.deploy("shop", service("web", "two") + service("late", "late"))
    assert c.get("web.test").text == "two\n"

    assert "holds a state already" in storectl(c, "snapshot", "restore", snapshot, check=False).stderr
    c.stop()
    state = c.run / "state/store"
    state.rename(c.run / "state/store.before")

    # What is damaged is no backup, and leaves nothing that a store would start on.
    damaged = c.run / "damaged.snapshot"
    data = bytearray(snapshot.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 4096):
        data[at] ^= 0xFF
    damaged.write_bytes(data)
    refused = storectl(c, "snapshot", "restore", damaged, check=False)
    assert refused.returncode == 1 and "is damaged" in refused.stderr, refused
    damaged.write_bytes(snapshot.read_bytes()[:-100])
    assert "not all of it" in storectl(c, "snapshot", "restore", damaged, check=False).stderr
    assert not state.exists()

    assert "revision" in storectl(c, "snapshot", "restore", snapshot).stdout
    assert oct(state.stat().st_mode & 0o777) == "0o700"
    c.start()
    wait_for(lambda: c.get("web.test").text == "one\n", 40, message="the version of the backup runs")
    wait_for(lambda: not c.containers("shop/late"), 40, message="what came after it is gone")
    assert [s["name"] for s in c.api("GET", "/api/v1/status").json()["services"]] == ["web"]
    assert [s["name"] for s in c.api("GET", "/api/v1/secrets").json()["secrets"]] == ["KEPT"]
    # Changes go on from there, also over a restart of the store.
    c.deploy("shop", service("web", "three"))
    c.kill("store")
    wait_for(lambda: c.ctl("scale", "web", "2", check=False).returncode == 0, 20)
    wait_for(lambda: c.get("web.test").text == "three\n", 20)
    wait_for(lambda: len(c.running("shop/web")) == 2, 30)
