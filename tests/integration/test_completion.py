"""orcactl's completion and manual: made from its command table, and good in the shells that are here."""
import pathlib
import shutil
import subprocess

import pytest
from orca import BIN

ORCACTL = str(BIN / "orcactl")


def offered(*words):
    done = subprocess.run([ORCACTL, "--complete", *words], check=True, capture_output=True, text=True, timeout=10)
    assert done.stderr == ""
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


def script(shell):
    return subprocess.run([ORCACTL, "completion", shell], check=True, capture_output=True, text=True).stdout


def test_verbs_and_options():
    assert {"deploy", "status", "scale", "init", "help"} <= set(offered(""))
    assert offered("depl") == ["deploy"]
    assert "--watch" in offered("status", "--") and "--context" in offered("status", "--") and "--to" not in offered("status", "--")
    assert offered("status", "--wa") == ["--watch"]
    assert offered("-o", "") == ["table", "wide", "json"] == offered("status", "--output", "")
    assert offered("completion", "") == ["bash", "fish", "zsh"] and offered("completion", "bash", "") == []
    assert offered("-C", "") == [":files"]
    assert "status" in offered("help", "") and offered("no-such-verb", "") == []
    assert "rotate-key" in offered("help", "secrets", "") and offered("help", "status", "") == []
    assert offered("token", "create", "--role", "") == ["admin", "deployer", "viewer"] and offered("install-service", "--role", "w") == ["worker"]
    assert offered("top", "--sort", "m") == ["memory"]
    assert offered("exec", "web", "ls", "-") == [":files"] == offered("exec", "web", "--", "-") and "--tty" in offered("exec", "web", "--")
    assert offered() == offered("")


def test_every_verb_is_in_the_manual(tmp_path):
    page = tmp_path / "orcactl.1"
    page.write_text(subprocess.run([ORCACTL, "--man"], check=True, capture_output=True, text=True).stdout)
    text = page.read_text().replace("\\-", "-")
    for verb in offered(""):
        assert f'.SS "orcactl {verb}' in text, verb
    if shutil.which("man"):
        done = subprocess.run(["man", "--warnings", "-l", "-Tutf8", "-P", "cat", str(page)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stderr == ""


def test_names_come_from_the_cluster(cluster):
    image = 'image = "unused:1"'
    cluster.deploy("shop", f'[[service]]\nname = "web"\n{image}\nreplicas = 0\n[[service]]\nname = "worker"\n{image}\nreplicas = 0\n', "--no-wait")

    def names(*words):
        return [line.split("\t")[0] for line in cluster.ctl("--complete", *words).stdout.splitlines()]

    assert sorted(names("scale", "")) == ["web", "worker"]
    assert names("scale", "wo") == ["worker"] and names("scale", "web", "") == []
    assert names("stop", "web", "wo") == ["worker"]
    assert names("scale", "shop/wo") == ["shop/worker"]
    cluster.ctl("secrets", "set", "password", "x")
    assert names("secrets", "rm", "") == ["password"] and "rotate-key" in names("secrets", "")
    assert names("token", "rm", "") == ["admin"]
    assert names("--context", "") == ["default"] == names("context", "use", "")

    # What is not found: the nearest, and where to look. A job's name is good wherever one may be meant.
    for words, said in ((("scale", "wbe", "1"), "Did you mean web? `orcactl status` lists what there is."), (("logs", "shop/workr"), "Did you mean shop/worker? `orcactl status`"),
                        (("ps", "wbe"), "service or job not found: wbe\nDid you mean web?"), (("secrets", "rm", "pasword", "-y"), "Did you mean password? `orcactl secrets list`"),
                        (("exec", "wbe", "ls", "-l"), "Did you mean web?"), (("token", "rm", "nobody", "-y"), "not found: nobody\n`orcactl token list` lists what there is.")):
        done = cluster.ctl(*words, check=False)
        assert done.returncode == 1 and said in done.stderr, (words, done)
    assert cluster.ctl("ps", "web", "-p", "other", check=False).returncode == 1 and cluster.ctl("ps", "web", "-p", "shop").stdout == "No instances.\n"
    cluster.kill("apiserver")
    assert names("scale", "") == []


def test_install_service_needs_systemd():
    if pathlib.Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here, and this test installs nothing")
    done = subprocess.run([ORCACTL, "install-service", "--role", "worker"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "systemd does not run this machine" in done.stderr
    printed = subprocess.run([ORCACTL, "install-service", "--role", "worker", "--print"], capture_output=True, text=True, check=True).stdout
    assert f"ExecStart={BIN}/orca-agent -c" in printed and "system/orca-store.service" not in printed
    assert subprocess.run([ORCACTL, "install-service", "--role", "king", "--print"], capture_output=True, check=False).returncode != 0


def test_bash(tmp_path):
    file = tmp_path / "orcactl.bash"
    file.write_text(script("bash"))
    subprocess.run(["bash", "-n", file], check=True)
    done = subprocess.run(["bash", "-c", f'source {file}; COMP_WORDS=({ORCACTL} depl); COMP_CWORD=1; _orcactl {ORCACTL} depl {ORCACTL}; echo "${{COMPREPLY[@]}}"'], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "deploy" and done.stderr == ""


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh(tmp_path):
    file = tmp_path / "_orcactl"
    file.write_text(script("zsh"))
    subprocess.run(["zsh", "-n", file], check=True)
    stub = f"compdef() {{ :; }}; _describe() {{ print -l ${{(P)2}}; }}; source {file}; words=({ORCACTL} depl); CURRENT=2; _orcactl"
    done = subprocess.run(["zsh", "-f", "-c", stub], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("deploy:make the cluster run") and done.stderr == ""


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
def test_fish(tmp_path):
    file = tmp_path / "orcactl.fish"
    file.write_text(script("fish"))
    done = subprocess.run(["fish", "--no-config", "-c", f"set -x PATH {BIN} $PATH; source {file}; complete -C 'orcactl depl'"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\t")[0] == "deploy" and done.stderr == ""
