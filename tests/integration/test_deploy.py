"""A spec becomes a running, probed, routed container, and an unchanged one changes nothing."""
import json

from orca import APP, wait_for

HELLO = f"""
[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
health = "/healthz"
[service.env]
TEXT = "one"
[service.deploy]
min_ready = "200ms"
"""


def ids(cluster, service):
    return sorted(c["Id"] for c in cluster.containers(service))


def test_a_deployed_service_answers_through_the_proxy(cluster):
    done = cluster.deploy("shop", HELLO)
    assert "web" in done.stdout
    assert cluster.get("web.test").text == "one\n"
    assert cluster.get("nobody.test").status == 404
    status = cluster.ctl("status").stdout
    assert "web" in status and "running" in status
    container = cluster.containers("shop/web")[0]
    assert container["HostConfig"]["RestartPolicy"]["Name"] in ("no", "")
    assert not any(container["HostConfig"]["PortBindings"] or {})
    assert container["Config"]["Labels"]["orca.cluster"] == cluster.id


def test_a_deploy_ends_when_the_proxy_has_its_route(cluster):
    for n in range(12):
        cluster.write("shop", HELLO.replace("web.test", f"web{n}.test").replace("200ms", "0s").replace('name = "web"', f'name = "web{n}"'))
        cluster.ctl("-C", str(cluster.infra), "deploy")
        assert cluster.get(f"web{n}.test").status == 200, n


def test_an_unchanged_deploy_touches_nothing(cluster):
    cluster.deploy("shop", HELLO)
    before = ids(cluster, "shop/web")
    reply = json.loads(cluster.ctl("-C", str(cluster.infra), "deploy", "-o", "json").stdout.strip().splitlines()[-1])
    assert reply
    assert ids(cluster, "shop/web") == before
    assert cluster.service("web")["service"]["revision"] == 1


def test_a_dry_run_says_what_would_change_and_changes_nothing(cluster):
    cluster.deploy("shop", HELLO)
    before = ids(cluster, "shop/web")
    cluster.write("shop", HELLO.replace('"one"', '"two"'))
    done = cluster.ctl("-C", str(cluster.infra), "deploy", "--dry-run")
    assert "two" in done.stdout
    assert ids(cluster, "shop/web") == before
    assert cluster.service("web")["service"]["revision"] == 1


def test_every_fault_is_told_with_its_place_and_nothing_changes(cluster):
    done = cluster.deploy("shop", '[[service]]\nname = "web"\nimage = "x"\nreplica = 3\nport = 99999\n[[service]]\nname = "Bad Name"\nimage = "y"\n', check=False)
    assert done.returncode == 1
    assert "service.toml:4:1" in done.stderr and "did you mean `replicas`" in done.stderr
    assert "service.toml:5:" in done.stderr and "service.toml:7:" in done.stderr
    assert cluster.api("GET", "/api/v1/status").json()["services"] == []


def test_scale_stop_start_restart_and_rm(cluster):
    cluster.deploy("shop", HELLO)
    cluster.ctl("scale", "web", "3")
    wait_for(lambda: len(cluster.running("shop/web")) == 3)
    # A deploy that leaves replicas as they were keeps what `scale` said.
    cluster.deploy("shop", HELLO)
    assert len(cluster.running("shop/web")) == 3
    cluster.ctl("scale", "web", "1")
    wait_for(lambda: len(cluster.containers("shop/web")) == 1)
    before = ids(cluster, "shop/web")
    cluster.ctl("restart", "web")
    wait_for(lambda: len(cluster.containers("shop/web")) == 1 and ids(cluster, "shop/web") != before)
    wait_for(lambda: cluster.get("web.test").status == 200)
    cluster.ctl("stop", "web")
    wait_for(lambda: not cluster.containers("shop/web"))
    cluster.ctl("start", "web")
    wait_for(lambda: len(cluster.running("shop/web")) == 1)
    cluster.ctl("--yes", "rm", "web")
    wait_for(lambda: not cluster.containers("shop/web"))


def test_redeploy_of_an_image_that_was_built_here_rolls_without_its_registry(cluster):
    cluster.deploy("shop", HELLO)
    before = ids(cluster, "shop/web")
    cluster.ctl("redeploy", "web")
    wait_for(lambda: len(cluster.containers("shop/web")) == 1 and ids(cluster, "shop/web") != before, 40)
    wait_for(lambda: (s := cluster.service("web")["service"])["revision"] == 2 and s["status"] == "running")


def test_files_from_the_infra_directory_reach_the_container_and_roll_it_when_they_change(cluster):
    config = cluster.infra / "services/shop/config"
    config.mkdir(parents=True)
    (config / "app.conf").write_text("first\n")
    spec = HELLO.replace('health = "/healthz"', 'health = "/healthz"\nmounts = ["./services/shop/config/app.conf:/etc/app.conf:ro"]')
    cluster.deploy("shop", spec)
    assert cluster.get("web.test", "/file?/etc/app.conf").text == "first\n"
    (config / "app.conf").write_text("second\n")
    cluster.deploy("shop", spec)
    wait_for(lambda: cluster.get("web.test", "/file?/etc/app.conf").text == "second\n")


def test_depends_on_waits_until_those_are_ready(cluster):
    spec = f"""
[[service]]
name = "db"
image = "{APP}"
port = 8080
health = "/healthz"
env = {{ READY_AFTER_MS = "1500" }}
[service.deploy]
min_ready = "100ms"
[[service]]
name = "api"
image = "{APP}"
depends_on = ["db"]
[service.deploy]
min_ready = "100ms"
"""
    cluster.write("shop", spec)
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    wait_for(lambda: cluster.running("shop/db"))
    assert not cluster.containers("shop/api")
    assert "db" in cluster.instances("api")[0]["reason"]
    wait_for(lambda: cluster.running("shop/api"), 15)
    db, api = cluster.containers("shop/db")[0], cluster.containers("shop/api")[0]
    assert db["State"]["StartedAt"] < api["State"]["StartedAt"]


def test_instances_find_each_other_by_name_in_their_project(cluster):
    cluster.deploy("shop", HELLO.replace('domain = "web.test"', 'domain = "web.test"\naliases = ["backend"]'))
    networks = cluster.containers("shop/web")[0]["NetworkSettings"]["Networks"]
    assert len(networks) == 1
    (network,) = networks.values()
    assert {"web", "backend"} <= set(network["Aliases"])
