"""What orcactl says to who uses it wrongly, without any cluster: what is wrong, and what to do."""
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import termios

from orca import BIN

ORCACTL = str(BIN / "orcactl")


def orcactl(home, *args, **more):
    env = {**os.environ, "ORCA_HOME": str(home), "LC_ALL": "C.UTF-8"}
    for name in ("ORCA_DIR", "ORCA_CONTEXT"):
        env.pop(name, None)
    return subprocess.run([ORCACTL, *args], capture_output=True, text=True, env=env, timeout=20, check=False, cwd=home, **more)


def test_nothing_asked_shows_everything(tmp_path):
    alone = orcactl(tmp_path)
    assert alone.returncode == 2 and alone.stdout == orcactl(tmp_path, "--help").stdout and "  deploy [NAME...] " in alone.stdout
    assert "want one of list, run" in orcactl(tmp_path, "job", "ls").stderr
    assert "Usage: orcactl token create [options]; " in orcactl(tmp_path, "token", "create").stderr


def test_help_fits_a_narrow_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    for verb in ("--help", "exec", "logs", "secrets", "init"):
        subprocess.run([ORCACTL, *([verb] if verb == "--help" else [verb, "--help"])], stdout=theirs, check=True, timeout=20, cwd=tmp_path)
        text = b""
        while b"what a verb does" not in text or not text.endswith(b"\n"):
            text += os.read(ours, 65536)
        lines = [line for line in text.decode().splitlines() if len(line) > 60]
        assert not lines, lines
    os.close(ours)
    os.close(theirs)


def test_init_says_what_is_in_its_way(tmp_path):
    other = orcactl(tmp_path, "init", "--root", "node", "--address", "192.0.2.10")
    assert other.returncode == 1 and "no address of this machine" in other.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = orcactl(tmp_path, "init", "--root", "node", "--address", "127.0.0.1", "--http-port", port)
        assert refused.returncode == 1 and "is taken on 127.0.0.1: " in refused.stderr and "--free-ports" in refused.stderr
    assert not (tmp_path / "node/node.toml").exists()


def test_init_leaves_the_context_of_a_cluster_elsewhere(tmp_path):
    home = tmp_path / ".orca"
    (home / "tokens").mkdir(parents=True)
    (home / "config.json").write_text(json.dumps({"current": "default", "contexts": {"default": {"url": "https://10.0.0.1:6880", "ca": "x"}}}))
    (home / "tokens/default").write_text("orca_far")
    refused = subprocess.run([ORCACTL, "init", "--root", "node", "--free-ports"], cwd=tmp_path, env={**os.environ, "ORCA_HOME": str(home)}, capture_output=True,
                             text=True, check=False, timeout=20)
    assert refused.returncode == 1 and "context default leads to https://10.0.0.1:6880: " in refused.stderr and "--context NAME" in refused.stderr
    assert (home / "tokens/default").read_text() == "orca_far" and not (tmp_path / "node/node.toml").exists()


def test_an_infra_directory_that_is_none(tmp_path):
    (tmp_path / "empty").mkdir()
    refused = orcactl(tmp_path, "-C", "empty", "plan")
    assert refused.returncode == 2 and refused.stderr.startswith("orcactl: empty is no infra directory: it has neither cluster.toml nor services/\n")
    assert "no cluster.toml in this folder" in orcactl(tmp_path, "plan").stderr
    (tmp_path / "empty/services/shop").mkdir(parents=True)
    (tmp_path / "empty/services/shop/service.toml").write_text('[[service]]\nname = "x"\nimage = "x"\nprot = 1\n')
    assert orcactl(tmp_path, "-C", "empty", "plan").stderr == "services/shop/service.toml:4:1: service[0].prot: unknown key: did you mean `port`?\norcactl: 1 fault in empty: nothing was changed\n"


def test_doctor_without_a_cluster(tmp_path):
    done = orcactl(tmp_path, "doctor")
    assert done.returncode == 1 and "✗ no cluster is known here yet: `orcactl login HOST`" in done.stdout and "systemctl" not in done.stdout
    env = {**os.environ, "ORCA_HOME": str(tmp_path), "LC_ALL": "C"}
    assert "  x no cluster" in subprocess.run([ORCACTL, "doctor"], capture_output=True, text=True, env=env, check=False).stdout
    assert orcactl(tmp_path, "context", "list").stdout.startswith("No cluster is known here yet")


def test_contexts_and_logins_that_lead_nowhere(tmp_path):
    assert orcactl(tmp_path, "login", "127.0.0.1", stdin=subprocess.DEVNULL).stderr == "orcactl: no token was given\n"
    nobody = orcactl(tmp_path, "login", "127.0.0.1:1", input="orca_x\n")
    assert nobody.returncode == 3 and "`[api]` of the cluster's cluster.toml says where it listens" in nobody.stderr and "systemctl" not in nobody.stderr
    for blind in (("--yes",), ()):  # which CA is right nobody has said
        done = orcactl(tmp_path, *blind, "login", "192.0.2.1", input="orca_x\n")
        assert done.returncode == 2 and "give --ca-hash sha256:" in done.stderr and "needs --yes" not in done.stderr
    (tmp_path / "config.json").write_text('{"contexts": {"one": {"url": "http://127.0.0.1:1"}, "two": {"url": "http://127.0.0.1:2"}}}')
    (tmp_path / "config.json").chmod(0o600)
    none = orcactl(tmp_path, "status")
    assert none.returncode == 1 and "no context is the current one: `orcactl context use NAME`" in none.stderr
    assert json.loads(orcactl(tmp_path, "context", "use", "two", "-o", "json").stdout) == {"current": "two"}
    assert json.loads(orcactl(tmp_path, "context", "rm", "two", "-o", "json").stdout) == {"removed": ["two"]}
