"""Images from a registry: pulled by policy, resolved to a digest once, with the credentials of docker login."""
import base64
import crypt
import json
import shutil
import socket
import subprocess

import pytest
from agent_node import IMAGE, Agent, docker, make_image, service, wait_for


@pytest.fixture
def registry(tmp_path):
    if not shutil.which("docker-registry"):
        pytest.skip("no docker-registry here")
    make_image()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (tmp_path / "htpasswd").write_text("orca:" + crypt.crypt("se?cret>>~", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n")
    (tmp_path / "config.yml").write_text(f"""version: 0.1
storage: {{ filesystem: {{ rootdirectory: {tmp_path}/data }} }}
http: {{ addr: "127.0.0.1:{port}" }}
auth: {{ htpasswd: {{ realm: test, path: {tmp_path}/htpasswd }} }}
""")
    name = f"127.0.0.1:{port}"
    process = subprocess.Popen(["docker-registry", "serve", str(tmp_path / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    auth = base64.b64encode(b"orca:se?cret>>~").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {name: {"auth": auth}}}))
    try:
        def push():
            docker("tag", IMAGE, f"{name}/app:1")
            docker("--config", str(tmp_path), "push", f"{name}/app:1")
            docker("rmi", f"{name}/app:1")
            return True
        wait_for(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
        push()
        yield name, tmp_path / "config.json"
    finally:
        process.kill()
        process.wait()
        if docker("images", "-q", f"{name}/app"):
            docker("rmi", "-f", f"{name}/app:1", check=False)


def test_pull_needs_credentials_and_resolves_to_a_digest(registry):
    name, config = registry
    with Agent() as a:
        a.spec(service().replace(IMAGE, f"{name}/app:1"))
        a.assign("web")
        assert "auth" in a.status("shop/web.1", phase="failed")["reason"]
        shutil.copy(config, a.dir / "config.json")
        a.status("shop/web.1", phase="running", timeout=30)
        image = a.wait(lambda kind, v: kind == "image" and v["image"])
        assert image.startswith(f"{name}/app@sha256:")
        assert "se?cret" not in (a.dir / "log").read_text()
        # The next instance gets what the revision was resolved to.
        a.send("assign", "shop", "web", 2, 1, 1, "run", image)
        a.status("shop/web.2", phase="running")
        assert a.inspect(a.name("web", 2))["Config"]["Image"] == image
        docker("rm", "-f", *a.containers())


def test_a_resolved_image_of_another_node_cannot_be_made_up(registry):
    name, _ = registry
    with Agent() as a:
        a.spec(service())
        a.send("assign", "shop", "web", 1, 1, 1, "run", "sha256:" + "a" * 64)
        assert "another node" in a.status("shop/web.1", phase="failed")["reason"]


def test_latest_is_pulled_and_a_local_build_stands_in(registry):
    name, _ = registry
    docker("tag", IMAGE, f"{name}/local:latest")
    try:
        with Agent() as a:
            a.spec(service().replace(IMAGE, f"{name}/local:latest") + service("forced").replace(IMAGE, f"{name}/local:latest").replace("stop_grace", 'pull = "always"\nstop_grace'))
            a.assign("web")
            a.status("shop/web.1", phase="running")
            assert a.wait(lambda kind, v: kind == "image" and v["image"]).startswith("sha256:")
            a.assign("forced")
            a.status("shop/forced.1", phase="failed")
    finally:
        docker("rmi", f"{name}/local:latest", check=False)
