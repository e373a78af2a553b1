"""Docker stopped and brought back beneath an agent: it says so, waits, adopts what is there, repairs the rest."""
from agent_node import IMAGE, Agent, make_image, service, wait_for
from private_docker import PrivateDocker


def test_docker_goes_away_and_comes_back():
    make_image()
    with PrivateDocker(pool=100) as d:
        d.load(IMAGE)
        with Agent(docker_socket=d.socket) as a:
            a.spec(service() + service("later"))
            a.assign("web")
            a.status("shop/web.1", phase="running")

            # A stop takes the containers along: they are back with it.
            mark = a.mark()
            d.stop()
            a.wait(lambda kind, v: kind == "node" and not v["docker_ok"] and v["docker_error"], since=mark)
            a.assign("later")
            assert "Docker" in a.status("shop/later.1", since=mark, phase="waiting")["reason"]
            assert a.agent.poll() is None
            mark = a.mark()
            d.start()
            a.wait(lambda kind, v: kind == "node" and v["docker_ok"], since=mark)
            a.status("shop/web.1", since=mark, phase="running", timeout=30)
            a.status("shop/later.1", since=mark, phase="running", timeout=30)
            wait_for(lambda: len(d.docker("ps", "-q").split()) == 2)

            # Once more, with the agent away meanwhile: whoever comes first, both run in the end.
            a.kill()
            d.restart()
            mark = a.mark()
            a.start()
            a.wait(lambda kind, v: kind == "node" and v["docker_ok"], since=mark)
            wait_for(lambda: len(d.docker("ps", "-q").split()) == 2, 30)
            for name in ("web", "later"):
                # Reached by its network, not only said to run.
                address = d.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", a.name(name))
                assert address
                wait_for(lambda: [s for s in a.all("status") if s["id"] == f"shop/{name}.1"][-1]["phase"] == "running")
                assert [s for s in a.all("status") if s["id"] == f"shop/{name}.1"][-1]["address"] == address
            for name in ("web", "later"):
                a.assign(name, desired="stop")
                a.gone(f"shop/{name}.1")


def test_agent_that_starts_without_docker(tmp_path):
    with Agent(docker_socket=str(tmp_path / "nothing.sock")) as a:
        node = a.wait(lambda kind, v: kind == "node" and v)
        assert not node["docker_ok"] and node["docker_error"]
        assert a.kill(15) == 0
