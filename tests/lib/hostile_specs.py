"""More than 500 specs that nobody may run under the default [policy]: what would reach the host, another project, orca's own marks, or a shell.

`SPECS`: (label, spec as the API takes it, the key that the refusal names). `as_proto(spec)` is the same as a text of model.ServiceSpec, for who gets it
from a store or a master that let it through."""
import itertools
import json

IMAGE = "orca-test/app:1"

HOST_PATHS = [
    "/", "//", "/.", "/..", "/../..", "/etc", "/etc/", "/etc/shadow", "/etc/../etc/passwd", "/root", "/root/.ssh", "/home", "/proc", "/proc/1/root", "/proc/self/root",
    "/proc/sys/kernel/core_pattern", "/sys", "/sys/fs/cgroup", "/sys/kernel/security", "/dev", "/dev/sda", "/dev/mem", "/dev/kmsg", "/boot", "/lib/modules", "/usr", "/bin",
    "/var", "/var/run", "/var/run/docker.sock", "/run", "/run/docker.sock", "/run/../run/docker.sock", "//run//docker.sock", "/run/./docker.sock", "/run/containerd/containerd.sock",
    "/run/systemd", "/run/dbus/system_bus_socket", "/run/orca", "/run/orca/agent.sock", "/var/lib/docker", "/var/lib/docker/volumes", "/var/lib/orca", "/var/lib/orca/store",
    "/etc/orca", "/etc/orca/keys", "/etc/orca/keys/apiserver/master.key", "/tmp", "/var/tmp", "/mnt", "/opt/../etc", "/nonexistent", "/etc/cron.d", "/var/spool/cron",
]
CAPS = ["ALL", "SYS_ADMIN", "CAP_SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "SYS_CHROOT", "NET_ADMIN", "NET_RAW", "DAC_READ_SEARCH", "DAC_OVERRIDE",
        "MKNOD", "SETFCAP", "SETUID", "SETGID", "BPF", "PERFMON", "SYSLOG", "MAC_ADMIN", "MAC_OVERRIDE", "AUDIT_CONTROL", "IPC_LOCK", "CAP_NET_ADMIN", "cap_sys_admin", "sys_admin", "Sys_Admin",
        "CAP_ALL", "all"]
DEVICES = ["/dev/sda", "/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/null", "/dev", "/dev/", "/dev/../dev/sda", "/dev/sda:/dev/null", "/dev/sda:/x:rwm",
           "/dev/loop-control", "/dev/mapper/control", "/dev/vda:/dev/vda:r", "/etc/passwd", "/"]
# Docker's local driver hands these to mount(2).
VOLUMES = [
    {"type": "none", "o": "bind", "device": "/"}, {"type": "none", "o": "rbind", "device": "/etc"}, {"type": "bind", "o": "bind", "device": "/root"}, {"o": "bind", "device": "/"},
    {"type": "ext4", "device": "/dev/sda1"}, {"type": "xfs", "device": "/dev/vda1"}, {"type": "btrfs", "device": "/dev/sdb"}, {"type": "overlay", "o": "lowerdir=/,upperdir=/tmp/u,workdir=/tmp/w", "device": "overlay"},
    {"type": "proc", "device": "proc"}, {"type": "sysfs", "device": "sysfs"}, {"type": "cgroup", "device": "cgroup"}, {"type": "devtmpfs", "device": "udev"}, {"type": "debugfs", "device": "none"},
    {"type": "tmpfs", "o": "bind", "device": "/"}, {"type": "tmpfs", "o": "size=1m,bind", "device": "/etc"}, {"type": "nfs", "o": "bind", "device": "/etc"}, {"type": "nfs", "device": "/etc"},
    {"type": "cifs", "device": "/etc"}, {"type": "none", "o": "move", "device": "/"}, {"type": "none", "o": "remount,rw", "device": "/"}, {"TYPE": "none", "O": "bind", "DEVICE": "/"},
    {"Type": "none", "o": "bind", "Device": "/"}, {"type": "none", "o": "ro,bind", "device": "/var/run/docker.sock"}, {"type": "none", "o": "bind,ro", "device": "//"}, {"device": "/etc"},
    {"type": "squashfs", "device": "/tmp/x.img", "o": "loop"}, {"type": "fuse.sshfs", "device": "x"}, {"type": "9p", "device": "x"}, {"type": "none", "o": "bind", "device": "/proc/1/root"},
    {"type": "none", "o": "bind", "device": "/tmp/../etc"},
]
# Names: shell characters, line ends, escapes, paths, what is too long, what is not ASCII, what is ours.
NAMES = ["", " ", "a b", "a;b", "a|b", "a&b", "$(id)", "`id`", "a$b", "a\nb", "a\r\nb", "a\tb", "a\x00b", "a\x1b[31mb", "a/b", "../a", "a/../b", ".", "..", ".a", "a.", "-a", "a-", "A", "aB",
         "a_b", "a'b", 'a"b', "a\\b", "a*b", "a?b", "a[b]", "a{b}", "a<b", "a>b", "a!b", "a#b", "a%b", "a@b", "a:b", "a,b", "a=b", "a+b", "a~b", "a^b", "ä", "а", "a\u202eb", "a\u200bb", "\ufeffa",
         "a" * 64, "a" * 1000, "--privileged", "-v/:/x"]


def base(**more):
    return {"name": "evil", "project": "shop", "image": IMAGE, **more}


def _specs():
    yield "privileged", base(privileged=True), "privileged"
    yield "host network", base(network="host"), "network"
    for other in ("container:abc", "container:orca-x", "ns:/proc/1/ns/net", "HOST", "host ", " host", "ho\nst", "../host", "a b", "$(id)"):
        yield f"network {other!r}", base(network=other), "network"
    for path in HOST_PATHS:
        yield f"mount {path}", base(mounts=[{"source": path, "target": "/mnt", "read_only": True}]), "mounts"
        yield f"mount {path} short", base(mounts=[f"{path}:/mnt"]), "mounts"
    for path in ("../x", "../../etc/passwd", "./../x", "services/../../x", "a/../../b", "..", "./..", "services/shop/../../../etc", "a\nb", "a\x1bb"):
        yield f"mount of the infra directory {path!r}", base(mounts=[{"source": path, "target": "/mnt"}]), "mounts"
    for target in ("/", "//", "/.", "/..", "relative", "../x", "/a/../..", "/proc", "/proc/sys", "/sys", "/dev", "/a\nb", "/a\x1bb", "", ".", "/mnt:rw", "/proc/self", "//dev/shm", "/./sys/fs"):
        yield f"mount onto {target!r}", base(mounts=[{"source": "./services/shop/x", "target": target}]), "mounts"
        yield f"volume onto {target!r}", base(volumes=[{"source": "data", "target": target}]), "volumes"
    for cap in CAPS:
        yield f"cap {cap}", base(caps=[cap]), "caps"
    for cap in ("", " ", "SYS_ADMIN\n", "NOT_A_CAP", "SYS ADMIN", "SYS_ADMIN;id", "CAP_", "CAP_CAP_SYS_ADMIN"):
        yield f"cap {cap!r}", base(caps=[cap]), "caps"
    for device in DEVICES:
        yield f"device {device}", base(devices=[device]), "devices"
    for device in ("", "sda", "../dev/sda", "/dev/sda:", "/dev/sda::", "/dev/sda:/x:q", "/dev/a\nb", "/dev/a b:/x:rwmrwm"):
        yield f"device {device!r}", base(devices=[device]), "devices"
    for n, options in enumerate(VOLUMES):
        yield f"volume {n} {options.get('type', '')}", base(volumes=[{"source": "data", "target": "/data", "options": options}]), "volumes"
        yield f"volume {n} driver local", base(volumes=[{"source": "data", "target": "/data", "driver": "local", "options": options}]), "volumes"
    for n, source in enumerate(["/", "/etc", "/run/docker.sock", "../data", "a/b", "data\n", "da ta", "$(id)", "", ".", "..", "-v", "data;id", "DATA:rw", "orca\x1b", "a" * 300]):
        yield f"volume source {source[:20]!r} {n}", base(volumes=[{"source": source, "target": "/data"}]), "volumes"
    for driver in ("../x", "a b", "x\ny", "/run/plugin.sock", "$(id)"):
        yield f"volume driver {driver!r}", base(volumes=[{"source": "data", "target": "/data", "driver": driver}]), "volumes"
    for name in NAMES:
        yield f"name {name[:20]!r} of {len(name)}", base(name=name), "name"
        if name:
            yield f"project {name[:20]!r} of {len(name)}", base(project=name), "project"
        yield f"alias {name[:20]!r} of {len(name)}", base(aliases=[name]), "aliases"
    for key in ("orca.cluster", "orca.node", "orca.project", "orca.service", "orca.epoch", "orca.x", "com.docker.compose.project", "", "a b", "a\nb", "a\x1bb", "a=b"):
        yield f"label {key!r}", base(labels={key: "x"}), "labels"
    for key in ("", "A B", "A=B", "A\nB", "A\x00B", "=A", "1;A", "A\x1bB"):
        yield f"env {key!r}", base(env={key: "x"}), "env"
    for user in ("root\n", "a b", "0;id", "$(id)", "../x", "a:b:c", ":", "\x1b", "-1:-1"):
        yield f"user {user!r}", base(user=user), "user"
    for image in ("", " ", "a b", "a\nb", "-v", "--help", "../x", "/x", "x:", "x:y:z", "x@sha256:zz", "x@", "a;b", "$(id)", "`id`", "http://x/y", "X/Y", "a" * 300, "x\x1b[2J"):
        yield f"image {image[:20]!r}", base(image=image), "image"
    for signal in ("SIGFOO", "9; rm", "", "KILL\n", "999", "-9", "SIGTERM "):
        yield f"stop_signal {signal!r}", base(stop_signal=signal), "stop_signal"
    for domain in ("a b", "a\nb", "a/b", "-a.test", "a..b", "a.test:80", "http://a.test", "*", "a\x1b.test", "$(id).test", "a" * 300, "", ".", "a_b.test\r\nX: y"):
        yield f"domain {domain[:20]!r}", base(domain=domain, port=80), "domain"
    for ports in (["22:22:22"], ["0:80"], ["70000:80"], ["80"], ["a:b"], ["22:22/sctp"], ["127.0.0.1:22:22"], ["-1:1"], ["22:22\n"], ["1:1/tcp/udp"]):
        yield f"extra_ports {ports[0]!r}", base(extra_ports=ports), "extra_ports"
    for key, value in (("pid", "host"), ("ipc", "host"), ("uts", "host"), ("userns", "host"), ("cgroup_parent", "/"), ("security_opt", ["seccomp=unconfined"]), ("sysctls", {"kernel.x": "1"}),
                       ("volumes_from", ["x"]), ("devices_cgroup", ["a"]), ("runtime", "sysbox"), ("cap_add", ["ALL"]), ("group_add", ["docker"]), ("binds", ["/:/x"]), ("HostConfig", {"Privileged": True}),
                       ("Privileged", True), ("init", "/x"), ("tmpfs", ["/x"]), ("oom_score_adj", -1000), ("ulimits", ["nofile=1"]), ("extra_hosts", ["a:b"]), ("dns", ["1.1.1.1"])):
        yield f"unknown {key}", base(**{key: value}), key
    for pair in itertools.product((True, "true", 1, "yes", [True], {"a": 1}), ("privileged",)):
        if pair[0] is not True:
            yield f"privileged {pair[0]!r}", base(privileged=pair[0]), "privileged"
    for field, value in (("workdir", "relative"), ("workdir", "/a\nb"), ("workdir", "../x"), ("hostname", "x"), ("network", "other project/x"), ("depends_on", ["../x"]), ("depends_on", ["a b"]),
                         ("host_port", -1), ("host_port", 70000), ("port", 0), ("replicas", -1), ("replicas", 10 ** 9), ("resources", {"memory": "-1"}), ("resources", {"pids": -1}),
                         ("secret_files", ["../x"]), ("secret_files", ["a/b"]), ("secret_files", ["a\nb"]), ("secret_files", [""]), ("command", [""]), ("command", "rm -rf /"), ("entrypoint", "sh -c id")):
        yield f"{field} {value!r}", base(**{field: value}), field


# `command = [""]` and names of depends_on that don't exist are told at other places; what every way in must refuse is here.
SPECS = [s for s in _specs() if s[1].get("command") != [""]]
assert len(SPECS) >= 500, len(SPECS)
assert len({label for label, _, _ in SPECS}) == len(SPECS)


def _quote(text):
    return '"' + "".join(f"\\{b:03o}" if b < 32 or b > 126 or b in b'"\\' else chr(b) for b in text.encode()) + '"'


def as_proto(spec):
    """model.ServiceSpec as text; None when a field has no place in it (then only what people write can be refused)."""
    out = []
    for key, value in spec.items():
        if key in ("name", "project", "image", "user", "network", "workdir", "stop_signal") and isinstance(value, str):
            out.append(f"{key}: {_quote(value)}")
        elif key == "privileged" and isinstance(value, bool):
            out.append(f"privileged: {json.dumps(value)}")
        elif key in ("devices", "caps", "aliases", "secret_files", "command", "depends_on") and isinstance(value, list):
            out += [f"{key}: {_quote(v)}" for v in value]
        elif key in ("labels", "env") and isinstance(value, dict):
            out += [f"{key} {{ key: {_quote(k)} value: {_quote(v)} }}" for k, v in value.items()]
        elif key == "domain":
            out.append(f"domains: {_quote(value)}")
        elif key in ("port", "host_port", "replicas") and 0 <= value < 2 ** 32:
            out.append(f"{key}: {value}")
        elif key == "mounts" and all(isinstance(m, dict) for m in value):
            out += [f"mounts {{ source: {_quote(m['source'])} target: {_quote(m['target'])} read_only: {json.dumps(m.get('read_only', False))} }}" for m in value]
        elif key == "volumes":
            for v in value:
                options = "".join(f" options {{ key: {_quote(k)} value: {_quote(o)} }}" for k, o in v.get("options", {}).items())
                driver = f" driver: {_quote(v['driver'])}" if "driver" in v else ""
                out.append(f"volumes {{ source: {_quote(v['source'])} target: {_quote(v['target'])}{driver}{options} }}")
        else:
            return None
    return " ".join(out)
