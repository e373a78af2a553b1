"""The API away from loopback: TLS 1.3 at the proxy with a certificate of the cluster's CA, handed over to the apiserver on loopback."""
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from orca import BIN, Cluster, busybox_image, docker, wait_for
from proxy_util import Wire


def machine_address():
    """An address of this machine that is not loopback."""
    for bridge in docker("network", "inspect", "bridge", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", check=False).split():
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind((bridge, 0))
            return bridge, s.getsockname()[1]
    pytest.skip("no address of this machine but loopback")
    return None


@pytest.fixture(scope="module", name="c")
def cluster_with_tls():
    address, port = machine_address()
    with Cluster() as c:
        c.host, c.tls_port = address, port
        c.ca = c.run / "keys/ca.pem"
        c.pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(c.ca.read_text())).hexdigest()
        set_listen(c, f"{address}:{port}")
        wait_for(lambda: connect(c).close() is None, message="TLS is spoken")
        yield c


def set_listen(c, *addresses, text=""):
    listen = ", ".join(f'"{a}"' for a in addresses)
    (c.infra / "cluster.toml").write_text(f'[cluster]\nname = "test"\n[api]\nlisten = [{listen}]\ntls = true\n{text}\n')
    return c.ctl("-C", str(c.infra), "deploy")


def connect(c, port=None, context=None, timeout=10):
    context = context or ssl.create_default_context(cafile=c.ca)
    raw = socket.create_connection((c.host, port or c.tls_port), timeout)
    try:
        return context.wrap_socket(raw, server_hostname=c.host)
    except BaseException:
        raw.close()
        raise


def plain(c, timeout=15):
    return Wire(socket.create_connection((c.host, c.tls_port), timeout))


def ask(c, target, headers="", method="GET", wire=None):
    w = wire or Wire(connect(c))
    w.send(f"{method} {target} HTTP/1.1\r\nHost: {c.host}\r\nAuthorization: Bearer {token(c)}\r\n{headers}\r\n")
    m = w.answer(method)
    if not wire:
        w.close()
    return m


def token(c):
    return (c.dir / "home/tokens/default").read_text().strip()


def test_a_client_that_knows_the_ca_is_served_by_tls_1_3(c):
    with connect(c) as s:
        assert s.version() == "TLSv1.3" and s.cipher()[0].startswith("TLS_")
        certificate = s.getpeercert()
        names = {v for _, v in certificate["subjectAltName"]}
        assert {c.host, c.address, "n1", "localhost", "127.0.0.1"} == names, names
        days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86400
        assert 89 < days <= 90
        w = Wire(s)
        for _ in range(3):  # one connection, several requests
            assert json.loads(ask(c, "/api/v1/nodes", wire=w).body)["nodes"][0]["name"] == "n1"
    key = c.run / "state/proxy/api.pem"
    assert oct(key.stat().st_mode & 0o777) == "0o400"


def test_earlier_versions_and_other_roots_are_refused(c):
    old = ssl.create_default_context(cafile=c.ca)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        connect(c, context=old)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(c, context=ssl.create_default_context())


def test_plain_http_is_told_to_speak_tls(c):
    for method in ("GET", "DELETE", "OPTIONS", "PRI"):
        w = plain(c)
        w.send(f"{method} /api/v1/nodes HTTP/1.1\r\nHost: {c.host}\r\n\r\n")
        m = w.answer()
        assert m.status == 400 and b"https://" in m.body and m.get("Connection") == "close"
        assert w.is_closed()
        w.close()
    w = plain(c)
    w.send(b"\x00\x01 rubbish\n\n")
    assert w.is_closed()


def test_slow_and_half_handshakes_end(c):
    silent, begun, half = plain(c), plain(c), plain(c)
    begun.send(b"\x16")
    half.send(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"x" * 300)
    begin = time.monotonic()
    for w in (silent, begun, half):
        assert w.is_closed(15)
    assert 3 < time.monotonic() - begin < 12
    # Many of them do not keep others out.
    many = [plain(c) for _ in range(600)]
    for w in many:
        w.send(b"\x16\x03\x01")
    begin = time.monotonic()
    assert ask(c, "/api/v1/nodes").status == 200
    assert time.monotonic() - begin < 3
    for w in many:
        w.close()


def test_the_rules_of_http_hold_and_hosts_lead_nowhere_else(c):
    for bad in ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n", " folded: x\r\n"):
        assert ask(c, "/api/v1/nodes", bad).status == 400
    w = Wire(connect(c))
    w.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    assert w.answer().status in (401, 404)
    w.close()
    assert ask(c, "/api/v1/deploy", f"Content-Length: {13 << 20}\r\n", "POST").status == 413
    # And the other way: the front of the services never reaches the API.
    with socket.create_connection((c.address, c.ports["http"]), 5) as s:
        w = Wire(s)
        w.send(f"GET /api/v1/nodes HTTP/1.1\r\nHost: {c.host}\r\nAuthorization: Bearer {token(c)}\r\n\r\n")
        m = w.answer()
        assert m.status == 404 and b"orca-proxy" in m.body


def ctl(c, *args, home="far", check=True, **more):
    env = {**c.env, "ORCA_HOME": str(c.dir / home)}
    done = subprocess.run([str(BIN / "orcactl"), *args], env=env, capture_output=True, text=True, timeout=60, check=False, **more)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def context(c, name, url=None, ca=None):
    home = c.dir / "far"
    (home / "tokens").mkdir(parents=True, exist_ok=True)
    path = home / "config.json"
    config = json.loads(path.read_text()) if path.exists() else {"contexts": {}}
    config["contexts"][name] = {"url": url or f"https://{c.host}:{c.tls_port}", **({"ca": ca} if ca is not None else {})}
    path.write_text(json.dumps(config))
    (home / "tokens" / name).write_text(token(c))
    os.chmod(home / "tokens" / name, 0o400)


def test_orcactl_trusts_the_pinned_ca_and_no_other(c):
    context(c, "good", ca=c.ca.read_text())
    assert "n1" in ctl(c, "--context", "good", "nodes").stdout
    other = c.dir / "other"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-days", "1", "-keyout",
                    f"{other}.key", "-out", f"{other}.pem"], check=True, capture_output=True)
    context(c, "bad", ca=(c.dir / "other.pem").read_text())
    done = ctl(c, "--context", "bad", "nodes", check=False)
    assert done.returncode != 0 and "certificate" in done.stderr
    context(c, "none")
    done = ctl(c, "--context", "none", "nodes", check=False)
    assert done.returncode != 0 and "login" in done.stderr
    # The right CA, but not this name.
    relay = socket.create_server((c.address, 0))
    threading.Thread(target=relay_once, args=(relay, c), daemon=True).start()
    context(c, "name", url=f"https://{c.address.replace('127.', '127.', 1)}:{relay.getsockname()[1]}", ca=c.ca.read_text())
    assert ctl(c, "--context", "name", "nodes").returncode == 0  # the node's own address is one of its names
    relay.close()


def relay_once(listener, c):
    with contextlib.suppress(OSError):
        a, _ = listener.accept()
        b = socket.create_connection((c.host, c.tls_port))

        def pump(x, y):
            with contextlib.suppress(OSError):
                while data := x.recv(65536):
                    y.sendall(data)
                y.shutdown(socket.SHUT_WR)

        threading.Thread(target=pump, args=(a, b), daemon=True).start()
        pump(b, a)


def test_events_stream_for_long_and_the_apiserver_hears_who_asks(c):
    context(c, "good", ca=c.ca.read_text())
    follow = subprocess.Popen([str(BIN / "orcactl"), "--context", "good", "events", "-f"], env={**c.env, "ORCA_HOME": str(c.dir / "far")},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seen = []
    threading.Thread(target=lambda: seen.extend(iter(follow.stdout.readline, "")), daemon=True).start()
    time.sleep(1)
    set_listen(c, f"{c.host}:{c.tls_port}", text="[proxy]\ntrusted_proxies = [\"10.0.0.0/8\", \"172.16.0.0/12\"]")
    wait_for(lambda: seen, message="an event")
    assert follow.poll() is None
    # What a client says of where it comes from is dropped, also when [proxy] believes that address.
    assert ask(c, "/api/v1/nodes", "X-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n").status == 200
    follow.send_signal(signal.SIGINT)
    follow.wait(5)
    w = Wire(connect(c))
    w.send(f"GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer orca_wrong\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
    assert w.answer().status == 401
    w.close()
    wait_for(lambda: " via 127.0.0.1" in c.api("GET", "/api/v1/audit").text, message="the refusal is in the audit log, with the client's address")
    assert "9.9.9.9" not in c.api("GET", "/api/v1/audit").text


def test_large_bodies_and_websockets_pass(c):
    w = Wire(connect(c))
    body = b" " * (11 << 20)
    w.send(f"POST /api/v1/deploy HTTP/1.1\r\nHost: {c.host}\r\nAuthorization: Bearer {token(c)}\r\nContent-Type: application/json\r\n"
           f"Content-Length: {len(body)}\r\n\r\n")
    w.send(body)
    m = w.answer()
    assert m.status in (400, 422), m
    w.close()
    assert len(ask(c, "/api/v1/openapi.json").body) > 10000
    set_listen(c, f"{c.host}:{c.tls_port}")
    image = f"orca-test/tls:run-{os.getpid()}"
    busybox_image(image)
    try:
        c.deploy("shop", f'[[service]]\nname = "box"\nimage = "{image}"\npull = "never"\n')
        context(c, "good", ca=c.ca.read_text())
        text = "in and out\n" * 20000
        done = ctl(c, "--context", "good", "exec", "-i", "box", "--", "/bin/busybox", "sh", "-c", "/bin/busybox cat; exit 7", check=False, input=text)
        assert done.returncode == 7 and done.stdout == text, (done.returncode, done.stdout[-200:], done.stderr)
        c.ctl("rm", "box", "--yes", check=False)
    finally:
        docker("image", "rm", "-f", image, check=False)


def test_a_restart_keeps_the_certificate_and_connections(c):
    def serial():
        with connect(c) as s:
            return s.getpeercert()["serialNumber"]

    before = serial()
    w = Wire(connect(c))
    assert ask(c, "/api/v1/nodes", wire=w).status == 200
    pid = c.kill("proxy", signal.SIGTERM)
    wait_for(lambda: c.pid("proxy") != pid, message="another proxy")
    last = ask(c, "/api/v1/nodes", wire=w)  # in the process that drains
    assert last.status == 200 and last.get("Connection") == "close"
    assert serial() == before
    c.kill("proxy", signal.SIGKILL)
    wait_for(lambda: serial() == before, message="the cached certificate")


def test_another_address_has_its_certificate_and_what_is_connected_stays(c):
    others = [a for a in subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split() if "." in a and a != c.host]
    if not others:
        pytest.skip("one address only")
    before = Wire(connect(c))
    assert ask(c, "/api/v1/nodes", wire=before).status == 200
    serial = before.sock.getpeercert()["serialNumber"]
    set_listen(c, f"{c.host}:{c.tls_port}", f"{others[0]}:{c.tls_port}")
    trusting = ssl.create_default_context(cafile=c.ca)

    def there():
        with socket.create_connection((others[0], c.tls_port), 5) as raw, trusting.wrap_socket(raw, server_hostname=others[0]) as s:
            return s.getpeercert()["serialNumber"] != serial

    wait_for(there, message="the other address speaks TLS, and is named in the certificate")
    assert ask(c, "/api/v1/nodes", wire=before).status == 200
    before.close()
    assert ask(c, "/api/v1/nodes").status == 200
    set_listen(c, f"{c.host}:{c.tls_port}")


def test_what_is_not_ours_and_what_is_taken_is_said(c):
    with socket.create_server((c.host, 0)) as taken:
        port = taken.getsockname()[1]
        set_listen(c, f"{c.host}:{c.tls_port}", f"{c.host}:{port}", "192.0.2.7:6880")
        wait_for(lambda: "in use" in c.api("GET", "/api/v1/status").text, message="the fault is told")
        assert ask(c, "/api/v1/nodes").status == 200
    wait_for(lambda: connect(c, port).close() is None, message="it is tried again")
    set_listen(c, f"{c.host}:{c.tls_port}")
    wait_for(lambda: refused(c.host, port), message="it is closed")
    bad = c.ctl("-C", str(c.infra), "deploy", check=False) if not (c.infra / "cluster.toml").write_text(
        '[cluster]\nname = "test"\n[api]\nlisten = ["0.0.0.0:7777"]\ntls = true\n') else None
    assert bad is None or "must name an address" in bad.stderr + bad.stdout
    set_listen(c, f"{c.host}:{c.tls_port}")


def refused(host, port):
    with socket.socket() as s:
        return s.connect_ex((host, port)) != 0


def test_login_pins_the_ca(c):
    done = ctl(c, "login", f"{c.host}:{c.tls_port}", "--ca-hash", "0" * 64, home="third", check=False, input=token(c) + "\n")
    assert done.returncode != 0 and c.pin in done.stderr and not (c.dir / "third/config.json").exists()
    ctl(c, "login", f"{c.host}:{c.tls_port}", "--ca-hash", c.pin, "--context", "pinned", home="third", input=token(c) + "\n")
    as_openssl_says = ":".join(c.pin.removeprefix("sha256:").upper()[i:i + 2] for i in range(0, 64, 2))
    ctl(c, "login", f"{c.host}:{c.tls_port}", "--ca-hash", as_openssl_says, "--context", "pinned", home="third", input=token(c) + "\n")
    assert "n1" in ctl(c, "--context", "pinned", "nodes", home="third").stdout
    assert f"ca       sha256 {c.pin}\n" in ctl(c, "--context", "pinned", "version", home="third").stdout
    assert json.loads(ctl(c, "--context", "pinned", "version", "-o", "json", home="third").stdout)["ca_sha256"] == c.pin
    assert "sha256" not in c.ctl("version").stdout
