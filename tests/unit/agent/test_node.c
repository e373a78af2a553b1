/* What touches the node: a spec as Docker's JSON, files of the infra directory, host paths, cgroup figures, reports. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/loop.h"
#include "orca-agent/cgroup.h"
#include "orca-agent/container_json.h"
#include "orca-agent/files.h"
#include "orca-agent/report.h"
#include "orca-agent/verdicts.h"
#include "tests/unit/agent/bare_agent.h"
#include "tests/lib/folder.h"

static char dir[FOLDER_MAX];

static int make_dir(void **state) {
  (void)state;
  folder_make(dir);
  return 0;
}

static int remove_dir(void **state) {
  (void)state;
  folder_remove(dir);
  return 0;
}

/* ---- cgroups ---- */

static void test_cgroup_v1(void **state) {
  (void)state;
  char proc[128], root[128];
  snprintf(proc, sizeof proc, "%s/proc1", dir);
  snprintf(root, sizeof root, "%s/v1", dir);
  folder_put_text(dir, "proc1/42/cgroup",
                  "12:pids:/docker/abc\n5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n");
  folder_put_text(dir, "v1/cpuacct/docker/abc/cpuacct.usage", "123456789\n");
  folder_put_text(dir, "v1/memory/docker/abc/memory.usage_in_bytes", "5000\n");
  folder_put_text(dir, "v1/memory/docker/abc/memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n");
  folder_put_text(dir, "v1/pids/docker/abc/pids.current", "3\n");
  struct cgroup_paths paths;
  struct cgroup_usage u;
  assert_int_equal(cgroup_find(proc, root, 42, &paths), 0);
  assert_int_equal(cgroup_read(&paths, &u), 0);
  assert_int_equal(u.cpu_ns, 123456789);
  assert_int_equal(u.memory, 4000);
  assert_int_equal(u.pids, 3);
  cgroup_paths_free(&paths);
  assert_int_equal(cgroup_find(proc, root, 43, &paths), -1);
}

static void test_cgroup_v2(void **state) {
  (void)state;
  char proc[128], root[128];
  snprintf(proc, sizeof proc, "%s/proc2", dir);
  snprintf(root, sizeof root, "%s/v2", dir);
  folder_put_text(dir, "proc2/42/cgroup", "0::/system.slice/docker-abc.scope\n");
  folder_put_text(dir, "v2/system.slice/docker-abc.scope/cpu.stat", "usage_usec 5\nuser_usec 3\n");
  folder_put_text(dir, "v2/system.slice/docker-abc.scope/memory.current", "100\n");
  folder_put_text(dir, "v2/system.slice/docker-abc.scope/memory.stat", "anon 1\ninactive_file 300\n");
  folder_put_text(dir, "v2/system.slice/docker-abc.scope/pids.current", "2\n");
  struct cgroup_paths paths;
  struct cgroup_usage u;
  assert_int_equal(cgroup_find(proc, root, 42, &paths), 0);
  assert_true(paths.v2);
  assert_int_equal(cgroup_read(&paths, &u), 0);
  assert_int_equal(u.cpu_ns, 5000);
  assert_int_equal(u.memory, 0); /* never below nothing */
  assert_int_equal(u.pids, 2);
  cgroup_paths_free(&paths);
}

static void test_cgroup_hostile(void **state) {
  (void)state;
  char proc[128], root[128];
  snprintf(proc, sizeof proc, "%s/proc3", dir);
  snprintf(root, sizeof root, "%s/v2", dir);
  static const char *const texts[] = {"", ":::\n", "0::\n", "0::/../../etc/\n", "no colons\n", "0::relative\n"};
  struct cgroup_paths paths;
  for (size_t n = 0; n < sizeof texts / sizeof *texts; n++) {
    folder_put_text(dir, "proc3/1/cgroup", texts[n]);
    assert_int_equal(cgroup_find(proc, root, 1, &paths), -1);
  }
}

/* ---- files ---- */

static void sha_of(const char *text, char out[65]) {
  uint8_t digest[32];
  crypto_sha256(text, strlen(text), digest);
  crypto_hex(digest, sizeof digest, out);
}

static struct files *open_files(void) {
  struct err err;
  struct files *f = files_open(dir, &err);
  assert_non_null(f);
  return f;
}

static void test_files(void **state) {
  (void)state;
  struct err err;
  struct files *f = open_files();
  assert_null(files_open(dir, &err)); /* one owner */
  assert_non_null(strstr(err.msg, "in use"));
  char sha[65], path[PATH_MAX], name[] = "theme/a.css", target[] = "/opt/theme";
  sha_of("body{}", sha);
  assert_false(files_have(f, sha));
  assert_int_equal(files_put(f, sha, "other", 5, &err), -1);
  assert_int_equal(err.code, ERR_CORRUPT);
  assert_int_equal(files_put(f, sha, "body{}", 6, &err), 0);
  assert_true(files_have(f, sha));
  Model__MountFile file = MODEL__MOUNT_FILE__INIT, *list = &file;
  file.path = name;
  file.sha256 = sha;
  PB_SET(&file, mode, 04755);
  Model__Mount mount = MODEL__MOUNT__INIT;
  mount.target = target;
  mount.files = &list;
  mount.n_files = 1;
  for (int again = 0; again < 2; again++)
    assert_int_equal(files_lay(f, "c1", 0, &mount, &err), 0);
  assert_int_equal(files_source(f, "c1", 0, &mount, NULL, path, &err), 0);
  char styles[PATH_MAX + 16];
  snprintf(styles, sizeof styles, "%s/theme/a.css", path);
  struct stat st;
  assert_int_equal(stat(styles, &st), 0);
  assert_int_equal(st.st_mode & 07777, 0755); /* no setuid from a spec */
  assert_int_equal(st.st_size, 6);
  static const char *const escapes[] = {"../x", "/etc/passwd", "a/../../x", "a//b", ".", "a/", ""};
  for (size_t n = 0; n < sizeof escapes / sizeof *escapes; n++) {
    char bad[32];
    snprintf(bad, sizeof bad, "%s", escapes[n]);
    Model__MountFile two[2] = {file, file}, *both[2] = {&two[0], &two[1]};
    two[1].path = bad;
    mount.files = both;
    mount.n_files = 2;
    assert_int_equal(files_lay(f, "c1", 1, &mount, &err), -1);
  }
  files_drop(f, "../content");
  assert_true(files_have(f, sha));
  files_drop(f, "c1");
  assert_int_equal(stat(path, &st), -1);
  files_close(f);
}

static bool knows_c1(void *arg, const char *container) {
  (void)arg;
  return strcmp(container, "c1") == 0;
}

/* What went while no agent was there, and content that nobody needs any more, would stay forever. */
static void test_files_are_swept(void **state) {
  (void)state;
  struct err err;
  struct files *f = open_files();
  char used[65], unused[65], name[] = "a", target[] = "/a", path[2][PATH_MAX];
  struct stat st;
  sha_of("used", used);
  sha_of("unused", unused);
  assert_int_equal(files_put(f, used, "used", 4, &err), 0);
  assert_int_equal(files_put(f, unused, "unused", 6, &err), 0);
  Model__MountFile file = MODEL__MOUNT_FILE__INIT, *list = &file;
  file.path = name;
  file.sha256 = used;
  Model__Mount mount = MODEL__MOUNT__INIT;
  mount.target = target;
  mount.files = &list;
  mount.n_files = 1;
  for (int n = 0; n < 2; n++) {
    assert_int_equal(files_lay(f, n ? "c2" : "c1", 0, &mount, &err), 0);
    assert_int_equal(files_source(f, n ? "c2" : "c1", 0, &mount, NULL, path[n], &err), 0);
  }
  int64_t now = time(NULL);
  files_sweep(f, knows_c1, NULL, now + 10);
  assert_int_equal(stat(path[0], &st), 0);
  assert_int_equal(stat(path[1], &st), -1);
  assert_true(files_have(f, used));
  assert_true(files_have(f, unused));
  char content[PATH_MAX + 80];
  snprintf(content, sizeof content, "%s/agent/content/%s", dir, unused);
  struct timespec old[2] = {{.tv_sec = now - FILES_UNUSED_S - 5}, {.tv_sec = now - FILES_UNUSED_S - 5}};
  assert_int_equal(utimensat(AT_FDCWD, content, old, 0), 0);
  files_sweep(f, knows_c1, NULL, now);
  assert_true(files_have(f, used));
  assert_false(files_have(f, unused));
  assert_int_equal(stat(path[0], &st), 0);
  files_close(f);
}

static void test_host_paths(void **state) {
  (void)state;
  struct err err;
  struct files *f = open_files();
  char allowed[128], inside[160], link[160], beside[160], path[PATH_MAX], target[] = "/x";
  snprintf(allowed, sizeof allowed, "%s/allowed", dir);
  snprintf(inside, sizeof inside, "%s/in", allowed);
  snprintf(link, sizeof link, "%s/link", allowed);
  snprintf(beside, sizeof beside, "%s/allowed-not", dir);
  mkdir(allowed, 0755);
  mkdir(inside, 0755);
  mkdir(beside, 0755);
  assert_int_equal(symlink("/etc", link), 0);
  char *paths[] = {allowed};
  Model__Policy policy = MODEL__POLICY__INIT;
  policy.allow_host_paths = paths;
  policy.n_allow_host_paths = 1;
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  cluster.policy = &policy;
  Model__Mount mount = MODEL__MOUNT__INIT;
  mount.target = target;
  mount.source = inside;
  assert_int_equal(files_source(f, "c", 0, &mount, &cluster, path, &err), 0);
  assert_int_equal(files_source(f, "c", 0, &mount, NULL, path, &err), -1);
  assert_int_equal(err.code, ERR_DENIED);
  mount.source = link;
  assert_int_equal(files_source(f, "c", 0, &mount, &cluster, path, &err), -1);
  /* A folder that was one when the container was made, and is a link when it is started again. */
  char deep[200];
  snprintf(deep, sizeof deep, "%s/in", inside);
  mkdir(deep, 0755);
  assert_int_equal(files_still_real(deep, &err), 0);
  assert_int_equal(files_still_real(link, &err), -1);
  rmdir(deep);
  rmdir(inside);
  assert_int_equal(files_still_real(deep, &err), 0); /* that it is not there is not for us to say */
  assert_int_equal(symlink("/usr", inside), 0);
  snprintf(deep, sizeof deep, "%s/bin", inside);
  assert_int_equal(files_still_real(deep, &err), -1);
  assert_int_equal(err.code, ERR_DENIED);
  mount.source = beside;
  assert_int_equal(files_source(f, "c", 0, &mount, &cluster, path, &err), -1);
  char up[200], relative[] = "etc";
  snprintf(up, sizeof up, "%s/../allowed-not", allowed);
  mount.source = up;
  assert_int_equal(files_source(f, "c", 0, &mount, &cluster, path, &err), -1);
  mount.source = relative;
  assert_int_equal(files_source(f, "c", 0, &mount, &cluster, path, &err), -1);
  files_close(f);
}

/* ---- a container's JSON ---- */

struct one {
  struct agent_core core;
  struct agent_instance i;
  Node__Assignment a;
  Model__Instance inst;
  Model__Revision rev;
  Model__ServiceSpec spec;
};

static void one_init(struct one *o) {
  static char project[] = "shop", service[] = "api", image[] = "busybox", node[] = "n1";
  struct err err;
  memset(o, 0, sizeof *o);
  assert_int_equal(agent_core_init(&o->core, "n1", "cluster00000", 2, &err), 0);
  node__assignment__init(&o->a);
  model__instance__init(&o->inst);
  model__revision__init(&o->rev);
  model__service_spec__init(&o->spec);
  o->spec.project = o->inst.project = project;
  o->spec.name = o->inst.service = service;
  o->spec.image = image;
  o->inst.node = node;
  o->rev.spec = &o->spec;
  o->a.instance = &o->inst;
  o->a.revision = &o->rev;
  o->i.assigned = &o->a;
  o->i.number = 3;
  snprintf(o->i.project, sizeof o->i.project, "shop");
  snprintf(o->i.service, sizeof o->i.service, "api");
}

static json_t *json_of(struct one *o, struct err *err) {
  return agent_container_json(&o->core, &o->i, &(struct agent_container_source){.image = "busybox@sha256:x", .node_address = "10.0.0.1"}, err);
}

static void test_container_json(void **state) {
  (void)state;
  struct one o;
  struct err err;
  one_init(&o);
  PB_SET(&o.spec, port, 8080);
  char user_label[] = "orca.node", value[] = "evil", name[] = "A", escaped[] = "$${x}", unresolved[] = "${secrets.X}";
  Model__Pair label = MODEL__PAIR__INIT, env = MODEL__PAIR__INIT, *labels = &label, *envs = &env;
  label.key = user_label;
  label.value = value;
  env.key = name;
  env.value = escaped;
  o.spec.labels = &labels;
  o.spec.n_labels = 1;
  o.spec.env = &envs;
  o.spec.n_env = 1;
  json_t *json = json_of(&o, &err);
  assert_non_null(json);
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "Labels"), "orca.node")), "n1");
  assert_string_equal(json_string_value(json_array_get(json_object_get(json, "Env"), 0)), "A=${x}");
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "HostConfig"), "NetworkMode")), "orca-cluster0-shop");
  assert_int_equal(json_object_size(json_object_get(json_object_get(json, "HostConfig"), "PortBindings")), 0); /* nothing is published unasked */
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "Labels"), "orca.restart")), "always");
  json_decref(json);
  PB_SET(&o.inst, job, 1); /* an agent that adopts it before any master has spoken starts no run twice */
  json = json_of(&o, &err);
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "Labels"), "orca.restart")), "never");
  json_decref(json);
  o.inst.has_job = 0;
  PB_SET(&o.spec, host_port, 80);
  json = json_of(&o, &err);
  const json_t *binding = json_array_get(json_object_get(json_object_get(json_object_get(json, "HostConfig"), "PortBindings"), "8080/tcp"), 0);
  assert_string_equal(json_string_value(json_object_get(binding, "HostIp")), "10.0.0.1");
  json_decref(json);
  env.value = unresolved;
  assert_null(json_of(&o, &err));
  assert_int_equal(err.code, ERR_UNPROCESSABLE);
  assert_non_null(strstr(err.msg, "env.A"));
  env.value = escaped;
  PB_SET(&o.spec, host_port, 70000);
  assert_null(json_of(&o, &err));
  agent_core_fini(&o.core);
}

/* ---- verdicts ---- */

static void test_a_verdict_waits_for_a_look_that_failed(void **state) {
  (void)state;
  struct err err;
  char state_dir[128];
  struct daemon daemon = {.config.state_dir = state_dir};
  snprintf(state_dir, sizeof state_dir, "%s/judged", dir);
  folder_put_text(dir, "judged/agent/verdicts", "0123456789ab 5 1 1\nba9876543210 5 1 1\n");
  struct agent *a = bare_agent_new(&daemon);
  struct agent_instance *i = bare_agent_add(a, "shop/api.1");
  a->core.ever_listed = true;
  snprintf(i->c.id, sizeof i->c.id, "0123456789ab");
  i->look_failed = true;
  struct verdicts *v = verdicts_open(a, &err);
  assert_non_null(v);
  verdicts_restore(v);
  assert_false(i->verdict.known);
  i->look_failed = false;
  i->phase = MODEL__PHASE__PHASE_RUNNING;
  i->c.state = AGENT_C_RUNNING;
  i->c.detailed = true;
  i->c.started_ns = 5 * NS_PER_MS;
  i->want = AGENT_WANT_KEEP;
  verdicts_restore(v);
  assert_true(i->verdict.known && i->verdict.ready);
  verdicts_close(v);
  bare_agent_free(a);
}

/* ---- reports ---- */

static void test_report_resend(void **state) {
  (void)state;
  struct agent_core core;
  struct err err;
  struct report r = {.full = true};
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  struct agent_action act = {.name = "instance.started", .severity = "info", .text = "x"};
  assert_int_equal(agent_core_init(&core, "n1", "cluster00000", 2, &err), 0);
  report_gone(&r, "shop/api.1");
  report_event(&r, &act, "n1", 1);
  report_image(&r, &act);
  Node__StatusReport *m = report_build(&r, &core, &node);
  assert_true(m->full);
  assert_non_null(m->node);
  assert_int_equal(m->n_gone, 1);
  assert_int_equal(m->n_events, 1);
  node__status_report__free_unpacked(m, NULL);
  report_event(&r, &act, "n1", 2); /* while it is under way */
  report_failed(&r);
  m = report_build(&r, &core, &node);
  assert_int_equal(m->n_events, 2);
  node__status_report__free_unpacked(m, NULL);
  report_event(&r, &act, "n1", 3);
  report_acked(&r);
  r.full = r.node_dirty = false;
  m = report_build(&r, &core, &node);
  assert_int_equal(m->n_events, 1);
  assert_int_equal(m->events[0]->ms, 3);
  assert_int_equal(m->n_gone, 0);
  assert_int_equal(m->n_images, 0);
  node__status_report__free_unpacked(m, NULL);
  report_acked(&r);
  assert_false(report_pending(&r, &core));
  for (unsigned n = 0; n < 3 * REPORT_MAX_EVENTS; n++)
    report_event(&r, &act, "n1", n);
  assert_int_equal(r.event_count, REPORT_MAX_EVENTS); /* bounded, the newest kept */
  assert_int_equal(r.events[r.event_count - 1]->ms, 3 * REPORT_MAX_EVENTS - 1);
  report_fini(&r);
  agent_core_fini(&core);
}

/* What has gathered while there was no master goes in parts that it takes. */
static void test_report_of_many_events(void **state) {
  (void)state;
  struct agent_core core;
  struct err err;
  struct report r = {0};
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  struct agent_action act = {.name = "instance.started", .severity = "info", .text = "x"};
  assert_int_equal(agent_core_init(&core, "n1", "cluster00000", 2, &err), 0);
  for (unsigned n = 0; n < 150; n++)
    report_event(&r, &act, "n1", n);
  unsigned told = 0;
  while (report_pending(&r, &core)) {
    Node__StatusReport *m = report_build(&r, &core, &node);
    assert_in_range(m->n_events, 1, 64);
    for (size_t n = 0; n < m->n_events; n++)
      assert_int_equal(m->events[n]->ms, told++);
    node__status_report__free_unpacked(m, NULL);
    report_acked(&r);
  }
  assert_int_equal(told, 150);
  report_fini(&r);
  agent_core_fini(&core);
}

/* A report that does not fit into one message is never sent, and the node's others with it. */
static void test_report_of_many_last_lines(void **state) {
  (void)state;
  struct agent_core core;
  struct err err;
  struct report r = {.full = true};
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  assert_int_equal(agent_core_init(&core, "n1", "cluster00000", 2, &err), 0);
  core.instances = calloc(3000, sizeof(struct agent_instance *));
  for (; core.count < 3000; core.count++) {
    struct agent_instance *i = core.instances[core.count] = calloc(1, sizeof *i);
    snprintf(i->project, sizeof i->project, "shop");
    snprintf(i->service, sizeof i->service, "api");
    i->number = core.count + 1;
    i->want = AGENT_WANT_RUN;
    i->last_lines_len = 4096;
    i->last_lines = calloc(1, i->last_lines_len);
  }
  Node__StatusReport *m = report_build(&r, &core, &node);
  assert_int_equal(m->n_instances, 3000);
  assert_true(m->instances[0]->has_last_lines);
  assert_true(protobuf_c_message_get_packed_size(&m->base) < BUS_MAX_MESSAGE);
  node__status_report__free_unpacked(m, NULL);
  report_fini(&r);
  agent_core_fini(&core);
}

/* One text that is not UTF-8 would have the whole report refused. */
static void test_report_of_texts_that_were_cut(void **state) {
  (void)state;
  struct agent_core core;
  struct err err;
  struct report r = {0};
  struct agent_action act = {.name = "instance.started", .text = "mount /srv/gr\xc3\xb6\xc3"};
  struct agent_instance i = {
      .project = "shop", .service = "api", .number = 1, .ended_ms = 1, .reason = "Gr\xc3\xb6\xc3", .progress = "41 \xff percent"};
  assert_int_equal(agent_core_init(&core, "n1", "cluster00000", 2, &err), 0);
  memset(i.ended_by, 0xc3, sizeof i.ended_by - 1);
  Model__InstanceStatus *st = report_instance(&core, &i);
  struct buf packed = BUF_INIT(4096);
  assert_int_equal(pb_pack(&st->base, &packed), 0);
  model__instance_status__free_unpacked(st, NULL);
  st = (Model__InstanceStatus *)(void *)pb_unpack(&model__instance_status__descriptor, packed.data, packed.len, &err);
  if (!st) {
    fail_msg("%s", err.msg);
    return;
  }
  assert_string_equal(st->reason, "Gr\xc3\xb6");
  assert_string_equal(st->progress, "41 ? percent");
  report_event(&r, &act, "n1", 1);
  assert_string_equal(r.events[0]->message, "mount /srv/gr\xc3\xb6");
  model__instance_status__free_unpacked(st, NULL);
  buf_free(&packed);
  report_fini(&r);
  agent_core_fini(&core);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cgroup_v1),
      cmocka_unit_test(test_cgroup_v2),
      cmocka_unit_test(test_cgroup_hostile),
      cmocka_unit_test(test_files),
      cmocka_unit_test(test_files_are_swept),
      cmocka_unit_test(test_host_paths),
      cmocka_unit_test(test_container_json),
      cmocka_unit_test(test_report_resend),
      cmocka_unit_test(test_report_of_texts_that_were_cut),
      cmocka_unit_test(test_a_verdict_waits_for_a_look_that_failed),
      cmocka_unit_test(test_report_of_many_events),
      cmocka_unit_test(test_report_of_many_last_lines),
  };
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
