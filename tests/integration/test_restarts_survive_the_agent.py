"""An agent that is replaced goes on counting: how often an instance was started again, how it ended, and how long it waits."""
import time

from orca import APP, Cluster, wait_for


def test_a_crash_loop_goes_on_where_it_was():
    with Cluster() as c:
        c.deploy("shop", f'[[service]]\nname = "web"\nimage = "{APP}"\nentrypoint = ["/no-such-file"]\n'
                         '[service.deploy]\nauto_rollback = false\ntimeout = "1h"\n', "--no-wait")
        c.deploy("crash", f'[[service]]\nname = "loop"\nimage = "{APP}"\n[service.env]\nEXIT_AFTER_MS = "10"\n[service.deploy]\nauto_rollback = false\n', "--no-wait")
        before = wait_for(lambda: (i := c.instances("loop")[0]) and i["restarts"] >= 6 and i["state"] == "backoff" and i, 60, message="a crash loop")
        can_not = wait_for(lambda: (i := c.instances("web")[0]) and i["restarts"] >= 4 and i, 60, message="what can't be started")
        why = c.api("GET", "/api/v1/services/loop/explain").json()["instances"][0]["last_end"]
        c.kill("agent")
        began = time.monotonic()
        wait_for(lambda: c.log("agent").count("connected to a master") >= 2, 20, message="a new agent")
        # The pause doubles: 100 ms x 2^5 at least. An agent that had forgotten would be past five more starts in it.
        while time.monotonic() - began < 6:
            now = c.instances("loop")[0]
            assert now["restarts"] >= before["restarts"], (before, now)
            assert now["restarts"] <= before["restarts"] + 4, (before, now)
            assert c.instances("web")[0]["restarts"] >= can_not["restarts"]
            end = c.api("GET", "/api/v1/services/loop/explain").json()["instances"][0]["last_end"]
            assert end and end["by"] == why["by"], end
            time.sleep(0.1)
