"""What is wrong between services, by the policy or with what is deployed already is told at the line and column of the key."""
from orca import APP, Cluster


def test_file_line_and_column():
    with Cluster() as c:
        c.write("shop", f'[[service]]\nname = "web"\nimage = "{APP}"\n  depends_on = ["nobody"]\n\n[[job]]\nname = "late"\nimage = "{APP}"\nprivileged = true\n')
        done = c.ctl("-C", str(c.infra), "deploy", check=False)
        assert done.returncode != 0
        assert "services/shop/service.toml:4:3: " in done.stderr, done.stderr
        assert "services/shop/service.toml:9:1: " in done.stderr, done.stderr
        # What only the server knows: the name is a service's there.
        c.deploy("shop", f'[[service]]\nname = "web"\nimage = "{APP}"\n', "--no-wait")
        c.write("shop", f'[[service]]\nname = "other"\nimage = "{APP}"\n[[job]]\nname = "late"\nimage = "{APP}"\n[[job]]\nimage = "{APP}"\nname = "web"\n')
        for verb in ("plan", "deploy"):
            done = c.ctl("-C", str(c.infra), verb, check=False)
            assert done.returncode != 0 and "services/shop/service.toml:9:1: shop/web: name: " in done.stderr, done.stderr
        done = c.ctl("-C", str(c.infra), "deploy", "web", check=False)
        assert "services/shop/service.toml:9:1: shop/web: name: " in done.stderr, done.stderr
