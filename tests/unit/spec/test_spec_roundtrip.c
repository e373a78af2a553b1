/* Property tests with fixed seeds: what is printed reads back as the same message, as TOML and as JSON; defaults change no revision. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "tests/unit/spec/faults.h"

#define SEEDS 400

static uint64_t rng;

static uint32_t draw(uint32_t below) { /* SplitMix64 */
  uint64_t z = (rng += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (uint32_t)((z ^ (z >> 31)) % below);
}

static bool coin(void) {
  return draw(2);
}

static bool with_refs = true;

static char *text(void) { /* any text, with what needs escaping and what looks like a reference but is none */
  static const char *const parts[] = {"a",   "Z",        " ", "\"",   "\\",   "\n", "\t", "é", "日本", "😀", "$",
                                      "$${", "${env.X}", "'", "\x01", "\x7f", "=",  "#",  "[", "{",    "\r"};
  struct buf b = BUF_INIT(4096);
  for (uint32_t n = draw(8); n; n--)
    buf_add_str(&b, parts[draw(sizeof parts / sizeof *parts)]);
  if (!with_refs && strstr(buf_str(&b), "${env.X}"))
    buf_reset(&b);
  /* a "$" may meet a "{" and make a reference that is none: begin again */
  if (strstr(buf_str(&b), "${") && strstr(buf_str(&b), "${") != strstr(buf_str(&b), "${env.X}"))
    buf_reset(&b);
  if (strstr(buf_str(&b), "$${") || strstr(buf_str(&b), "${{"))
    buf_reset(&b);
  char *copy = strdup(buf_str(&b));
  buf_free(&b);
  return copy;
}

static char *name(void) {
  char s[12];
  int n = 1 + (int)draw(9);
  for (int i = 0; i < n; i++)
    s[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[draw(36)];
  s[n] = 0;
  return strdup(s);
}

static char *prefixed(const char *prefix) {
  char *n = name(), out[64];
  snprintf(out, sizeof out, "%s%s", prefix, n);
  free(n);
  return strdup(out);
}

static char **list(size_t *count, char *(*make)(void)) {
  *count = draw(4);
  char **l = *count ? calloc(*count, sizeof *l) : NULL;
  for (size_t i = 0; i < *count; i++)
    l[i] = make();
  return l;
}

static char *numbered(const char *prefix, size_t i) {
  char out[64];
  snprintf(out, sizeof out, "%s%zu", prefix, i);
  return strdup(out);
}

static Model__Pair **pairs(size_t *count, const char *prefix) {
  *count = draw(4);
  Model__Pair **l = *count ? calloc(*count, sizeof *l) : NULL;
  for (size_t i = 0; i < *count; i++) {
    l[i] = malloc(sizeof **l);
    model__pair__init(l[i]);
    l[i]->key = numbered(prefix, i);
    l[i]->value = text();
  }
  return l;
}

static char *route(void) {
  return prefixed("/");
}
static char *domain(void) {
  char *n = name(), out[64];
  snprintf(out, sizeof out, "%s.x%u.example", n, draw(1000000));
  free(n);
  return strdup(out);
}
static char *cap(void) {
  return strdup(coin() ? "NET_ADMIN" : "SYS_PTRACE");
}
static char *device(void) {
  return prefixed("/dev/");
}
static char *word(void) {
  return prefixed("w");
}

static Model__Probe *probe(void) {
  Model__Probe *p = malloc(sizeof *p);
  model__probe__init(p);
  switch (draw(3)) {
  case 0:
    p->path = prefixed("/");
    break;
  case 1:
    PB_SET(p, tcp, 1);
    break;
  default:
    p->n_exec = 1;
    p->exec = calloc(1, sizeof *p->exec);
    p->exec[0] = word();
  }
  if (coin() && !p->n_exec)
    PB_SET(p, port, 1 + draw(65535));
  if (coin())
    PB_SET(p, interval_secs, 1 + draw(100));
  if (coin())
    PB_SET(p, initial_delay_secs, draw(100));
  return p;
}

static Model__ServiceSpec *service(void) {
  Model__ServiceSpec *s = malloc(sizeof *s);
  model__service_spec__init(s);
  s->name = name();
  s->project = name();
  s->image = prefixed("registry.example/");
  s->command = list(&s->n_command, text);
  s->entrypoint = list(&s->n_entrypoint, text);
  if (coin())
    s->user = strdup("1000:1000");
  if (coin())
    s->workdir = prefixed("/");
  if (coin())
    PB_SET(s, replicas, draw(100));
  PB_SET(s, port, 1 + draw(65535));
  if (coin())
    PB_SET(s, host_port, 30000 + draw(1000));
  s->n_extra_ports = draw(3);
  s->extra_ports = s->n_extra_ports ? calloc(s->n_extra_ports, sizeof *s->extra_ports) : NULL;
  for (size_t i = 0; i < s->n_extra_ports; i++) {
    Model__PortMap *m = s->extra_ports[i] = malloc(sizeof *m);
    model__port_map__init(m);
    PB_SET(m, host_port, 1000 + (uint32_t)i);
    PB_SET(m, container_port, 1 + draw(65535));
    if (coin())
      PB_SET(m, protocol, MODEL__PROTOCOL__UDP);
  }
  s->domains = list(&s->n_domains, domain);
  s->routes = s->n_domains ? list(&s->n_routes, route) : NULL;
  if (coin())
    PB_SET(s, strip_prefix, s->n_domains && coin());
  s->depends_on = list(&s->n_depends_on, name);
  if (coin())
    s->network = name();
  s->aliases = list(&s->n_aliases, name);
  if (coin())
    PB_SET(s, restart, (Model__RestartPolicy)draw(3));
  if (coin())
    s->stop_signal = strdup("SIGINT");
  if (coin())
    PB_SET(s, stop_grace_ms, draw(3600000));
  if (coin())
    PB_SET(s, pull, (Model__PullPolicy)draw(3));
  s->labels = pairs(&s->n_labels, "team.x/");
  s->env = pairs(&s->n_env, "VAR_");
  if (coin()) {
    Model__Resources *r = s->resources = malloc(sizeof *r);
    model__resources__init(r);
    if (coin())
      PB_SET(r, memory, (UINT64_C(6) << 20) + draw(1u << 30));
    if (coin() && r->has_memory)
      PB_SET(r, memory_request, draw(6u << 20));
    if (coin())
      PB_SET(r, cpu_milli, 10 + draw(100000));
    if (coin())
      PB_SET(r, pids, 1 + draw(10000));
    if (coin()) {
      r->gpu = malloc(sizeof *r->gpu);
      model__gpu__init(r->gpu);
      PB_SET(r->gpu, count, 1 + draw(8));
      if (coin())
        r->gpu->vendor = strdup("amd");
      if (coin())
        PB_SET(r->gpu, vram_min, 1 + draw(1000));
    }
  }
  if (coin()) {
    Model__DeployPolicy *d = s->deploy = malloc(sizeof *d);
    model__deploy_policy__init(d);
    if (coin())
      PB_SET(d, strategy, (Model__DeployStrategy)draw(2));
    if (coin())
      PB_SET(d, max_unavailable, draw(5));
    if (coin())
      PB_SET(d, max_surge, 1 + draw(5));
    if (coin())
      PB_SET(d, timeout_ms, 1000 + draw(10000000));
    if (coin())
      PB_SET(d, auto_rollback, coin());
    if (coin())
      PB_SET(d, min_ready_ms, draw(100000));
  }
  if (coin()) {
    Model__Placement *p = s->placement = malloc(sizeof *p);
    model__placement__init(p);
    if (coin())
      p->node = name();
    p->labels = pairs(&p->n_labels, "zone");
    p->avoid = list(&p->n_avoid, name);
    if (coin())
      p->spread = name();
  }
  if (coin())
    s->readiness = probe();
  if (coin())
    s->startup = probe();
  if (coin())
    s->liveness = probe();
  s->n_volumes = draw(3);
  s->volumes = s->n_volumes ? calloc(s->n_volumes, sizeof *s->volumes) : NULL;
  for (size_t i = 0; i < s->n_volumes; i++) {
    Model__Volume *v = s->volumes[i] = malloc(sizeof *v);
    model__volume__init(v);
    v->source = name();
    v->target = numbered("/vol/", i);
    if (coin())
      PB_SET(v, read_only, coin());
    if (coin())
      v->driver = strdup("local");
    v->options = pairs(&v->n_options, "opt");
  }
  s->n_mounts = draw(3);
  s->mounts = s->n_mounts ? calloc(s->n_mounts, sizeof *s->mounts) : NULL;
  for (size_t i = 0; i < s->n_mounts; i++) {
    Model__Mount *m = s->mounts[i] = malloc(sizeof *m);
    model__mount__init(m);
    m->source = prefixed(coin() ? "./" : "/srv/");
    m->target = numbered("/mnt/", i);
    if (coin())
      PB_SET(m, read_only, coin());
    if (coin()) {
      m->n_files = 1;
      m->files = calloc(1, sizeof *m->files);
      m->files[0] = malloc(sizeof **m->files);
      model__mount_file__init(m->files[0]);
      m->files[0]->path = prefixed("d/");
      m->files[0]->sha256 = strdup("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
      PB_SET(m->files[0], mode, 0644);
    }
  }
  if (coin()) {
    s->proxy = malloc(sizeof *s->proxy);
    model__proxy_rules__init(s->proxy);
    if (coin())
      PB_SET(s->proxy, timeout_ms, 100 + draw(1000000));
    if (coin())
      PB_SET(s->proxy, max_body, draw(1u << 30));
  }
  if (coin())
    PB_SET(s, privileged, coin());
  s->devices = list(&s->n_devices, device);
  s->caps = list(&s->n_caps, cap);
  return s;
}

static void show(const struct spec_faults *faults, const char *of) {
  struct buf b = BUF_INIT(65536);
  print_faults(faults, &b);
  if (faults->count)
    fail_msg("%s\n%s", of, buf_str(&b));
  buf_free(&b);
}

static void test_toml(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= SEEDS; seed++) {
    rng = seed;
    Model__ServiceSpec *s = service();
    struct buf toml = BUF_INIT(1u << 20);
    struct spec_set set = {0};
    struct spec_faults faults = {0};
    assert_int_equal(spec_service_to_toml(s, &toml), 0);
    spec_parse_services("f", buf_str(&toml), toml.len, "other", &set, &faults);
    show(&faults, buf_str(&toml));
    assert_int_equal(set.service_count, 1);
    if (!pb_equal(&s->base, &set.services[0]->base))
      fail_msg("seed %llu: not the same message:\n%s", (unsigned long long)seed, buf_str(&toml));
    buf_free(&toml);
    spec_set_free(&set);
    model__service_spec__free_unpacked(s, NULL);
  }
}

/* What the API takes, and what the store may hold: references to orcactl's environment are neither. */
static void test_json(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= SEEDS; seed++) {
    struct err err = {0};
    rng = seed;
    with_refs = seed % 4 == 0;
    Model__ServiceSpec *s = service();
    with_refs = true;
    json_t *root = json_object(), *services = json_array();
    json_object_set_new(root, "services", services);
    json_array_append_new(services, spec_service_to_json(s));
    char *dumped = json_dumps(root, 0);
    json_decref(root);
    root = json_loads(dumped, 0, NULL);
    struct spec_set set = {0};
    struct spec_faults faults = {0};
    spec_set_from_json(root, &set, &faults);
    int stored = spec_check_stored(s, &err);
    if (strstr(dumped, "${env.X}")) {
      if (!faults.count || set.service_count || stored == 0)
        fail_msg("seed %llu: a reference that is not filled in was taken:\n%s", (unsigned long long)seed, dumped);
      spec_faults_free(&faults);
    } else {
      show(&faults, dumped);
      assert_int_equal(set.service_count, 1);
      if (!pb_equal(&s->base, &set.services[0]->base))
        fail_msg("seed %llu: not the same message:\n%s", (unsigned long long)seed, dumped);
      if (stored < 0)
        fail_msg("seed %llu: %s:\n%s", (unsigned long long)seed, err.msg, dumped);
    }
    free(dumped);
    json_decref(root);
    spec_set_free(&set);
    model__service_spec__free_unpacked(s, NULL);
  }
}

static void test_revision(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= SEEDS; seed++) {
    rng = seed;
    Model__ServiceSpec *a = service(), *b = (Model__ServiceSpec *)pb_clone(&a->base);
    char before[65], after[65];
    spec_hash(a, before);
    spec_fill_defaults(b);
    assert_true(spec_same_revision(a, b));
    Model__ServiceSpec *c = (Model__ServiceSpec *)pb_clone(&b->base);
    spec_fill_defaults(c);
    assert_true(pb_equal(&b->base, &c->base)); /* filling in twice changes nothing more */
    PB_SET(b, replicas, 77);
    if (b->n_env > 1) {
      Model__Pair *first = b->env[0];
      b->env[0] = b->env[b->n_env - 1];
      b->env[b->n_env - 1] = first;
    }
    spec_hash(b, after);
    assert_string_equal(before, after);
    assert_true(spec_same_revision(a, b));
    free(b->image);
    b->image = strdup("another:1");
    spec_hash(b, after);
    assert_string_not_equal(before, after);
    assert_false(spec_same_revision(a, b));
    assert_non_null(b->deploy);
    assert_non_null(b->resources);
    assert_non_null(b->placement);
    assert_non_null(b->proxy);
    model__service_spec__free_unpacked(a, NULL);
    model__service_spec__free_unpacked(b, NULL);
    model__service_spec__free_unpacked(c, NULL);
  }
}

/* A diff applied to the old text gives the new one. */
static void test_diff(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= SEEDS; seed++) {
    rng = seed;
    Model__ServiceSpec *a = service(), *b = coin() ? service() : (Model__ServiceSpec *)pb_clone(&a->base);
    if (coin())
      PB_SET(b, strip_prefix, !b->strip_prefix);
    struct buf from = BUF_INIT(1u << 20), to = BUF_INIT(1u << 20), diff = BUF_INIT(1u << 20), made = BUF_INIT(1u << 20);
    spec_service_to_toml(a, &from);
    spec_service_to_toml(b, &to);
    assert_int_equal(spec_diff(a, b, &diff), 0);
    if (strcmp(buf_str(&from), buf_str(&to)) == 0)
      assert_string_equal(buf_str(&diff), "");
    const char *old = buf_str(&from);
    size_t line = 1;
    for (const char *d = buf_str(&diff); *d;) {
      size_t len = strcspn(d, "\n") + 1;
      unsigned start, count;
      if (strncmp(d, "--- ", 4) == 0 || strncmp(d, "+++ ", 4) == 0) {
      } else if (sscanf(d, "@@ -%u,%u ", &start, &count) == 2) {
        for (size_t upto = count ? start : start + 1; line < upto; line++) {
          size_t n = strcspn(old, "\n") + 1;
          buf_add(&made, old, n);
          old += n;
        }
      } else {
        if (*d != '+') {
          size_t n = strcspn(old, "\n") + 1;
          assert_int_equal(n, len - 1);
          assert_memory_equal(old, d + 1, n);
          old += n;
          line++;
        }
        if (*d != '-')
          buf_add(&made, d + 1, len - 1);
      }
      d += len;
    }
    buf_add_str(&made, old);
    assert_string_equal(buf_str(&made), buf_str(&to));
    buf_free(&from);
    buf_free(&to);
    buf_free(&diff);
    buf_free(&made);
    model__service_spec__free_unpacked(a, NULL);
    model__service_spec__free_unpacked(b, NULL);
  }
}

static void test_cluster(void **state) {
  (void)state;
  static const char toml[] =
      "[cluster]\nname = \"p\"\nlog_level = \"warn\"\nnode_ttl = \"1500ms\"\n\n[api]\nlisten = [\"127.0.0.1:6880\"]\ntls = false\n\n"
      "[[node]]\nname = \"n1\"\n\n[node.labels]\nzone = \"eu-1\"\n\n[[node.gpus]]\ncount = 2\nvendor = \"nvidia\"\nmodel = \"A100\"\n\n"
      "[proxy]\nhttp_port = 8080\ntrusted_proxies = [\"10.0.0.0/8\"]\n\n[logs]\nmax_size = \"10Mi\"\nmax_files = 3\n\n"
      "[policy]\nallow_privileged = true\nallow_host_network = true\nallow_devices = [\"/dev/kvm\"]\nallow_host_paths = [\"/srv\"]\nallow_caps = "
      "[\"NET_ADMIN\"]\n";
  Model__ClusterSpec *c = NULL;
  struct spec_faults faults = {0};
  spec_parse_cluster("f", toml, strlen(toml), &c, &faults);
  show(&faults, toml);
  struct buf out = BUF_INIT(65536);
  assert_int_equal(spec_cluster_to_toml(c, &out), 0);
  assert_string_equal(buf_str(&out), toml);
  buf_free(&out);
  model__cluster_spec__free_unpacked(c, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_toml), cmocka_unit_test(test_json), cmocka_unit_test(test_revision),
                                     cmocka_unit_test(test_diff), cmocka_unit_test(test_cluster)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
