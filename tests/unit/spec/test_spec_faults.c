/* What people get wrong in service.toml, cluster.toml and node.toml, and what they are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/spec/node_config.h"
#include "common/spec/spec.h"
#include "common/spec/spec_set.h"
#include "tests/unit/spec/faults.h"

struct sample {
  const char *text, *faults;
};

#define OK "[[service]]\nname = \"a\"\nimage = \"i:1\"\n"

static const struct sample services[] = {
    {OK, ""},
    {"", ""},
    {OK "runtime = \"docker\"\non_partition = \"keep\"\n", ""},
    {OK "privileged = false\ndevices = []\ncaps = []\n", ""},
    {OK "replica = 3", "f:4:1: service[0].replica: unknown key: did you mean `replicas`?"},
    {OK "repilcas = 3", "f:4:1: service[0].repilcas: unknown key: did you mean `replicas`?"},
    {OK "memory = \"1Gi\"", "f:4:1: service[0].memory: unknown key: `memory` belongs into `resources`"},
    {OK "zzzzzzzz = 1", "f:4:1: service[0].zzzzzzzz: unknown key"},
    {OK "\"x y\" = 1", "f:4:1: service[0].\"x y\": unknown key"},
    {"servce = []", "f:1:1: servce: unknown key: did you mean `service`?"},
    {"[service]\nname = \"a\"", "f:1:1: service: expected an array of tables: write [[service]]"},
    {"[[service]]\nname = \"a\"", "f:1:1: service[0]: `image` is missing"},
    {"[[service]]", "f:1:1: service[0]: `name` is missing\nf:1:1: service[0]: `image` is missing"},
    {"[[service]]\nname = \"A\"\nimage = 3", "f:2:8: service[0].name: must be 1 to 63 small letters, digits and -, with no - at either end\n"
                                             "f:3:9: service[0].image: expected a string, found an integer"},
    {OK "replicas = -1", "f:4:12: service[0].replicas: must be between 0 and 10000"},
    {OK "replicas = \"auto\"", "f:4:12: service[0].replicas: not supported yet: replicas = \"auto\""},
    {OK "replicas = 1.0", "f:4:12: service[0].replicas: expected an integer, found a float"},
    {OK "port = 70000", "f:4:8: service[0].port: must be between 1 and 65535"},
    {OK "port = \"80\"", "f:4:8: service[0].port: expected an integer, found a string"},
    {OK "runtime = \"wasm\"", "f:4:11: service[0].runtime: not supported yet: runtime = \"wasm\""},
    {OK "runtime = \"containre\"", "f:4:11: service[0].runtime: must be \"container\": did you mean \"container\"?"},
    {OK "on_partition = \"stop\"", "f:4:16: service[0].on_partition: not supported yet: on_partition = \"stop\""},
    {OK "[service.deploy]\nstrategy = \"canry\"", "f:5:12: service[0].deploy.strategy: must be one of \"rolling\", \"recreate\""},
    {OK "restart = \"sometimes\"", "f:4:11: service[0].restart: must be one of \"always\", \"on-failure\", \"never\""},
    {OK "node_port = 30080", "f:4:1: service[0].node_port: not supported yet: node_port"},
    {OK "anchor = \"db\"", "f:4:1: service[0].anchor: not supported yet: anchor"},
    {OK "internal = true", "f:4:1: service[0].internal: not supported yet: internal"},
    {OK "tls_cert = \"x\"\ntls_key = \"y\"",
     "f:4:1: service[0].tls_cert: not supported yet: tls_cert\nf:5:1: service[0].tls_key: not supported yet: tls_key"},
    {OK "secret_files = [\"DB\", \"1X\", \"a/b\", \"DB\"]",
     "f:4:16: service[0].secret_files: DB is named twice\n"
     "f:4:23: service[0].secret_files[1]: must be a name of a secret: a letter or _, then letters, digits, _ . -\n"
     "f:4:29: service[0].secret_files[2]: must be a name of a secret: a letter or _, then letters, digits, _ . -"},
    {OK "secret_files = [\"DB\"]\nmounts = [\"./a:/run/secrets/x\"]",
     "f:4:16: service[0].secret_files: a mount or volume has /run/secrets/x: secrets are there"},
    {OK "user = \"${secrets.U}\"\nlabels = { a = \"${secrets.A}\" }",
     "f:4:8: service[0].user: ${secrets.U} is not for here: a secret is a value of `env`, or named in `secret_files`\n"
     "f:5:16: service[0].labels.a: ${secrets.A} is not for here: a secret is a value of `env`, or named in `secret_files`"},
    {OK "module = \"x\"\ntriggers = []",
     "f:4:1: service[0].module: not supported yet: module\nf:5:1: service[0].triggers: not supported yet: triggers"},
    {OK "[service.scale]\nmin = 1", "f:4:10: service[0].scale: not supported yet: scale"},
    {OK "[service.backup]\n[service.build]\n[service.wasm]",
     "f:4:10: service[0].backup: not supported yet: backup\n"
     "f:5:10: service[0].build: not supported yet: build\nf:6:10: service[0].wasm: not supported yet: wasm"},
    {OK "[[service.containers]]\n[[service.assets]]",
     "f:4:11: service[0].containers: not supported yet: containers\nf:5:11: service[0].assets: not supported yet: assets"},
    {"[[job]]\nname = \"x\"", "f:1:1: job[0]: `image` is missing"},
    {OK "[service.proxy]\nsticky = true\nheaders = {}\ntimeout = \"60s\"\nmax_body = \"1Mi\"",
     "f:5:1: service[0].proxy.sticky: not supported yet: sticky\nf:6:1: service[0].proxy.headers: not supported yet: headers"},
    {OK "[service.deploy]\nstrategy = \"canary\"\ncanary_weight = 20",
     "f:5:12: service[0].deploy.strategy: not supported yet: strategy = \"canary\"\n"
     "f:6:1: service[0].deploy.canary_weight: not supported yet: canary_weight"},
    {OK "[service.deploy]\nstrategy = \"blue-green\"", "f:5:12: service[0].deploy.strategy: not supported yet: strategy = \"blue-green\""},
    {OK "[service.deploy]\nmax_surge = 0",
     "f:5:13: service[0].deploy.max_surge: 0 needs a `max_unavailable` of at least 1: otherwise no instance could ever be replaced"},
    {OK "[service.deploy]\nmax_surge = 0\nmax_unavailable = 1", ""},
    {OK "[service.deploy]\ntimeout = \"5\"", "f:5:11: service[0].deploy.timeout: a duration is written like \"500ms\", \"30s\", \"5m\", \"2h\""},
    {OK "[service.deploy]\ntimeout = 5", "f:5:11: service[0].deploy.timeout: expected a duration like \"30s\", found an integer"},
    {OK "[service.deploy]\ntimeout = \"10ms\"", "f:5:11: service[0].deploy.timeout: must be between 1s and 8760h"},
    {OK "[service.deploy]\nauto_rollback = \"yes\"", "f:5:17: service[0].deploy.auto_rollback: expected true or false, found a string"},
    {OK "deploy = 3", "f:4:10: service[0].deploy: expected a table, found an integer"},
    {OK "[service.resources]\nmemory = \"512\"\n", "f:5:10: service[0].resources.memory: must be between 6Mi and 1024Ti"},
    {OK "[service.resources]\nmemory = \"1Qi\"\n",
     "f:5:10: service[0].resources.memory: a size is written like \"512Mi\", \"1Gi\", \"512M\", or as a number of bytes"},
    {OK "[service.resources]\nmemory = -1\n",
     "f:5:10: service[0].resources.memory: expected a size like \"512Mi\" or a number of bytes, found an integer"},
    {OK "[service.resources]\nmemory = \"64Mi\"\nmemory_request = \"128Mi\"",
     "f:6:18: service[0].resources.memory_request: must not be more than `memory`"},
    {OK "[service.resources]\ncpu = 0\n", "f:5:7: service[0].resources.cpu: must be between 0.01 and 1024"},
    {OK "[service.resources]\ncpu = nan\n", "f:5:7: service[0].resources.cpu: must be between 0.01 and 1024"},
    {OK "[service.resources]\ncpu = \"1\"\n", "f:5:7: service[0].resources.cpu: expected a number of cores, found a string"},
    {OK "[service.resources.gpu]\nvendor = \"intel\"", "f:5:10: service[0].resources.gpu.vendor: must be one of \"nvidia\", \"amd\""},
    {OK "domain = \"*.example.com\"\nport = 80", "f:4:10: service[0].domain: must be an exact name: wildcards are not allowed"},
    {OK "domain = \"Example.com\"\nport = 80", "f:4:10: service[0].domain: must be a domain name in small letters, like \"shop.example.com\""},
    {OK "domain = \"10.0.0.1\"\nport = 80", "f:4:10: service[0].domain: must be a name, not an address"},
    {OK "domain = \"a.b\"\ndomains = [\"c.d\"]\nport = 80", "f:4:10: service[0].domain: is short for `domains`: write only one of the two"},
    {OK "domains = [\"a.b\", \"a.b\"]\nport = 80", "f:4:11: service[0].domains: a.b is named twice"},
    {OK "domain = \"localhost\"\nport = 80", ""},
    {OK "domain = \"hello.localhost\"\nport = 80", ""},
    {OK "domain = \"a.b\"", "f:4:10: service[0].domain: needs a `port` to send requests to"},
    {OK "routes = [\"api\", \"/a*b\", \"/x y\", \"/ok/*\"]\nport = 80\ndomain = \"a.b\"",
     "f:4:11: service[0].routes[0]: must begin with /\nf:4:18: service[0].routes[1]: may have a * only at its end\n"
     "f:4:26: service[0].routes[2]: must be a path: no spaces, ? or #"},
    {OK "routes = \"/x\"", "f:4:10: service[0].routes: expected an array of strings, found a string"},
    {OK "routes = [\"/x\"]\nstrip_prefix = true",
     "f:4:10: service[0].routes: needs a `domain` whose paths they are\nf:5:16: service[0].strip_prefix: needs a `domain`, and `routes`"},
    {OK "routes = []\nstrip_prefix = false\ndomains = []", ""},
    {OK "network = \"host\"\nport = 80\nhost_port = 80\nextra_ports = [\"1:2\"]\naliases = [\"b\"]",
     "f:6:13: service[0].host_port: has no effect with network = \"host\": `port` is the node's\n"
     "f:7:15: service[0].extra_ports: has no effect with network = \"host\": its ports are the node's\n"
     "f:8:11: service[0].aliases: has no effect with network = \"host\": there are no names on it"},
    {OK "volumes = [{ source = \"a\", target = \"/a\", size = \"1Gi\" }]", "f:4:43: service[0].volumes[0].size: not supported yet: size"},
    {OK "host_port = 80", "f:4:13: service[0].host_port: needs a `port` to lead to"},
    {OK "health = \"/h\"", "f:4:10: service[0].health: needs a `port`"},
    {OK "health = \"h\"\nport = 80", "f:4:10: service[0].health: must be a path that begins with /, without spaces"},
    {OK "extra_ports = [\"22\", \"1:2/sctp\", \"0:1\", \"1:65536\", \"1:1\"]",
     "f:4:16: service[0].extra_ports[0]: must be HOST:CONTAINER or HOST:CONTAINER/udp, ports between 1 and 65535\n"
     "f:4:22: service[0].extra_ports[1]: must be HOST:CONTAINER or HOST:CONTAINER/udp, ports between 1 and 65535\n"
     "f:4:34: service[0].extra_ports[2]: must be HOST:CONTAINER or HOST:CONTAINER/udp, ports between 1 and 65535\n"
     "f:4:41: service[0].extra_ports[3]: must be HOST:CONTAINER or HOST:CONTAINER/udp, ports between 1 and 65535"},
    {OK "extra_ports = [\"53:53\", \"53:53/udp\", \"53:54\"]", "f:4:15: service[0].extra_ports: port 53 of the node is named twice"},
    {OK "depends_on = [\"db\", \"x/y\", \"X\", \"a/b/c\"]",
     "f:4:28: service[0].depends_on[2]: must be NAME or PROJECT/NAME\nf:4:33: service[0].depends_on[3]: must be NAME or PROJECT/NAME"},
    {OK "stop_signal = \"SIGFOO\"", "f:4:15: service[0].stop_signal: must be a signal's name, like \"SIGTERM\""},
    {OK "workdir = \"srv\"", "f:4:11: service[0].workdir: must be an absolute path"},
    {OK "labels = { \"orca.x\" = \"1\", ok = \"2\", n = 3 }",
     "f:4:12: service[0].labels.\"orca.x\": the name labels that begin with orca. are orca's own\n"
     "f:4:42: service[0].labels.n: expected a string (in quotes), found an integer"},
    {OK "[service.env]\n1X = \"a\"\nY = 8080\n\"A-B\" = \"\"",
     "f:5:1: service[0].env.1X: the name must be letters, digits and _, not beginning with a digit\n"
     "f:6:5: service[0].env.Y: expected a string (in quotes), found an integer\n"
     "f:7:1: service[0].env.A-B: the name must be letters, digits and _, not beginning with a digit"},
    {OK "[service.env]\nA = \"${secrets.D B}\"\nB = \"$${x}\"\nC = \"${env.HOME}\"\nD = \"${foo}\"\nE = \"${\"",
     "f:5:5: service[0].env.A: `${secrets.D B}` is neither ${env.NAME} nor ${secrets.NAME}; a literal ${ is written $${\n"
     "f:8:5: service[0].env.D: `${foo}` is neither ${env.NAME} nor ${secrets.NAME}; a literal ${ is written $${\n"
     "f:9:5: service[0].env.E: `${` is neither ${env.NAME} nor ${secrets.NAME}; a literal ${ is written $${"},
    {OK "user = \"a\\u0000b\"", "f:4:8: service[0].user: must not contain U+0000"},
    {OK "mounts = [\"./a:/b:ro\", \"x\", \"./a:b\", \"../x:/y\", \"a/../../b:/z\", \"/h/../x:/w\"]",
     "f:4:24: service[0].mounts[1]: must be \"SOURCE:/TARGET\" or \"SOURCE:/TARGET:ro\"\n"
     "f:4:29: service[0].mounts[2].target: must be an absolute path\n"
     "f:4:38: service[0].mounts[3].source: must not lead out of the infra directory\n"
     "f:4:49: service[0].mounts[4].source: must not lead out of the infra directory\n"
     "f:4:65: service[0].mounts[5].source: must not contain .."},
    {OK "[[service.mounts]]\nsource = \"x\"\ntarget = \"/\"\nreadonly = true",
     "f:6:10: service[0].mounts[0].target: must not be the container's root\n"
     "f:7:1: service[0].mounts[0].readonly: unknown key: did you mean `read_only`?"},
    {OK "[[service.volumes]]\nsource = \"/data\"\ntarget = \"/x\"",
     "f:5:10: service[0].volumes[0].source: must be a volume's name: paths belong into `mounts`"},
    {OK "volume = \"data:/data\"", ""},
    {OK "volumes = [\"data:/data:ro\"]\nmounts = [\"./x:/data\"]", "f:4:11: service[0].volumes: two of them have the target /data"},
    {OK "[service.readiness]\ninterval_secs = 5", "f:4:1: service[0].readiness: a way of probing is missing: path, tcp = true, or exec"},
    {OK "[service.readiness]\npath = \"/\"\ntcp = true\nport = 1",
     "f:4:1: service[0].readiness: exactly one way of probing: path, tcp = true, or exec"},
    {OK "[service.liveness]\ngrpc = \"x\"", "f:5:1: service[0].liveness.grpc: not supported yet: grpc"},
    {OK "[service.liveness]\nexec = []", "f:5:8: service[0].liveness.exec: must name a program"},
    {OK "[service.liveness]\nexec = [\"true\"]", ""},
    {OK "[service.liveness]\nexec = [\"true\"]\nport = 80", "f:6:8: service[0].liveness.port: has no effect with `exec`"},
    {OK "port = 80\nhealth = \"/h\"\n[service.liveness]\ntcp = true\n[service.readiness]\ntcp = true",
     "f:5:10: service[0].health: has no effect beside [service.readiness] and [service.liveness], which it is short for"},
    {OK "[service.startup]\ntcp = true", "f:4:1: service[0].startup: needs a `port`, its own or the service's"},
    {OK "[service.startup]\ntcp = true\nport = 3", ""},
    {OK "[service.readiness]\npath = \"/\"\ninterval_secs = 0\nport = 1\ntimeout = 3",
     "f:6:17: service[0].readiness.interval_secs: must be between 1 and 86400\nf:8:1: service[0].readiness.timeout: unknown key: did you mean "
     "`timeout_secs`?"},
    {OK "[service.placement]\navoid = \"batch\"\nspread = \"zone\"",
     "f:5:9: service[0].placement.avoid: expected an array of strings, found a string"},
    {OK "devices = [\"/etc/passwd\", \"/dev/../x\"]\ncaps = [\"net_admin\"]",
     "f:4:12: service[0].devices[0]: must be a device below /dev, as HOST[:CONTAINER[:rwm]]\n"
     "f:4:27: service[0].devices[1]: must be a device below /dev, as HOST[:CONTAINER[:rwm]]\nf:5:9: service[0].caps[0]: must be a capability's name, "
     "like \"NET_ADMIN\""},
    {OK "image = \"x\"", "f:4:1: `image` is defined already, in line 3"},
    {OK "port = \n[[service]]\nnam = \"b\"\n", "f:4:8: a value is missing\nf:6:1: service[1].nam: unknown key: did you mean `name`?"},
};

static const struct sample clusters[] = {
    {"", ""},
    {"[cluster]\nname = \"p\"\nlog_level = \"info\"\nnode_ttl = \"1s\"\n[api]\nlisten = [\"127.0.0.1:6880\"]\ntls = false\n"
     "[[node]]\nname = \"n1\"\nlabels = { zone = \"eu-1\" }\n[[node.gpus]]\nvendor = \"nvidia\"\ncount = 2\nmodel = \"A100\"\n"
     "[proxy]\nhttp_port = 80\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n[logs]\nmax_size = \"10Mi\"\nmax_files = 3\n"
     "[policy]\nallow_privileged = false\nallow_host_network = false\nallow_devices = []\nallow_host_paths = [\"/srv\"]\nallow_caps = []\n",
     ""},
    {"[acme]\nemail = \"x\"\n[backup]\n[rebalance]\n[gc]\n[observability]\n[ai]\n[network]\n",
     "f:1:2: acme: not supported yet: acme\nf:3:2: backup: not supported yet: backup\nf:4:2: rebalance: not supported yet: rebalance\nf:5:2: gc: not "
     "supported yet: gc\n"
     "f:6:2: observability: not supported yet: observability\nf:7:2: ai: not supported yet: ai\nf:8:2: network: not supported yet: network"},
    {"[cluster]\ndomain = \"example.com\"\n[proxy]\nhttps_port = 443",
     "f:2:1: cluster.domain: not supported yet: domain\nf:4:1: proxy.https_port: not supported yet: https_port"},
    {"[cluster]\nacme_email = \"x\"\napi_tokens = []\n", "f:2:1: cluster.acme_email: not supported yet: acme_email\nf:3:1: cluster.api_tokens: not "
                                                         "supported yet: api_tokens: write a [[token]] for each"},
    {"[logs]\nforward = []", "f:2:1: logs.forward: not supported yet: forward"},
    {"[cluster]\nlog_level = \"warning\"\nnode_ttl = \"1\"",
     "f:2:13: cluster.log_level: must be one of \"trace\", \"debug\", \"info\", \"warn\", \"error\": did you mean \"warn\"?\n"
     "f:3:12: cluster.node_ttl: a duration is written like \"500ms\", \"30s\", \"5m\", \"2h\""},
    {"[api]\nlisten = [\"10.0.0.1:6880\"]", "f:2:10: api.listen: 10.0.0.1:6880 is not loopback: it needs `tls = true`"},
    {"[api]\nlisten = [\"0.0.0.0:6880\"]\ntls = true",
     "f:2:11: api.listen[0]: must name an address of a node: each node listens on those of the list that are its own"},
    {"[api]\nlisten = [\"localhost:1\", \"127.0.0.1\", \"::1:5\", \"[::1]:70000\"]",
     "f:2:11: api.listen[0]: must be ADDRESS:PORT, an IPv6 address in [ ]\nf:2:26: api.listen[1]: must be ADDRESS:PORT\n"
     "f:2:39: api.listen[2]: must be ADDRESS:PORT, an IPv6 address in [ ]\nf:2:48: api.listen[3]: must end in a port between 1 and 65535"},
    {"[proxy]\ntrusted_proxies = [\"10.0.0.0/33\", \"x\"]", "f:2:20: proxy.trusted_proxies[0]: must be an address or a network like \"10.0.0.0/8\"\n"
                                                            "f:2:35: proxy.trusted_proxies[1]: must be an address or a network like \"10.0.0.0/8\""},
    {"[[node]]\nlabels = {}", "f:1:1: node[0]: `name` or `address` is missing"},
    {"[policy]\nallow_host_path = [\"/x\"]\nallow_host_paths = [\"x\"]",
     "f:2:1: policy.allow_host_path: unknown key: did you mean `allow_host_paths`?\n"
     "f:3:21: policy.allow_host_paths[0]: must be an absolute path"},
    {"[clutser]", "f:1:2: clutser: unknown key: did you mean `cluster`?"},
};

static const struct sample nodes[] = {
    {"[cluster]\nid = \"abcdefgh\"", ""},
    {"", "f:1:1: `cluster` is missing"},
    {"[node]\nname = \"N\"\naddress = \"a b\"\nrole = \"slave\"\nrun_dir = \"run\"\n[cluster]\nid = \"x\"",
     "f:2:8: node.name: must be 1 to 63 small letters, digits and -, with no - at either end\nf:3:11: node.address: must be an IP address or a host "
     "name\n"
     "f:4:8: node.role: must be one of \"master\", \"worker\"\nf:5:11: node.run_dir: must be an absolute path\n"
     "f:7:6: cluster.id: must be 8 to 64 small letters, digits and -"},
    {"[cluster]\nid = \"abcdefgh\"\n[store]\nbackend = \"etcd\"\nendpoints = []", "f:4:11: store.backend: not supported yet: backend = \"etcd\"\n"
                                                                                  "f:5:1: store.endpoints: not supported yet: endpoints"},
    {"[cluster]\nid = \"abcdefgh\"\nmasters = [{ name = \"a\" }]", "f:3:12: cluster.masters[0]: `address` is missing"},
    {"[cluster]\nid = \"abcdefgh\"\n[ports]\napi = 6881\nhttp = 0",
     "f:4:7: ports.api: port 6881 is taken by `gateway` already\nf:5:8: ports.http: must be between 1 and 65535"},
};

static void expect(const struct spec_faults *faults, const struct sample *s) {
  struct buf text = BUF_INIT(65536);
  print_faults(faults, &text);
  if (strcmp(buf_str(&text), s->faults) != 0)
    fail_msg("%s\ngives\n%s\nnot\n%s", s->text, buf_str(&text), s->faults);
  buf_free(&text);
}

static void test_services(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
    struct spec_set set = {0};
    struct spec_faults faults = {0};
    int rc = spec_parse_services("f", services[i].text, strlen(services[i].text), "shop", &set, &faults);
    expect(&faults, &services[i]);
    assert_int_equal(rc, faults.count ? -1 : 0);
    spec_set_free(&set);
    spec_faults_free(&faults);
  }
}

static void test_clusters(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof clusters / sizeof *clusters; i++) {
    Model__ClusterSpec *cluster = NULL;
    struct spec_faults faults = {0};
    spec_parse_cluster("f", clusters[i].text, strlen(clusters[i].text), &cluster, &faults);
    expect(&faults, &clusters[i]);
    if (cluster)
      model__cluster_spec__free_unpacked(cluster, NULL);
    spec_faults_free(&faults);
  }
}

static void test_nodes(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
    struct node_config config = {0};
    struct spec_faults faults = {0};
    struct err err;
    int rc = node_config_parse("f", nodes[i].text, strlen(nodes[i].text), &config, &faults, &err);
    expect(&faults, &nodes[i]);
    assert_int_equal(rc, faults.count ? -1 : 0);
    node_config_free(&config);
    spec_faults_free(&faults);
  }
}

static void test_node_defaults(void **state) {
  (void)state;
  static const char text[] = "[node]\nname = \"n2\"\nrole = \"worker\"\n[cluster]\nid = \"0123456789ab\"\n"
                             "masters = [{ name = \"n1\", address = \"10.0.0.1\" }]\n[ports]\nhttp = 8080\n";
  struct node_config c = {0};
  struct spec_faults faults = {0};
  struct err err;
  assert_int_equal(node_config_parse("f", text, strlen(text), &c, &faults, &err), 0);
  assert_string_equal(c.name, "n2");
  assert_string_equal(c.address, "127.0.0.1");
  assert_int_equal(c.role, NODE_WORKER);
  assert_string_equal(c.state_dir, "/var/lib/orca");
  assert_string_equal(c.run_dir, "/run/orca");
  assert_string_equal(c.key_dir, "/etc/orca/keys");
  assert_string_equal(c.docker, "/run/docker.sock");
  assert_string_equal(c.cluster_id, "0123456789ab");
  assert_int_equal(c.master_count, 1);
  assert_string_equal(c.masters[0].address, "10.0.0.1");
  assert_string_equal(c.masters[0].key, "");
  assert_string_equal(c.masters[0].store_key, "");
  assert_int_equal(c.port_api, 6880);
  assert_int_equal(c.port_gateway, 6881);
  assert_int_equal(c.port_store, 6882);
  assert_int_equal(c.port_raft, 6883);
  assert_int_equal(c.port_gossip, 6884);
  assert_int_equal(c.port_http, 8080);
  assert_int_equal(c.port_https, 443);
  node_config_free(&c);
  assert_int_equal(node_config_read("/nonexistent/node.toml", &c, &faults, &err), -1);
  assert_int_equal(err.code, ERR_NOT_FOUND);
  spec_faults_free(&faults);
}

static const struct sample jsons[] = {
    {"{\"services\":[{\"name\":\"a\",\"image\":\"i:1\"}]}", ""},
    {"{\"services\":[],\"jobs\":[]}", ""},
    {"[]", "expected an object with `services` or `jobs`"},
    {"{\"service\":[]}", "service: unknown key: known are services, jobs, cluster, files"},
    {"{\"services\":{}}", "services: expected an array"},
    {"{\"services\":[3]}", "services[0]: expected a table"},
    {"{\"jobs\":[{}]}", "jobs[0]: `name` is missing\njobs[0]: `image` is missing"},
    {"{\"services\":[{\"name\":\"a\",\"image\":\"i\",\"deploy\":{\"max_surg\":1}},{\"name\":\"b\",\"image\":\"i\",\"port\":null,\"replicas\":\"x\"}]"
     "}",
     "services[0].deploy.max_surg: unknown key: did you mean `max_surge`?\nservices[1].replicas: expected an integer, found a string"},
    {"{\"services\":[{\"name\":\"a\",\"image\":\"i\",\"env\":{\"A\":1,\"B\":{}}}]}",
     "services[0].env.A: expected a string (in quotes), found an integer\n"
     "services[0].env.B: expected a string (in quotes), found a table"},
    {"{\"services\":[{\"name\":\"a\",\"image\":\"i\",\"resources\":{\"memory\":67108864,\"cpu\":1},\"mounts\":[\"./x:/"
     "y\",{\"source\":\"a\",\"target\":\"/b\","
     "\"files\":[{\"path\":\"../etc\",\"sha256\":\"00\"},{\"path\":\"/x\",\"sha256\":\"\"},{\"path\":\"a/../b\"}]}]}]}",
     "services[0].mounts[1].files[0].path: must be a path without empty parts, . and ..\n"
     "services[0].mounts[1].files[0].sha256: must be 64 hexadecimal digits in small letters\n"
     "services[0].mounts[1].files[1].path: must be a relative path\n"
     "services[0].mounts[1].files[1].sha256: must be 64 hexadecimal digits in small letters\n"
     "services[0].mounts[1].files[2].path: must be a path without empty parts, . and ..\nservices[0].mounts[1].files[2]: `sha256` is missing"},
    {"{\"files\":{\"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\":\"YQ==\"}}", ""},
    {"{\"files\":{\"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb\":\"YQ\"}}",
     "files.ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb: must be base64 of at most 1048576 bytes"},
    {"{\"files\":{\"00\":\"YQ==\"}}", "files.00: the content's SHA-256 is another one"},
    {"{\"files\":3}", "files: expected an object of SHA-256: base64"},
    {"{\"cluster\":3}", "cluster: expected an object"},
    {"{\"jobs\":3}", "jobs: expected an array"},
    {"{\"cluster\":{\"policy\":{\"allow_caps\":[3]}}}", "cluster.policy.allow_caps[0]: expected a string, found an integer"},
};

static void test_json(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof jsons / sizeof *jsons; i++) {
    struct spec_set set = {0};
    struct spec_faults faults = {0};
    json_t *json = json_loads(jsons[i].text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    int rc = spec_set_from_json(json, &set, &faults);
    expect(&faults, &jsons[i]);
    assert_int_equal(rc, faults.count ? -1 : 0);
    json_decref(json);
    spec_set_free(&set);
    spec_faults_free(&faults);
  }
}

/* A value that JSON has no kind for is its text. */
static void test_tree_to_json(void **state) {
  (void)state;
  const char text[] = "d = 1979-05-27T07:32:00Z\nf = 1.5\nb = [true, { x = 1 }]\n";
  struct toml_doc *doc = toml_parse(text, strlen(text), NULL, NULL);
  assert_non_null(doc);
  json_t *json = spec_tree_to_json(toml_root(doc));
  assert_string_equal(json_string_value(json_object_get(json, "d")), "1979-05-27T07:32:00Z");
  assert_int_equal(json_array_size(json_object_get(json, "b")), 2);
  json_decref(json);
  toml_free(doc);
}

/* More than there may be: told once, nothing of it read. */
static void test_json_bounds(void **state) {
  (void)state;
  json_t *root = json_object(), *many = json_array(), *files = json_object(), *deep = json_object(), *at = deep;
  for (int i = 0; i < 10001; i++)
    json_array_append_new(many, json_object());
  json_object_set_new(root, "services", many);
  for (int i = 0; i < 200; i++) {
    json_t *below = json_object();
    json_object_set_new(at, "a", below);
    at = below;
  }
  json_object_set_new(root, "cluster", deep);
  char *large = malloc(2u << 20);
  assert_non_null(large);
  memset(large, 'A', (2u << 20) - 1);
  large[(2u << 20) - 1] = 0;
  json_object_set_new(files, "00", json_string(large));
  json_object_set_new(root, "files", files);
  free(large);
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  assert_int_equal(spec_set_from_json(root, &set, &faults), -1);
  bool too_many = false, file = false;
  for (size_t i = 0; i < faults.count; i++) {
    too_many |= strcmp(faults.list[i].path, "services") == 0 && strstr(faults.list[i].message, "more than");
    file |= strcmp(faults.list[i].path, "files.00") == 0;
  }
  assert_true(too_many && file);
  json_decref(root);
  spec_set_free(&set);
  spec_faults_free(&faults);
}

static void test_units(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t v;
    bool ok;
  } durations[] = {{"500ms", 500, true},
                   {"30s", 30000, true},
                   {"5m", 300000, true},
                   {"2h", 7200000, true},
                   {"1h30m", 5400000, true},
                   {"1d", 86400000, true},
                   {"0s", 0, true},
                   {"", 0, false},
                   {"5", 0, false},
                   {"5x", 0, false},
                   {"m", 0, false},
                   {"-5s", 0, false},
                   {"30m1h", 0, false},
                   {"5s5s", 0, false},
                   {"5 s", 0, false},
                   {"1.5s", 0, false},
                   {"99999999999999999999s", 0, false},
                   {"9223372036854775807h", 0, false}};
  static const struct {
    const char *text;
    uint64_t v;
    bool ok;
  } sizes[] = {{"512Mi", 512u << 20, true},
               {"1Gi", 1u << 30, true},
               {"512M", 512000000, true},
               {"1024", 1024, true},
               {"1.5Gi", 1610612736, true},
               {"10B", 10, true},
               {"2MiB", 2u << 20, true},
               {"3k", 3000, true},
               {"0", 0, true},
               {"", 0, false},
               {"Mi", 0, false},
               {"1.Mi", 0, false},
               {"-1", 0, false},
               {"1 Mi", 0, false},
               {"1mi", 0, false},
               {"99999999Ti", 0, false},
               {"1.2345678Mi", 0, false}};
  struct err err;
  for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
    uint64_t v = 0;
    bool ok = spec_parse_duration(durations[i].text, &v, &err) == 0;
    if (ok != durations[i].ok || v != durations[i].v)
      fail_msg("%s: %d %llu", durations[i].text, ok, (unsigned long long)v);
  }
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    uint64_t v = 0;
    bool ok = spec_parse_size(sizes[i].text, &v, &err) == 0;
    if (ok != sizes[i].ok || v != sizes[i].v)
      fail_msg("%s: %d %llu", sizes[i].text, ok, (unsigned long long)v);
  }
  static const uint64_t values[] = {0,        1,    999,  1000,    1500,      60000,         90000,       3600000,
                                    86400000, 1024, 1025, 1048576, 536870912, 1099511627776, 123456789012};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    char text[32];
    uint64_t v;
    spec_print_duration(values[i], text);
    assert_int_equal(spec_parse_duration(text, &v, &err), 0);
    assert_int_equal(v, values[i]);
    spec_print_size(values[i], text);
    assert_int_equal(spec_parse_size(text, &v, &err), 0);
    assert_int_equal(v, values[i]);
  }
  assert_true(spec_name_valid("a"));
  assert_true(spec_name_valid("a-1"));
  assert_false(spec_name_valid(""));
  assert_false(spec_name_valid("-a"));
  assert_false(spec_name_valid("a-"));
  assert_false(spec_name_valid("a_b"));
  assert_true(spec_name_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
  assert_false(spec_name_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_services), cmocka_unit_test(test_clusters),    cmocka_unit_test(test_nodes),        cmocka_unit_test(test_node_defaults),
      cmocka_unit_test(test_json),     cmocka_unit_test(test_json_bounds), cmocka_unit_test(test_tree_to_json), cmocka_unit_test(test_units),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
