"""Who may: a token's life, what it may not see, wrong ones slowed, and the audit log of it all."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

from orca import APP, BIN, Cluster, wait_for

QUIET = f'[[service]]\nname = "{{name}}"\nimage = "{APP}"\nport = 8080\n[service.deploy]\nmin_ready = "0s"\n'


def create(cluster, name, role, *args):
    return cluster.ctl("token", "create", "--name", name, "--role", role, *args).stdout.strip()


def entries(cluster, **query):
    ask = "&".join(f"{k}={v}" for k, v in query.items())
    return cluster.api("GET", f"/api/v1/audit?limit=10000&{ask}").json()["entries"]


def raw(cluster, head, timeout=5):
    """The status of what is answered to these bytes; 0 when the connection was only closed."""
    with socket.create_connection((cluster.address, cluster.ports["api"]), timeout=timeout) as s:
        try:
            s.sendall(head)
        except OSError:
            pass
        answer = b""
        try:
            while b"\r\n" not in answer and (piece := s.recv(4096)):
                answer += piece
        except OSError:
            pass
        return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_a_tokens_life(cluster):
    value = create(cluster, "ci", "deployer", "--project", "shop", "--project", "blog")
    assert value.startswith("orca_") and len(value) == 57
    assert cluster.api("GET", "/api/v1/status", token=value).status == 200
    refused = cluster.api("GET", "/api/v1/tokens", token=value)
    assert refused.status == 403 and refused.json()["error"] == "token ci has the role deployer: this takes admin"
    listed = {t["name"]: t for t in json.loads(cluster.ctl("-o", "json", "token", "list").stdout)["tokens"]}
    assert listed["ci"]["projects"] == ["shop", "blog"] and listed["ci"]["created_by"] == "admin" and listed["admin"]["yours"]
    assert "shop,blog" in cluster.ctl("token", "list").stdout
    # When it was used is stored, soon and seldom: it is known after a restart.
    wait_for(lambda: cluster.api("GET", "/api/v1/tokens/ci").json()["token"]["last_used"])
    time.sleep(4)  # it is written after a second
    cluster.kill("apiserver")
    cluster.wait_healthy()
    assert wait_for(lambda: cluster.api("GET", "/api/v1/tokens/ci").json()["token"])["last_used"]
    # An open stream ends with its token, as every request does.
    connection = http.client.HTTPConnection(cluster.address, cluster.ports["api"], timeout=40)
    connection.request("GET", "/api/v1/events?follow=true&since=0", headers={"Authorization": f"Bearer {value}"})
    stream = connection.getresponse()
    cluster.ctl("token", "rm", "ci")
    assert cluster.api("GET", "/api/v1/status", token=value).status == 401
    stream.read()  # ends
    # One that ends by itself.
    value = create(cluster, "brief", "viewer", "--expires", "2s")
    assert cluster.api("GET", "/api/v1/status", token=value).status == 200
    wait_for(lambda: cluster.api("GET", "/api/v1/status", token=value).status == 401)
    assert "expired" in cluster.ctl("token", "list").stdout
    # The last one that may everything stays.
    done = cluster.ctl("token", "rm", "admin", check=False)
    assert done.returncode == 1 and "last admin token" in done.stderr
    assert cluster.ctl("status").returncode == 0


def test_tokens_of_cluster_toml_come_and_go_with_it(cluster):
    text = '[cluster]\nname = "test"\n'
    path = cluster.infra / "cluster.toml"
    first, second = "first-0123456789abcdefghijklmnopq", "second-0123456789abcdefghijklmno"

    def deploy(tokens, check=True):
        path.write_text(text + tokens)
        return cluster.ctl("-C", str(cluster.infra), "deploy", check=check)

    cluster.env["ORCA_CI_TOKEN"] = first
    declared = '[[token]]\nname = "ci"\nvalue = "${env.ORCA_CI_TOKEN}"\nrole = "viewer"\nprojects = ["shop"]\n'
    deploy(declared)
    assert cluster.api("GET", "/api/v1/status", token=first).status == 200
    assert "cluster.toml" in cluster.ctl("token", "list").stdout
    assert cluster.ctl("token", "rm", "ci", check=False).returncode == 1
    cluster.env["ORCA_CI_TOKEN"] = second
    deploy(declared)
    assert cluster.api("GET", "/api/v1/status", token=first).status == 401
    assert cluster.api("GET", "/api/v1/status", token=second).status == 200
    for weak in ("short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "with a space 0123456789abcdefghijklmnopq"):
        cluster.env["ORCA_CI_TOKEN"] = weak
        done = deploy(declared, check=False)
        assert done.returncode != 0 and weak not in done.stderr + done.stdout
    done = deploy(declared.replace('"ci"', '"admin"').replace("${env.ORCA_CI_TOKEN}", second), check=False)
    assert done.returncode != 0 and "taken" in done.stderr
    # Neither text ever left orcactl.
    body = {"services": [], "cluster": {"cluster": {"name": "test"}, "token": [{"name": "x", "role": "viewer", "value": second}]}}
    assert cluster.api("POST", "/api/v1/deploy", body).status in (400, 422)
    for value in (first, second):
        found = subprocess.run(["grep", "-rlF", value, str(cluster.run)], capture_output=True, text=True, check=False).stdout
        assert not found
    deploy("")
    assert cluster.api("GET", "/api/v1/status", token=second).status == 401


def test_what_a_token_may_not_see_is_not_there(cluster):
    cluster.deploy("shop", QUIET.format(name="web").replace("port = 8080", 'port = 8080\ndomain = "web.test"'))
    viewer, deployer = create(cluster, "v", "viewer", "--project", "other"), create(cluster, "d", "deployer", "--project", "other")
    admin = create(cluster, "a", "admin", "--project", "other")
    for token in (viewer, deployer, admin):
        assert cluster.api("GET", "/api/v1/status", token=token).json()["services"] == []
        for path in ("services/web", "services/web/explain", "services/web/history", "services/web?project=shop", "services/web/logs"):
            assert cluster.api("GET", "/api/v1/" + path, token=token).status == 404
        answers = [cluster.api("GET", "/api/v1/" + path, token=token) for path in ("events", "cluster/info", "nodes", "top")] + [cluster.api("GET", "/metrics", token=token)]
        for answer in answers:
            assert answer.status == 200 and "shop" not in answer.text and "web" not in answer.text
        assert cluster.api("GET", "/api/v1/nodes", token=token).json()["nodes"][0]["instances"] == 0
        assert cluster.api("GET", "/api/v1/cluster/info", token=token).json()["services"] == 0
    for token in (deployer, admin):
        assert cluster.api("POST", "/api/v1/services/web/scale", {"replicas": 3}, token=token).status == 404
        assert cluster.api("DELETE", "/api/v1/projects/shop", token=token).status == 404

        def deploy(token=token, **more):
            spec = {"name": "mine", "project": "other", "image": APP, "replicas": 0, **more}
            return cluster.api("POST", "/api/v1/deploy?dry_run=true", {"services": [spec]}, token=token)

        assert deploy().status == 200
        taken = deploy(port=1, domains=["web.test"])
        assert taken.status == 422 and "shop" not in taken.text and "shop/web" not in taken.text
        for there, not_there in (({"depends_on": ["shop/web"]}, {"depends_on": ["shop/nix"]}),
                                 ({"placement": {"avoid": ["shop/web"]}}, {"placement": {"avoid": ["shop/nix"]}})):
            a, b = deploy(**there), deploy(**not_there)
            assert (a.status, a.text.replace("web", "nix")) == (b.status, b.text) and a.status == 422
    assert [t["name"] for t in cluster.api("GET", "/api/v1/tokens", token=admin).json()["tokens"]] == ["a", "d", "v"]
    assert cluster.api("POST", "/api/v1/tokens", {"name": "more", "role": "viewer"}, token=admin).status == 403
    assert all("shop" not in json.dumps(e) for e in cluster.api("GET", "/api/v1/audit", token=admin).json()["entries"] if e["actor"] != "a")


def test_a_domain_is_its_projects_alone(cluster):
    """Paths of somebody's domain see the cookies of its visitors: another project gets none without a token for both."""
    def service(name, **more):
        return {"name": name, "image": APP, "port": 8080, "replicas": 0, **more}

    def deploy(project, token="", **more):
        return cluster.api("POST", "/api/v1/deploy", {"services": [{**service("web"), "project": project, **more}]}, token=token)

    mine, both = create(cluster, "mine", "deployer", "--project", "thief"), create(cluster, "both", "deployer", "--project", "bank", "--project", "thief")
    assert deploy("thief", mine, domain="early.test").status == 200 and deploy("thief", mine, domain="mine.test").status == 200
    assert deploy("bank", domain="bank.test").status == 200 and deploy("bank", domains=["bank.test", "early.test"]).status == 200
    for routes in (["/*"], ["/login/*"], ["/x"]):
        answer = deploy("thief", mine, domain="bank.test", routes=routes)
        assert answer.status in (400, 422) and "domains" in answer.text and "another project" in answer.text and "bank/" not in answer.text, answer.text
    # Nor by going back to a revision from the time when nobody else had it, whoever asks.
    back = cluster.api("POST", "/api/v1/services/web/rollback?project=thief&to=1", token=mine)
    assert back.status == 409 and "early.test" in back.text and "bank/" not in back.text
    back = cluster.api("POST", "/api/v1/services/web/rollback?project=thief&to=1")
    assert back.status == 409 and "bank/web" in back.text
    # A stopped service keeps its domain.
    assert cluster.api("POST", "/api/v1/services/web/stop?project=bank").status == 200
    assert deploy("thief", mine, domain="bank.test", routes=["/y"]).status in (400, 422)
    # Who may deploy both may share it; then it is theirs to keep, and no more than that.
    assert deploy("thief", both, domain="bank.test", routes=["/shared/*"]).status == 200
    assert deploy("thief", mine, domain="bank.test", routes=["/shared/*"], env={"A": "1"}).status == 200
    for routes in (["/*"], ["/shared/*", "/login"], []):
        assert deploy("thief", mine, domain="bank.test", routes=routes).status in (400, 422), routes
    assert deploy("thief", mine, domains=["bank.test", "early.test"], routes=["/shared/*"]).status in (400, 422)
    for project in ("bank", "thief"):
        assert cluster.api("DELETE", f"/api/v1/projects/{project}?purge=true").status == 200
    for name in ("mine", "both"):
        cluster.ctl("token", "rm", name)


def test_hostile_tokens_get_a_plain_401(cluster):
    pid = cluster.pid("apiserver")
    good = cluster.token()
    head = b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n"
    texts = set()
    with Cluster(start=False) as other:
        foreign = other.token()
    assert foreign.startswith("orca_") and foreign != good
    expired = create(cluster, "late", "admin", "--expires", "1s")
    assert cluster.api("GET", "/api/v1/status", token=expired).status == 200
    time.sleep(1.2)
    for header in ("Bearer " + foreign, "Bearer " + expired, "Bearer", "Bearer ", "Bearer  ", "bearer x", "Basic " + good, good, "Bearer " + good + "x", "Bearer " + good[:-1], "Bearer " + good.upper(),
                   "Bearer orca_" + "a" * 52, "Bearer " + "x" * 257, "Bearer " + "x" * 20000, "Bearer " + good + "\t", "Bearer \u00e4\u00f6", 'Bearer "; DROP', "Bearer ../../x"):
        connection = http.client.HTTPConnection(cluster.address, cluster.ports["api"], timeout=5)
        connection.putrequest("GET", "/api/v1/status")
        connection.putheader("Authorization", header.encode("utf-8"))
        connection.putheader("X-Forwarded-For", f"10.0.0.{len(texts) + 1}")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status in (401, 429), header
        if answer.status == 401:
            texts.add(json.loads(body)["error"])
    assert texts == {"this token is not known, or has expired"}  # whatever was wrong with it
    # A head that is larger than any: refused by its size alone, whoever sends it.
    for size in (1 << 20, 40000):
        assert raw(cluster, head + b"Authorization: Bearer " + b"x" * size + b"\r\n\r\n") in (0, 400, 401, 413, 431)
    assert raw(cluster, head + b"Authorization: Bearer " + good.encode() + b"\r\nX-Padding: " + b"x" * (1 << 20) + b"\r\n\r\n") in (0, 400, 413, 431)
    assert raw(cluster, head + b"Authorization: Bearer wrong\r\nAuthorization: Bearer " + good.encode() + b"\r\n\r\n") in (400, 401, 429)
    assert cluster.pid("apiserver") == pid
    assert cluster.api("GET", "/api/v1/status").status == 200


def knock(cluster, token, forwarded=None):
    connection = http.client.HTTPConnection(cluster.address, cluster.ports["api"], timeout=5)
    headers = {"Authorization": f"Bearer {token}"}
    if forwarded:
        headers["X-Forwarded-For"] = forwarded
    connection.request("GET", "/api/v1/status", headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, int(answer.headers.get("Retry-After", 0))


def test_wrong_tokens_of_one_address_are_slowed(cluster):
    seen = [knock(cluster, f"guess-{i}", "10.9.9.9") for i in range(30)]
    assert [s for s, _ in seen[:10]] == [401] * 10
    assert all(s == 429 and wait >= 1 for s, wait in seen[10:])
    wait = seen[-1][1]
    assert wait <= 300
    assert knock(cluster, "guess", "10.9.9.10")[0] == 401  # another client
    assert knock(cluster, "guess")[0] == 401
    assert knock(cluster, "guess", "1.2.3.4, 10.9.9.9")[0] == 429  # what a client puts before it does not count
    assert knock(cluster, cluster.token(), "10.9.9.9")[0] == 200  # nobody can lock others out
    for _ in range(20):
        knock(cluster, "guess")
    assert cluster.ctl("status").returncode == 0
    # Metrics are open on loopback, but for one who brings a token that is none.
    assert cluster.api("GET", "/metrics", token=None).status == 200
    assert cluster.api("GET", "/metrics", token="wrong").status in (401, 429)
    for host, status in {"localhost:6880": 200, "evil.example:6880": 401}.items():  # a page's own name that leads here
        assert raw(cluster, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == status


def test_the_audit_log_tells_of_changes_and_refusals(cluster):
    cluster.deploy("shop", QUIET.format(name="web"))
    value = create(cluster, "spy", "viewer", "--project", "other")
    cluster.api("POST", "/api/v1/services/web/scale", {"replicas": 2})
    # A change is in it when the apiserver is killed right after it.
    cluster.kill("apiserver")
    cluster.wait_healthy()
    changes = wait_for(lambda: entries(cluster, actor="admin"))
    told = [(e["method"], e["path"], e["target"], e["result"]) for e in changes]
    assert ("POST", "/api/v1/deploy", "cluster.toml and shop/web", "ok") in told
    assert ("POST", "/api/v1/tokens", "token spy", "ok") in told
    assert ("POST", "/api/v1/services/{name}/scale", "shop/web", "ok") in told
    assert all(e["from"].startswith("127.") for e in changes)
    # Refusals: who, from where, what.
    cluster.api("POST", "/api/v1/services/web/stop", token=value)
    cluster.api("GET", "/api/v1/services/web", token=value)
    for _ in range(40):
        knock(cluster, "nobody's", "10.1.2.3")
    raw(cluster, b"GET /api/v1/%1b[31mred HTTP/1.1\r\nHost: x\r\n\r\n")
    refused = wait_for(lambda: (r := [e for e in entries(cluster) if e["status"] >= 400]) and len(r) >= 5 and r)
    by_spy = {(e["status"], e["path"]) for e in refused if e["actor"] == "spy"}
    assert by_spy == {(403, "/api/v1/services/{name}/stop"), (404, "/api/v1/services/{name}")}
    from_there = [e for e in refused if e["from"].startswith("10.1.2.3 via 127.")]
    assert {e["status"] for e in from_there} == {401, 429} and len(from_there) == 2
    assert any(e["path"] == "/api/v1/?[31mred" and e["actor"] == "" for e in refused)
    out = cluster.ctl("audit").stdout
    assert "\x1b" not in out and "10.1.2.3 via 127" in out
    assert "scale" in cluster.ctl("audit", "--actor", "admin", "--project", "shop", "--since", "1h").stdout
    assert len(cluster.ctl("audit", "--tail", "1").stdout.splitlines()) == 1
    # No token, no body.
    everything = json.dumps(entries(cluster))
    for secret in (value, cluster.token(), "nobody's", "replicas"):
        assert secret not in everything
    found = subprocess.run(["grep", "-rlF", value, str(cluster.run)], capture_output=True, text=True, check=False).stdout
    assert not found


def test_the_audit_log_can_be_followed_over_a_restart(cluster):
    with subprocess.Popen([str(BIN / "orcactl"), "audit", "-f", "--tail", "0", "-o", "json"], stdout=subprocess.PIPE, text=True, env=cluster.env) as follower:
        try:
            os.set_blocking(follower.stdout.fileno(), False)
            got = []

            def names():
                while line := follower.stdout.readline():
                    got.append(json.loads(line))
                return [e["target"] for e in got if e["path"] == "/api/v1/tokens"]

            time.sleep(0.5)
            create(cluster, "one", "viewer")
            wait_for(lambda: names() == ["token one"])
            cluster.kill("apiserver")
            cluster.wait_healthy()
            create(cluster, "two", "viewer")
            wait_for(lambda: names() == ["token one", "token two"])
        finally:
            follower.send_signal(signal.SIGTERM)


def test_files_that_others_can_read_are_refused(cluster):
    token = cluster.dir / "home/tokens/default"
    for mode, who in ((0o440, "its group"), (0o404, "others"), (0o602, "others")):
        token.chmod(mode)
        done = cluster.ctl("status", check=False)
        assert done.returncode != 0 and str(token) in done.stderr and who in done.stderr and "chmod" in done.stderr
    token.chmod(0o400)
    os.chown(token, 12345, -1)
    done = cluster.ctl("status", check=False)
    assert done.returncode != 0 and "12345" in done.stderr
    os.chown(token, 0, -1)
    assert cluster.ctl("status").returncode == 0
    key = cluster.run / "keys/keeper.key"
    key.chmod(0o440)
    cluster.kill("keeper")
    wait_for(lambda: "keeper.key can be read by its group (mode 0440): chmod 0400" in cluster.log("keeper"))
    key.chmod(0o400)
    wait_for(lambda: os.kill(cluster.pid("keeper"), 0) is None)


def login(cluster, *args, token=None, home="elsewhere"):
    env = {**cluster.env, "ORCA_HOME": str(cluster.dir / home)}
    return subprocess.run([str(BIN / "orcactl"), "login", *args], input=(token if token is not None else cluster.token()) + "\n", capture_output=True, text=True, env=env,
                          timeout=20, check=False)


def test_login_makes_a_context_of_a_token_that_works(cluster):
    host = f"{cluster.address}:{cluster.ports['api']}"
    home = cluster.dir / "elsewhere"
    assert login(cluster, host, token="wrong").returncode == 4
    assert not (home / "config.json").exists()
    assert login(cluster, host, token="").returncode != 0
    assert login(cluster, host, token="not a token").returncode != 0
    for bad in ("", "host:0", "host:99999", "http://10.255.255.1", "a b", "ftp://x", "[::1"):
        assert login(cluster, bad).returncode != 0
    done = login(cluster, host)
    assert done.returncode == 0, done.stderr
    name = cluster.address.replace(".", "-")
    token = home / "tokens" / name
    assert oct(token.stat().st_mode & 0o777) == "0o400" and oct((home / "tokens").stat().st_mode & 0o777) == "0o700"
    assert cluster.token() not in done.stdout + done.stderr
    env = {**cluster.env, "ORCA_HOME": str(home)}

    def ctl(*args):
        return subprocess.run([str(BIN / "orcactl"), *args], capture_output=True, text=True, env=env, timeout=20, check=False)

    assert ctl("status").returncode == 0
    assert login(cluster, host, "--context", "second").returncode == 0
    contexts = json.loads(ctl("-o", "json", "context", "list").stdout)["contexts"]
    assert {(c["name"], c["current"]) for c in contexts} == {(name, False), ("second", True)}
    assert ctl("context", "use", name).returncode == 0 and ctl("context", "rm", "second").returncode == 0
    assert ctl("context", "use", "second").returncode != 0
    assert not (home / "tokens/second").exists()
    assert ctl("status").returncode == 0
