"""A secret that is missing: it is said at once, by plan, deploy and status; the rollout waits for it, and nothing that ran stops."""
import time

import pytest
from orca import APP, Cluster, wait_for


@pytest.fixture
def cluster():
    with Cluster() as c:
        yield c


def service(secret, extra=""):
    return f'[[service]]\nname = "web"\nimage = "{APP}"\nport = 8080\n{extra}\n[service.env]\nURL = "{secret}"\n[service.deploy]\ntimeout = "3s"\nmin_ready = "0s"\n'


MISSING = "secret shop/DB_URL is missing: orcactl secrets set DB_URL --project shop"


def test_the_first_deploy_and_an_update(cluster):
    c = cluster
    c.write("shop", service("${secrets.DB_URL}"))
    plan = c.ctl("-C", str(c.infra), "plan")
    assert f"warning: {MISSING}\n" in plan.stderr
    began = time.monotonic()
    done = c.deploy("shop", service("${secrets.DB_URL}"), check=False)
    took = time.monotonic() - began
    assert done.returncode == 1 and took < 10, took
    assert done.stderr.count(MISSING) == 1 and MISSING in done.stdout and "goes on by itself" in done.stdout

    # For as long as that is what it waits for: longer than deploy.timeout.
    until = time.monotonic() + 5
    while time.monotonic() < until:
        one = c.service("web")["service"]
        assert one["status"] == "pending" and one["last_error"] == MISSING, one
        time.sleep(0.2)
    assert c.ctl("status").stdout.startswith("Not well: shop/web is pending: " + MISSING)
    c.ctl("secrets", "set", "DB_URL", "one", "--project", "shop")
    wait_for(lambda: c.ctl("status").stdout.startswith("All is well: 1 service, 1 of 1"), message="it runs")

    # An update: the old instance goes on.
    done = c.deploy("shop", service("${secrets.OTHER}"), check=False)
    assert done.returncode == 1 and "secret shop/OTHER is missing" in done.stderr
    assert "secrets set DB_URL" not in done.stderr
    old = c.running("shop/web")
    assert len(old) == 1
    time.sleep(4)
    assert "shop/web is pending: secret shop/OTHER is missing" in c.ctl("status").stdout
    assert [x["Id"] for x in c.running("shop/web")] == [x["Id"] for x in old]
    c.ctl("secrets", "set", "OTHER", "two", "--project", "shop")
    wait_for(lambda: c.ctl("status").stdout.startswith("All is well: 1 service, 1 of 1 instance ready\n"), message="the update completes")
    assert [x["Id"] for x in c.running("shop/web")] != [x["Id"] for x in old]
