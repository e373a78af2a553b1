"""What can't be placed says why; what isn't allowed is refused; what is hostile is refused, counted, and harms nobody."""
import socket

import pytest
from orca import APP, wait_for


def service(extra, table=""):
    return f'[[service]]\nname = "web"\nimage = "{APP}"\n{extra}\n[service.deploy]\nmin_ready = "100ms"\n{table}'


def test_pending_with_a_reason_per_node_until_it_fits(cluster):
    cluster.write("shop", service("", '[service.resources]\nmemory = "900Gi"\n'))
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    instance = wait_for(lambda: next((i for i in cluster.instances("web") if i["reason"]), None))
    assert not instance["node"]
    explained = cluster.ctl("explain", "web").stdout
    assert "n1" in explained and "memory" in explained
    cluster.deploy("shop", service("", '[service.resources]\nmemory = "16Mi"\n'))
    assert cluster.running("shop/web")


def test_placement_by_labels_of_cluster_toml(cluster):
    cluster.write("shop", service("", '[service.placement]\nlabels = { zone = "b" }\n'))
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    wait_for(lambda: "zone" in str(cluster.api("GET", "/api/v1/services/web/explain").json()))
    (cluster.infra / "cluster.toml").write_text('[cluster]\nname = "test"\n[[node]]\nname = "n1"\nlabels = { zone = "b" }\n')
    cluster.ctl("-C", str(cluster.infra), "deploy")
    assert cluster.running("shop/web")


@pytest.mark.parametrize("extra,table,key", [
    ("privileged = true", "", "privileged"),
    ('network = "host"', "", "network"),
    ('devices = ["/dev/sda"]', "", "devices"),
    ('caps = ["SYS_ADMIN"]', "", "caps"),
    ('mounts = ["/etc:/mnt"]', "", "mounts"),
    ('mounts = ["/var/run/docker.sock:/sock"]', "", "mounts"),
    ("", '[[service.volumes]]\nsource = "v"\ntarget = "/v"\ndriver = "local"\noptions = { type = "none", o = "bind", device = "/" }\n', "volumes"),
])
def test_policy_refuses_by_default(cluster, extra, table, key):
    done = cluster.deploy("shop", service(extra, table), check=False)
    assert done.returncode == 1
    assert key in done.stderr
    assert cluster.api("GET", "/api/v1/status").json()["services"] == []


def test_policy_allows_what_it_names(cluster, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("from the host\n")
    (cluster.infra / "cluster.toml").write_text(f'[cluster]\nname = "test"\n[policy]\nallow_host_paths = ["{tmp_path}/data"]\n')
    cluster.deploy("shop", service(f'port = 8080\ndomain = "web.test"\nmounts = ["{tmp_path}/data:/data:ro"]'))
    assert cluster.get("web.test", "/file?/data/x").text == "from the host\n"


@pytest.mark.parametrize("spec,words", [
    ('runtime = "wasm"', "not supported yet"),
    ('replicas = "auto"', "not supported yet"),
    ("[service.scale]\nmin = 1", "not supported yet"),
    ('workdir = "/${secrets.Y}"', "is not for here"),
])
def test_what_does_not_exist_yet_is_said(cluster, spec, words):
    done = cluster.deploy("shop", f'[[service]]\nname = "web"\nimage = "{APP}"\n{spec}\n', check=False)
    assert done.returncode == 1 and words in done.stderr


@pytest.mark.parametrize("port", ["gateway", "store", "http", "api"])
def test_garbage_on_any_port_is_closed_and_harms_nobody(cluster, port):
    cluster.deploy("shop", service('port = 8080\ndomain = "web.test"\nenv = { TEXT = "one" }'))
    for garbage in (b"\x00" * 4096, b"GET / HTTP/1.1\r\n\r\n\r\n" * 100, bytes(range(256)) * 64, b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f" + b"A" * 1000):
        with socket.create_connection((cluster.address, cluster.ports[port]), timeout=5) as s:
            try:
                s.sendall(garbage)
                s.settimeout(1)
                s.recv(65536)
            except OSError:
                pass
    assert cluster.get("web.test").text == "one\n"
    assert cluster.api("GET", "/api/v1/health", token=None).status == 200
    cluster.ctl("scale", "web", "2")
    wait_for(lambda: len(cluster.running("shop/web")) == 2)


def test_hostile_bodies_are_refused_with_the_field(cluster):
    post = lambda body: cluster.api("POST", "/api/v1/deploy", body)
    assert post(b"{" * 100000).status == 400
    assert post(b"[]").status == 400
    assert post(b'{"services": 3}').status == 400
    assert post(b'{"services": [{"name": "a", "name": "b"}]}').status == 400
    assert post(b"\xff\xfe").status == 400
    wrong = post({"services": [{"name": "web", "project": "shop", "image": 3, "replicas": "many"}]})
    assert wrong.status in (400, 422)
    assert {"services[0].image", "services[0].replicas"} <= {d["path"] for d in wrong.json()["details"]}
    assert post(b" " * (13 << 20)).status == 413
    assert cluster.api("GET", "/api/v1/status", token="wrong").status == 401
    assert cluster.api("GET", "/api/v1/status", token=None).status == 401
    assert cluster.api("GET", "/nothing", token=None).status == 401
    assert cluster.api("GET", "/nothing").status == 404
    assert cluster.api("PATCH", "/api/v1/status").status == 405
