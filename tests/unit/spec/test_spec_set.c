/* The infra directory, references, meaning, [policy], and what only shows between services. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "common/spec/spec.h"
#include "tests/lib/folder.h"
#include "tests/unit/spec/faults.h"

static void expect(struct spec_faults *faults, const char *what) {
  struct buf text = BUF_INIT(65536);
  print_faults(faults, &text);
  assert_string_equal(buf_str(&text), what);
  buf_free(&text);
  spec_faults_free(faults);
}

static struct spec_set parse(const char *text) {
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  spec_parse_services("f", text, strlen(text), "shop", &set, &faults);
  expect(&faults, "");
  return set;
}

/* ---- between services ---- */

#define SERVICE(name) "[[service]]\nname = \"" name "\"\nimage = \"i:1\"\nport = 80\n"

static void check(const char *text, const char *others, const char *cluster_text, const char *faults_text) {
  struct spec_set set = parse(text), other = parse(others);
  Model__ClusterSpec *cluster = NULL;
  struct spec_faults faults = {0};
  spec_parse_cluster("c", cluster_text, strlen(cluster_text), &cluster, &faults);
  expect(&faults, "");
  spec_check_set(&set, other.services, other.service_count, cluster, &faults);
  expect(&faults, faults_text);
  model__cluster_spec__free_unpacked(cluster, NULL);
  spec_set_free(&set);
  spec_set_free(&other);
}

static void test_set(void **state) {
  (void)state;
  check(SERVICE("a") SERVICE("b") "depends_on = [\"a\", \"shop/a\"]\n", "", "", "");
  check(SERVICE("a") SERVICE("a"), "", "", "f:5:1: shop/a.name: shop/a is there twice, first at f:1:1");
  check(SERVICE("a") "depends_on = [\"db\"]\n", "", "", "f:1:1: shop/a.depends_on: there is no service db");
  check(SERVICE("a") "depends_on = [\"db\"]\n", SERVICE("db"), "", "");
  check(SERVICE("a") "depends_on = [\"a\"]\n", "", "", "f:1:1: shop/a.depends_on: a circle: shop/a → shop/a");
  check(SERVICE("a") "depends_on = [\"b\"]\n" SERVICE("b") "depends_on = [\"c\"]\n" SERVICE("c") "depends_on = [\"b\"]\n", "", "",
        "f:6:1: shop/b.depends_on: a circle: shop/b → shop/c → shop/b");
  check(SERVICE("a") "depends_on = [\"b\"]\n", SERVICE("b") "depends_on = [\"a\"]\n", "",
        "f:1:1: shop/a.depends_on: a circle: shop/a → shop/b → shop/a");
  check(SERVICE("a") "domain = \"x.y\"\n" SERVICE("b") "domain = \"x.y\"\n", "", "", "f:6:1: shop/b.domains: x.y/* leads to shop/a already");
  check(SERVICE("a") "domain = \"x.y\"\n" SERVICE("b") "domain = \"x.y\"\nroutes = [\"/api/*\"]\n", "", "", "");
  check(SERVICE("a") "domain = \"x.y\"\n", SERVICE("b") "domains = [\"x.y\", \"z\"]\n", "", "f:1:1: shop/a.domains: x.y/* leads to shop/b already");
  check(SERVICE("a") "domain = \"x.y\"\n", SERVICE("a") "domain = \"x.y\"\n", "", ""); /* its own past is no other */
  check(SERVICE("a") "host_port = 80\n" SERVICE("b") "host_port = 80\n", "", "", "");
  check(SERVICE("a") "host_port = 80\nplacement.node = \"n1\"\n" SERVICE("b") "extra_ports = [\"80:1\"]\nplacement.node = \"n1\"\n", "", "",
        "f:7:1: shop/b.extra_ports: port 80 of n1 is taken by shop/a");
  check(SERVICE("a") "host_port = 80\nplacement.node = \"n1\"\n" SERVICE("b") "extra_ports = [\"80:1/udp\"]\nplacement.node = \"n1\"\n", "", "", "");
}

/* ---- [policy] ---- */

static void policy(const char *service, const char *policy_text, const char *refusal) {
  struct buf s = BUF_INIT(4096), c = BUF_INIT(4096);
  buf_printf(&s, "%s%s\n", SERVICE("a"), service);
  buf_printf(&c, "[policy]\n%s\n", policy_text);
  struct spec_set set = parse(buf_str(&s));
  Model__ClusterSpec *cluster = NULL;
  struct spec_faults faults = {0};
  spec_parse_cluster("c", buf_str(&c), c.len, &cluster, &faults);
  expect(&faults, "");
  struct err err = {0};
  int rc = spec_check_policy(set.services[0], cluster, &err);
  if (*refusal) {
    if (rc != -1 || err.code != ERR_DENIED || !strstr(err.msg, refusal))
      fail_msg("%s with %s: %d %s", service, policy_text, rc, err.msg);
    spec_check_set(&set, NULL, 0, cluster, &faults);
    assert_int_equal(faults.count, 1);
    spec_faults_free(&faults);
  } else if (rc != 0) {
    fail_msg("%s with %s: %s", service, policy_text, err.msg);
  }
  assert_int_equal(spec_check_policy(set.services[0], NULL, &err), *refusal || *policy_text ? -1 : 0);
  model__cluster_spec__free_unpacked(cluster, NULL);
  spec_set_free(&set);
  buf_free(&s);
  buf_free(&c);
}

/* ---- what is in a store ---- */

#define PLAIN "[[service]]\nname = \"a\"\nimage = \"i:1\"\n" /* that a job could be as well */

static void stored(const char *text, void (*change)(Model__ServiceSpec *spec), const char *refusal) {
  struct spec_set set = parse(text);
  struct err err = {0};
  change(set.services[0]);
  int rc = spec_check_stored(set.services[0], &err);
  if (rc != (*refusal ? -1 : 0) || (*refusal && !strstr(err.msg, refusal)))
    fail_msg("%s: %d %s", text, rc, err.msg);
  spec_set_free(&set);
}

static void nothing(Model__ServiceSpec *spec) {
  (void)spec;
}
static void as_a_job(Model__ServiceSpec *spec) {
  spec->job = malloc(sizeof *spec->job);
  model__job_rules__init(spec->job);
}
static void zone_of_elsewhere(Model__ServiceSpec *spec) {
  as_a_job(spec);
  spec->job->tz = strdup("Mars/Olympus");
}
static void zone_that_is_a_path(Model__ServiceSpec *spec) {
  as_a_job(spec);
  spec->job->tz = strdup("../../etc/passwd");
}
static void no_name(Model__ServiceSpec *spec) {
  free(spec->name);
  spec->name = NULL;
}
static void name_with_slash(Model__ServiceSpec *spec) {
  spec->name[0] = '/';
}
static void unknown_restart(Model__ServiceSpec *spec) {
  PB_SET(spec, restart, (Model__RestartPolicy)99);
}
static void same_key(Model__ServiceSpec *spec) {
  spec->env[1]->key[0] = 'A';
}
static void port_of_nowhere(Model__ServiceSpec *spec) {
  spec->extra_ports[0]->host_port = 65536;
}
static void port_of_a_job_of_nowhere(Model__ServiceSpec *spec) {
  as_a_job(spec);
  port_of_nowhere(spec);
}
static void of_tomorrow(Model__ServiceSpec *spec) {
  for (int i = 0; i < 2; i++) {
    ProtobufCMessage *msg = i ? &spec->resources->base : &spec->base;
    msg->unknown_fields = calloc(1, sizeof *msg->unknown_fields);
    msg->n_unknown_fields = 1;
    *msg->unknown_fields = (ProtobufCMessageUnknownField){.tag = 999, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT, .len = 1, .data = calloc(1, 1)};
  }
}

static void test_stored(void **state) {
  (void)state;
  stored(SERVICE("a"), nothing, "");
  stored(PLAIN, as_a_job, "");
  stored(PLAIN, zone_of_elsewhere, "");
  stored(PLAIN, zone_that_is_a_path, "tz: ");
  stored(SERVICE("a"), no_name, "`name` is missing");
  stored(SERVICE("a"), name_with_slash, "name: ");
  stored(SERVICE("a"), unknown_restart, "restart: ");
  stored(SERVICE("a") "env = { A = \"1\", B = \"2\" }\n", same_key, "env: ");
  stored(SERVICE("a") "env = { A = \"1\", B = \"${secrets.X}\" }\n", nothing, "");
  stored(SERVICE("a") "workdir = \"${env.X}\"\n", nothing, "workdir: ");
  stored(PLAIN "aliases = [\"db\"]\n", as_a_job, "aliases: ");
  stored(SERVICE("a") "extra_ports = [\"80:80\"]\n", port_of_nowhere, "extra_ports");
  stored(PLAIN "extra_ports = [\"80:80\"]\n", as_a_job, "");
  stored(PLAIN "extra_ports = [\"80:80\"]\n", port_of_a_job_of_nowhere, "extra_ports");
  stored(SERVICE("a") "resources.memory = \"64Mi\"\n", of_tomorrow, "");
}

#define VOLUME(options) "[[service.volumes]]\nsource = \"v\"\ntarget = \"/v\"\noptions = { " options " }"

static void test_policy(void **state) {
  (void)state;
  policy("", "", "");
  policy("privileged = false\ncaps = []", "", "");
  policy("privileged = true", "", "privileged: refused by [policy]: allow_privileged");
  policy("privileged = true", "allow_privileged = true", "");
  policy("network = \"host\"", "", "allow_host_network");
  policy("network = \"host\"", "allow_host_network = true", "");
  policy("devices = [\"/dev/kvm:/dev/kvm:rw\"]", "", "allow_devices");
  policy("devices = [\"/dev/kvm:/dev/kvm:rw\"]", "allow_devices = [\"/dev/kvm\"]", "");
  policy("devices = [\"/dev/kvm2\"]", "allow_devices = [\"/dev/kvm\"]", "allow_devices");
  policy("caps = [\"CAP_NET_ADMIN\"]", "allow_caps = [\"NET_ADMIN\"]", "");
  policy("caps = [\"NET_ADMIN\"]", "allow_caps = [\"CAP_NET_ADMIN\"]", "");
  policy("caps = [\"SYS_ADMIN\"]", "allow_caps = [\"NET_ADMIN\"]", "allow_caps");
  policy("mounts = [\"./x:/y\"]", "", "");
  policy("mounts = [\"/srv/x:/y\"]", "", "allow_host_paths");
  policy("mounts = [\"/srv/x:/y\"]", "allow_host_paths = [\"/srv\"]", "");
  policy("mounts = [\"/srv:/y\"]", "allow_host_paths = [\"/srv/\"]", "");
  policy("mounts = [\"//srv/./x/:/y\"]", "allow_host_paths = [\"/srv/x\"]", "");
  policy("mounts = [\"/srvx:/y\"]", "allow_host_paths = [\"/srv\"]", "allow_host_paths");
  policy("mounts = [\"/srv:/y\"]", "allow_host_paths = [\"/srv/x\"]", "allow_host_paths");
  policy("mounts = [\"/:/y\"]", "allow_host_paths = [\"/srv\"]", "allow_host_paths");
  policy("mounts = [\"/anything:/y\"]", "allow_host_paths = [\"/\"]", "");
  policy(VOLUME("type = \"none\", o = \"bind\", device = \"/etc\""), "", "volumes");
  policy(VOLUME("type = \"none\", o = \"bind\", device = \"/srv/a\""), "allow_host_paths = [\"/srv\"]", "");
  policy(VOLUME("type = \"none\", o = \"bind\", device = \"/srv/../etc\""), "allow_host_paths = [\"/srv\"]", "volumes");
  policy(VOLUME("type = \"tmpfs\", o = \"rw,rbind\", device = \"etc\""), "", "volumes");
  policy(VOLUME("type = \"tmpfs\", device = \"tmpfs\", o = \"size=10m\""), "", "");
  policy(VOLUME("type = \"nfs\", device = \":/export\", o = \"addr=10.0.0.1\""), "", "");
  policy(VOLUME("type = \"nfs\", device = \"/etc\""), "", "volumes");
  policy(VOLUME("type = \"cifs\", device = \"//host/share\""), "", "");
  policy(VOLUME("type = \"ext4\", device = \"/dev/sda1\""), "", "volumes");
  policy(VOLUME("type = \"overlay\", o = \"lowerdir=/etc\", device = \"overlay\""), "", "volumes");
  policy(VOLUME("device = \"/etc\""), "", "volumes");
  policy(VOLUME("Device = \"/etc\", O = \"bind\""), "", "volumes");
  policy(VOLUME("size = \"10Gi\""), "", "");
  policy("[[service.volumes]]\nsource = \"v\"\ntarget = \"/v\"\ndriver = \"plugin\"\noptions = { mountpoint = \"/etc\" }", "", "volumes");
}

/* ---- meaning ---- */

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_defaults(void **state) {
  (void)state;
  struct spec_set set = parse("[[service]]\nname = \"a\"\nimage = \"i\"\nport = 80\nhealth = \"/h\"\n[service.resources]\nmemory = \"64Mi\"\n"
                              "[service.startup]\nexec = [\"true\"]\n[[service]]\nname = \"b\"\nimage = \"r:5000/x/i:latest\"\n[[service]]\nname = "
                              "\"c\"\nimage = \"r:5000/x/i:1\"\n"
                              "[[service]]\nname = \"d\"\nimage = \"i@sha256:" SHA "\"\n");
  Model__ServiceSpec *s = set.services[0];
  spec_fill_defaults(s);
  assert_string_equal(s->project, "shop");
  assert_int_equal(PB_GET(s, replicas, 9), 1);
  assert_int_equal(s->n_routes, 1);
  assert_string_equal(s->routes[0], "/*");
  assert_string_equal(s->network, "shop");
  assert_string_equal(s->stop_signal, "SIGTERM");
  assert_int_equal(s->stop_grace_ms, 10000);
  assert_int_equal(PB_GET(s, pull, 9), MODEL__PULL_POLICY__PULL_ALWAYS);
  assert_int_equal(s->resources->memory_request, 64u << 20);
  assert_false(s->resources->has_cpu_milli);
  assert_int_equal(s->deploy->max_surge, 1);
  assert_int_equal(PB_GET(s->deploy, max_unavailable, 9), 0);
  assert_int_equal(s->deploy->timeout_ms, 300000);
  assert_true(s->deploy->auto_rollback);
  assert_int_equal(s->deploy->min_ready_ms, 5000);
  assert_int_equal(s->proxy->timeout_ms, 60000);
  assert_int_equal(s->proxy->max_body, 100u << 20);
  assert_string_equal(s->readiness->path, "/h");
  assert_int_equal(s->readiness->port, 80);
  assert_int_equal(s->liveness->interval_secs, 10);
  assert_int_equal(s->liveness->timeout_secs, 3);
  assert_int_equal(s->liveness->failure_threshold, 3);
  assert_int_equal(s->liveness->success_threshold, 1);
  assert_false(s->startup->has_port);
  spec_fill_defaults(set.services[1]);
  assert_int_equal(set.services[1]->pull, MODEL__PULL_POLICY__PULL_ALWAYS);
  spec_fill_defaults(set.services[2]);
  assert_int_equal(set.services[2]->pull, MODEL__PULL_POLICY__PULL_IF_ABSENT);
  spec_fill_defaults(set.services[3]);
  assert_int_equal(set.services[3]->pull, MODEL__PULL_POLICY__PULL_IF_ABSENT);
  assert_false(spec_binds_node_resource(s));
  spec_set_free(&set);
  set = parse(SERVICE("a") "host_port = 1\n" SERVICE("b") "volume = \"x:/y\"\n" SERVICE("c") "extra_ports = [\"1:1\"]\n");
  for (int i = 0; i < 3; i++)
    assert_true(spec_binds_node_resource(set.services[i]));
  spec_set_free(&set);
}

static void unescapes(const char *from, const char *to) {
  struct buf out = BUF_INIT(256);
  struct err err;
  int rc = spec_unescape(from, &out, &err);
  if (to) {
    assert_int_equal(rc, 0);
    assert_string_equal(buf_str(&out), to);
  } else {
    assert_int_equal(rc, -1);
    assert_int_equal(err.code, ERR_UNPROCESSABLE);
  }
  buf_free(&out);
}

static void test_unescape(void **state) {
  (void)state;
  unescapes("", "");
  unescapes("a$b$$c{}", "a$b$$c{}");
  unescapes("$${x}", "${x}");
  unescapes("$$${x}", "$${x}");
  unescapes("$${$${", "${${");
  unescapes("a${x}", NULL);
  unescapes("${", NULL);
  unescapes("$", "$");
}

static const char *lookup(const char *name) {
  return strcmp(name, "HOST") == 0 ? "shop.example.com" : strcmp(name, "ODD") == 0 ? "a${b}$" : strcmp(name, "BAD") == 0 ? "x y" : NULL;
}

static void test_env(void **state) {
  (void)state;
  struct spec_set set = parse(SERVICE("a") "domain = \"${env.HOST}\"\n[service.env]\nA = \"<${env.ODD}{${env.HOST}>$${env.HOST}\"\n");
  struct spec_faults faults = {0};
  assert_int_equal(spec_resolve_env(&set, lookup, &faults), 0);
  assert_string_equal(set.services[0]->domains[0], "shop.example.com");
  assert_string_equal(set.services[0]->env[0]->value, "<a$${b}$${shop.example.com>$${env.HOST}");
  unescapes(set.services[0]->env[0]->value, "<a${b}${shop.example.com>${env.HOST}");
  spec_set_free(&set);
  set = parse(SERVICE("a") "domain = \"${env.BAD}\"\n[service.env]\nA = \"${env.NOPE}\"\n" SERVICE("b") "domain = \"${env.BAD}\"\n");
  assert_int_equal(spec_resolve_env(&set, lookup, &faults), -1);
  expect(&faults, "f: shop/a.env.A: the environment has no variable NOPE\n"
                  "f: shop/b.domains[0]: must be a domain name in small letters, like \"shop.example.com\"");
  spec_set_free(&set);
}

/* ---- the infra directory ---- */

static char root[FOLDER_MAX];

static void link_to(const char *to, const char *path) {
  char full[512];
  snprintf(full, sizeof full, "%s/%s", root, path);
  assert_int_equal(symlink(to, full), 0);
}

static int read_infra(struct spec_set *set, struct spec_faults *faults) {
  struct err err;
  return spec_read_infra(root, set, faults, &err);
}

static void test_infra(void **state) {
  (void)state;
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  folder_make(root);
  assert_int_equal(read_infra(&set, &faults), 0);
  assert_int_equal(set.service_count, 0);
  assert_null(set.cluster);
  folder_put_text(root, "cluster.toml", "[cluster]\nname = \"p\"\n");
  folder_put_text(root, "services/shop/config/a.conf", "A");
  folder_put_text(root, "services/shop/config/d/b.conf", "B");
  folder_put_text(root, "services/shop/config/d/e/c.conf", "A");
  folder_put_text(root, "services/shop/config/empty", "");
  folder_put_text(root, "services/notes/README", "no project");
  folder_put_text(root, "services/shop/service.toml",
                  SERVICE("a") "mounts = [\"./services/shop/config/a.conf:/a.conf:ro\", \"services/shop/../shop/config:/c\", \"/srv:/srv\"]\n");
  folder_put_text(root, "services/blog/service.toml", SERVICE("b") "project = \"news\"\n");
  assert_int_equal(read_infra(&set, &faults), 0);
  assert_int_equal(set.service_count, 2);
  assert_string_equal(set.services[0]->project, "news");
  assert_string_equal(set.places[1].file, "services/shop/service.toml");
  assert_string_equal(set.cluster->name, "p");
  Model__ServiceSpec *a = set.services[1];
  assert_string_equal(a->project, "shop");
  assert_int_equal(a->mounts[0]->n_files, 1);
  assert_string_equal(PB_STR(a->mounts[0]->files[0]->path), "");
  assert_string_equal(a->mounts[0]->files[0]->sha256, "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd");
  assert_int_equal(a->mounts[0]->files[0]->mode, 0644);
  assert_int_equal(a->mounts[1]->n_files, 4);
  assert_string_equal(a->mounts[1]->files[0]->path, "a.conf");
  assert_string_equal(a->mounts[1]->files[1]->path, "d/b.conf");
  assert_string_equal(a->mounts[1]->files[2]->path, "d/e/c.conf");
  assert_string_equal(a->mounts[1]->files[3]->path, "empty");
  assert_int_equal(a->mounts[2]->n_files, 0);
  assert_int_equal(set.file_count, 3); /* equal contents are one */

  json_t *json = spec_set_to_json(&set);
  struct spec_set again = {0};
  assert_int_equal(spec_set_from_json(json, &again, &faults), 0);
  assert_int_equal(again.file_count, 3);
  assert_int_equal(again.service_count, 2);
  for (size_t i = 0; i < 2; i++)
    assert_true(pb_equal(&set.services[i]->base, &again.services[i]->base));
  assert_true(pb_equal(&set.cluster->base, &again.cluster->base));
  json_decref(json);
  spec_set_free(&again);

  char before[65], after[65];
  spec_hash(set.services[1], before);
  spec_set_free(&set);
  folder_put_text(root, "services/shop/config/d/b.conf", "changed");
  assert_int_equal(read_infra(&set, &faults), 0);
  spec_hash(set.services[1], after);
  assert_string_not_equal(before, after); /* a changed file makes another revision */
  spec_set_free(&set);

  char deep[512];
  snprintf(deep, sizeof deep, "%s/services/shop/config", root);
  char *found = spec_find_infra(deep), *real = realpath(root, NULL);
  assert_string_equal(found, real);
  free(found);
  free(real);

  char *big = calloc(1, SPEC_FILE_MAX + 1);
  folder_put(root, "services/shop/big/x", big, SPEC_FILE_MAX + 1);
  for (int i = 0; i < 9; i++) {
    char path[64];
    snprintf(path, sizeof path, "services/shop/many/%d", i);
    big[0] = (char)i;
    folder_put(root, path, big, SPEC_FILE_MAX);
  }
  free(big);
  link_to("/etc/passwd", "services/shop/config/link");
  link_to("config", "services/shop/linked");
  folder_put_text(root, "services/shop/service.toml",
                  SERVICE("a") "mounts = [\"services/shop/config:/1\", \"services/shop/linked/a.conf:/2\", \"nope:/3\", \".:/4\",\n"
                               "\"services/shop/big:/5\", \"services/shop/many:/6\"]\nnope = 1\n");
  folder_put_text(root, "services/blog/service.toml", "[[service]]\nname = \"B\"\n");
  folder_put_text(root, "services/UP/service.toml", "");
  folder_put_text(root, "cluster.toml", "[clutser]\n");
  assert_int_equal(read_infra(&set, &faults), -1);
  expect(&faults,
         "cluster.toml:1:2: clutser: unknown key: did you mean `cluster`?\n"
         "services/UP/service.toml: the folder names a project: it must be 1 to 63 small letters, digits and -, with no - at either end\n"
         "services/blog/service.toml:1:1: service[0]: `image` is missing\n"
         "services/blog/service.toml:2:8: service[0].name: must be 1 to 63 small letters, digits and -, with no - at either end\n"
         "services/shop/service.toml:5:11: service[0].mounts[0]: link is a symbolic link: links are not shipped\n"
         "services/shop/service.toml:5:38: service[0].mounts[1]: services/shop/linked/a.conf leads over a symbolic link: links are not shipped\n"
         "services/shop/service.toml:5:72: service[0].mounts[2]: nope: No such file or directory\n"
         "services/shop/service.toml:5:83: service[0].mounts[3]: the whole infra directory cannot be mounted: name a part of it\n"
         "services/shop/service.toml:6:1: service[0].mounts[4]: x: larger than 1048576 bytes\n"
         "services/shop/service.toml:6:25: service[0].mounts[5]: with it, the files of all mounts are larger than 8 MiB\n"
         "services/shop/service.toml:7:1: service[0].nope: unknown key");
  folder_remove(root);
}

static void test_schema(void **state) {
  (void)state;
  json_t *service = spec_json_schema_service(), *cluster = spec_json_schema_cluster();
  json_t *properties = json_object_get(service, "properties");
  assert_int_equal(json_integer_value(json_object_get(json_object_get(properties, "replicas"), "maximum")), 10000);
  assert_null(json_object_get(properties, "anchor"));
  json_t *deploy = json_object_get(json_object_get(properties, "deploy"), "properties");
  assert_string_equal(json_string_value(json_object_get(json_object_get(deploy, "timeout"), "default")), "5m");
  assert_int_equal(json_array_size(json_object_get(json_object_get(deploy, "strategy"), "enum")), 2);
  assert_non_null(json_object_get(json_object_get(cluster, "properties"), "policy"));
  json_decref(service);
  json_decref(cluster);
  struct buf text = BUF_INIT(1u << 20);
  assert_int_equal(spec_reference_markdown(&text), 0);
  assert_non_null(
      strstr(buf_str(&text),
             "| `node_port` | integer | | Every node's proxy listens here and balances TCP over all ready instances. *Not supported yet.* |"));
  assert_non_null(strstr(buf_str(&text), "### `[ports]`"));
  buf_free(&text);
}

static void test_ids(void **state) {
  (void)state;
  char key[KEY_MAX], id[INSTANCE_ID_MAX], project[64], service[64];
  uint64_t n;
  key_numbered(key, KEY_REVISIONS, "shop", "api", 12);
  assert_string_equal(key, "/revisions/shop/api/0000000012");
  instance_id(id, "shop", "api", 3);
  assert_string_equal(id, "shop/api.3");
  assert_true(instance_id_parse(id, project, service, &n));
  assert_string_equal(service, "api");
  assert_int_equal(n, 3);
  assert_false(instance_id_parse("shop/api", project, service, &n));
  assert_false(instance_id_parse("shop.3/api", project, service, &n));
  assert_false(instance_id_parse("/api.3", project, service, &n));
  assert_false(instance_id_parse("shop/api.x", project, service, &n));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_set),      cmocka_unit_test(test_policy),   cmocka_unit_test(test_stored),
      cmocka_unit_test(test_defaults), cmocka_unit_test(test_unescape), cmocka_unit_test(test_env),
      cmocka_unit_test(test_infra),    cmocka_unit_test(test_schema),   cmocka_unit_test(test_ids),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
