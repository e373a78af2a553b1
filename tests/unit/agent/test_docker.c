/* Docker's answers, good and hostile; its streams; names of images; registry logins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-agent/docker.h"
#include "orca-agent/docker_auth.h"
#include "orca-agent/docker_frames.h"
#include "orca-agent/docker_lines.h"
#include "orca-agent/docker_parse.h"
#include "common/image_ref.h"
#include "tests/unit/agent/bare_agent.h"
#include "tests/unit/agent/fake_docker.h"
#include "tests/lib/folder.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LABELS                                                                                                                                       \
  "\"orca.cluster\":\"c1\",\"orca.node\":\"n1\",\"orca.project\":\"shop\",\"orca.service\":\"api\",\"orca.instance\":\"3\",\"orca.revision\":\"2\"," \
  "\"orca.epoch\":\"4\""

static const struct docker_self self = {"c1", "n1"};

static json_t *json_of(const char *text) {
  json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
  assert_non_null(json);
  return json;
}

static void test_time(void **state) {
  (void)state;
  assert_int_equal(docker_parse_time("2026-11-21T12:00:00Z"), INT64_C(1795262400) * NS_PER_SEC);
  assert_int_equal(docker_parse_time("2026-11-21T12:00:00.5Z"), INT64_C(1795262400) * NS_PER_SEC + 500000000);
  assert_int_equal(docker_parse_time("2026-11-21T13:00:00.000000001+01:00"), INT64_C(1795262400) * NS_PER_SEC + 1);
  static const char *const bad[] = {"0001-01-01T00:00:00Z",     "",
                                    "2026-11-21 12:00:00Z",     "2026-13-21T12:00:00Z",
                                    "2026-11-21T12:00:00",      "2026-11-21T12:00:00.5",
                                    "2026-11-21T12:00:00+1:00", "-----------------------",
                                    "9999-11-21T12:00:00Z"};
  for (size_t n = 0; n < sizeof bad / sizeof *bad; n++)
    assert_int_equal(docker_parse_time(bad[n]), 0);
}

static void test_inspect(void **state) {
  (void)state;
  struct agent_container c;
  struct err err;
  json_t *json =
      json_of("{\"Id\":\"" ID "\",\"Name\":\"/orca-c1-n1-shop-api-3\",\"State\":{\"Status\":\"running\",\"Running\":true,\"Pid\":77,\"ExitCode\":0,"
              "\"StartedAt\":\"2026-11-21T12:00:00Z\",\"FinishedAt\":\"0001-01-01T00:00:00Z\"},\"Config\":{\"Labels\":{" LABELS "}},"
              "\"HostConfig\":{\"NetworkMode\":\"orca-c1-shop\"},\"NetworkSettings\":{\"Networks\":{\"other\":{\"IPAddress\":\"1.2.3.4\"},"
              "\"orca-c1-shop\":{\"IPAddress\":\"172.18.0.2\"}}}}");
  assert_int_equal(docker_parse_inspect(json, &self, &c, &err), 0);
  assert_true(c.ours);
  assert_int_equal(c.state, AGENT_C_RUNNING);
  assert_string_equal(c.address, "172.18.0.2");
  assert_string_equal(c.name, "orca-c1-n1-shop-api-3");
  assert_int_equal(c.number, 3);
  assert_int_equal(c.epoch, 4);
  assert_int_equal(c.pid, 77);
  const struct docker_self other = {"c1", "n2"};
  assert_int_equal(docker_parse_inspect(json, &other, &c, &err), 0);
  assert_false(c.ours);
  json_decref(json);
}

static void test_hostile_inspect(void **state) {
  (void)state;
  static const char *const bad[] = {
      "[]",
      "{}",
      "null",
      "{\"Id\":7,\"State\":{}}",
      "{\"Id\":\"" ID "\"}",
      "{\"Id\":\"../../x\",\"State\":{}}",
      "{\"Id\":\"" ID ID "\",\"State\":{}}",
      "{\"Id\":\"" ID "\",\"State\":\"running\"}",
  };
  struct agent_container c;
  struct err err;
  for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
    json_t *json = json_of(bad[n]);
    assert_int_equal(docker_parse_inspect(json, &self, &c, &err), -1);
    json_decref(json);
  }
  json_t *json = json_of(
      "{\"Id\":\"" ID
      "\",\"State\":{\"Status\":[],\"Pid\":\"x\",\"ExitCode\":99999999999999},\"Config\":{\"Labels\":[1]},\"NetworkSettings\":{\"Networks\":7}}");
  assert_int_equal(docker_parse_inspect(json, &self, &c, &err), 0);
  assert_false(c.ours);
  assert_int_equal(c.state, AGENT_C_UNKNOWN);
  assert_int_equal(c.exit_code, -1);
  json_decref(json);
  json = json_of("{\"Id\":\"" ID "\",\"State\":{\"Status\":\"running\"},\"Config\":{\"Labels\":{" LABELS "}},\"HostConfig\":{\"NetworkMode\":\"x\"},"
                 "\"NetworkSettings\":{\"Networks\":{\"x\":{\"IPAddress\":\"$(reboot)\"}}}}");
  assert_int_equal(docker_parse_inspect(json, &self, &c, &err), 0);
  assert_string_equal(c.address, "");
  json_decref(json);
}

static void test_list(void **state) {
  (void)state;
  struct agent_container *list;
  size_t count;
  struct err err;
  json_t *json = json_of(
      "[{\"Id\":\"" ID "\",\"Names\":[\"/a\"],\"State\":\"exited\",\"Labels\":{" LABELS "}},{\"Id\":\"zz\"},7,{\"Id\":\"" ID "\",\"Names\":[]},"
      "{\"Id\":\"" ID
      "\",\"Names\":[\"/b\"],\"State\":\"running\",\"Labels\":{\"orca.cluster\":\"c1\",\"orca.node\":\"n1\",\"orca.project\":\"../x\","
      "\"orca.service\":\"api\",\"orca.instance\":\"1\"}}]");
  assert_int_equal(docker_parse_list(json, &self, &list, &count, &err), 0);
  assert_int_equal(count, 2);
  assert_true(list[0].ours);
  assert_int_equal(list[0].state, AGENT_C_EXITED);
  assert_false(list[1].ours);
  free(list);
  json_decref(json);
  json = json_of("{\"message\":\"no\"}");
  assert_int_equal(docker_parse_list(json, &self, &list, &count, &err), -1);
  json_decref(json);
}

static void test_events(void **state) {
  (void)state;
  struct agent_event ev;
  json_t *json = json_of("{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"" ID
                         "\",\"Attributes\":{\"exitCode\":\"137\",\"orca.cluster\":\"c1\",\"orca.node\":\"n1\"}},"
                         "\"timeNano\":1795262400000000001}");
  assert_true(docker_parse_event(json, &self, &ev));
  assert_int_equal(ev.what, AGENT_CE_DIE);
  assert_int_equal(ev.exit_code, 137);
  assert_int_equal(ev.time_ns, INT64_C(1795262400000000001));
  json_object_set_new(json, "Action", json_string("exec_die"));
  assert_false(docker_parse_event(json, &self, &ev));
  json_object_set_new(json, "Action", json_string("die"));
  json_object_set_new(json_object_get(json_object_get(json, "Actor"), "Attributes"), "orca.node", json_string("n2"));
  assert_false(docker_parse_event(json, &self, &ev));
  json_decref(json);
}

static void test_image(void **state) {
  (void)state;
  char id[AGENT_IMAGE_MAX], digest[AGENT_IMAGE_MAX];
  struct err err;
  json_t *json = json_of("{\"Id\":\"sha256:" ID "\",\"RepoDigests\":[\"other@sha256:" ID "\",\"busybox@sha256:" ID "\"]}");
  assert_int_equal(docker_parse_image(json, "docker.io/library/busybox:1", id, digest, &err), 0);
  assert_string_equal(id, "sha256:" ID);
  assert_string_equal(digest, "busybox@sha256:" ID);
  assert_int_equal(docker_parse_image(json, "elsewhere.example/busybox:1", id, digest, &err), 0);
  assert_string_equal(digest, "");
  json_decref(json);
  json = json_of("{\"Id\":\"busybox\"}");
  assert_int_equal(docker_parse_image(json, "busybox", id, digest, &err), -1);
  json_decref(json);
}

static void test_image_names(void **state) {
  (void)state;
  struct image_ref ref;
  assert_int_equal(image_ref_parse("busybox", &ref), 0);
  assert_string_equal(ref.registry, "docker.io");
  assert_string_equal(ref.path, "library/busybox");
  assert_string_equal(ref.tag, "latest");
  assert_int_equal(image_ref_parse("registry.example.com:5000/shop/api:1.4@sha256:" ID, &ref), 0);
  assert_string_equal(ref.registry, "registry.example.com:5000");
  assert_string_equal(ref.path, "shop/api");
  assert_string_equal(ref.tag, "1.4");
  assert_string_equal(ref.digest, "sha256:" ID);
  assert_int_equal(image_ref_parse("prom/exporter", &ref), 0);
  assert_string_equal(ref.path, "prom/exporter");
  assert_true(image_ref_floats("a/b"));
  assert_true(image_ref_floats("localhost/b:latest"));
  assert_false(image_ref_floats("a/b:1"));
  assert_false(image_ref_floats("a/b@sha256:" ID));
  assert_true(image_ref_is_id("sha256:" ID));
  static const char *const bad[] = {"", ":1", "a:", "a@sha256:12", "a b", "a/../b?x=1", "a//b", "x.y/", "/a", "a#b", "a\nb"};
  for (size_t n = 0; n < sizeof bad / sizeof *bad; n++)
    assert_int_equal(image_ref_parse(bad[n], &ref), -1);
}

static void test_pull_progress(void **state) {
  (void)state;
  struct docker_pull pull = {.count = 0};
  char text[64];
  static const char *const lines[] = {"{\"status\":\"Pulling from library/x\",\"id\":\"latest\"}",
                                      "{\"status\":\"Already exists\",\"id\":\"aaa\"}",
                                      "{\"status\":\"Downloading\",\"id\":\"bbb\",\"progressDetail\":{\"current\":41,\"total\":100}}",
                                      "{\"status\":\"Downloading\",\"id\":\"bbb\",\"progressDetail\":{\"current\":-5,\"total\":99999999999999999}}",
                                      "[]",
                                      "7"};
  for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) {
    json_t *json = json_of(lines[n]);
    docker_pull_line(&pull, json);
    json_decref(json);
  }
  docker_pull_text(&pull, text);
  assert_string_equal(text, "1 of 2 layers, 41 %");
  json_t *json = json_of("{\"error\":\"manifest unknown\"}");
  docker_pull_line(&pull, json);
  json_decref(json);
  assert_string_equal(pull.error, "manifest unknown");
}

static bool keep_line(void *arg, const char *text, size_t len) {
  struct buf *b = arg;
  buf_add(b, text, len);
  return buf_add_byte(b, '|') == 0;
}

static void keep_frame(void *arg, int stream, const uint8_t *data, size_t len) {
  struct buf *b = arg;
  (void)stream;
  buf_add(b, data, len);
}

static void test_streams(void **state) {
  (void)state;
  struct docker_lines lines = DOCKER_LINES_INIT;
  struct buf out = BUF_INIT(1000);
  const char text[] = "{\"a\":1}\r\n\n{\"b\"";
  for (size_t n = 0; n < sizeof text - 1; n++)
    assert_true(docker_lines_feed(&lines, (const uint8_t *)text + n, 1, keep_line, &out));
  assert_true(docker_lines_feed(&lines, (const uint8_t *)":2}\n", 4, keep_line, &out));
  assert_string_equal(buf_str(&out), "{\"a\":1}|{\"b\":2}|");
  uint8_t *giant = malloc(DOCKER_LINE_MAX + 1);
  memset(giant, 'x', DOCKER_LINE_MAX + 1);
  assert_false(docker_lines_feed(&lines, giant, DOCKER_LINE_MAX + 1, keep_line, &out));
  free(giant);
  docker_lines_fini(&lines);
  buf_reset(&out);
  struct docker_frames frames = {.have = 0};
  const uint8_t framed[] = {1, 0, 0, 0, 0, 0, 0, 2, 'h', 'i', 2, 0, 0, 0, 0, 0, 0, 1, '!', 1, 0, 0, 0, 0, 0, 0, 0};
  for (size_t n = 0; n < sizeof framed; n++)
    assert_true(docker_frames_feed(&frames, framed + n, 1, keep_frame, &out));
  assert_string_equal(buf_str(&out), "hi!");
  const uint8_t nonsense[] = {7, 1, 2, 3, 4, 5, 6, 7};
  assert_false(docker_frames_feed(&frames, nonsense, sizeof nonsense, keep_frame, &out));
  buf_free(&out);
}

static void test_registry_login(void **state) {
  (void)state;
  /* user:pa>>s? → its base64 in the header has both - and _ where the standard alphabet would have + and /. */
  json_t *json = json_of("{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dXNlcjpwYT4+cz8=\"},\"r.example:5000\":{\"identitytoken\":\"t\"},"
                         "\"bad.example\":{\"auth\":\"!!!\"},\"worse.example\":7}}");
  char *header = docker_auth_header_from(json, "docker.io");
  assert_non_null(header);
  assert_int_equal(strncmp(header, "X-Registry-Auth: ", 17), 0);
  assert_null(strpbrk(header + 17, "+/ \n"));
  docker_auth_free(header);
  header = docker_auth_header_from(json, "r.example:5000");
  assert_non_null(header);
  docker_auth_free(header);
  assert_null(docker_auth_header_from(json, "bad.example"));
  assert_null(docker_auth_header_from(json, "worse.example"));
  assert_null(docker_auth_header_from(json, "unknown.example"));
  json_decref(json);
  json = json_of("{\"auths\":{\"https://b.example/v2/\":{\"auth\":\"dXNlcjpwYT4+cz8=\"},\"a.example\":{\"auth\":\"\"}}}");
  header = docker_auth_header_from(json, "b.example"); /* as Docker of old wrote it */
  assert_non_null(header);
  docker_auth_free(header);
  assert_null(docker_auth_header_from(json, "a.example"));
  json_decref(json);
  assert_null(docker_auth_header_from(NULL, "a.example"));
}

static void test_registry_login_file(void **state) {
  (void)state;
  static const char login[] = "{\"auths\":{\"r.example\":{\"auth\":\"dXNlcjpwYT4+cz8=\"}}}";
  char dir[FOLDER_MAX], path[FOLDER_MAX + 16];
  folder_make(dir);
  setenv("DOCKER_CONFIG", dir, 1);
  assert_null(docker_auth_header("r.example"));
  folder_put_text(dir, "config.json", "{ half");
  assert_null(docker_auth_header("r.example"));
  folder_put_text(dir, "config.json", login);
  char *header = docker_auth_header("r.example");
  assert_non_null(header);
  docker_auth_free(header);
  unsetenv("DOCKER_CONFIG");
  snprintf(path, sizeof path, "%s/config.json", dir);
  assert_int_equal(unlink(path), 0);
  folder_put_text(dir, ".docker/config.json", login);
  setenv("HOME", dir, 1);
  header = docker_auth_header("r.example");
  assert_non_null(header);
  docker_auth_free(header);
  folder_remove(dir);
}

struct ended {
  unsigned count;
  enum err_code code;
};

static void on_ended(void *arg, const struct docker_reply *reply) {
  struct ended *e = arg;
  e->count++;
  e->code = reply->code;
}

static void nothing_up(void *arg, const char *text) {
  (void)arg;
  fail_msg("%s", text);
}

static void no_event(void *arg, const json_t *event) {
  (void)arg;
  (void)event;
  fail_msg("an event");
}

/* What is under way when the agent ends is told, so that whoever asked can let go of it; the link says nothing any more. */
static void test_the_end_of_the_client(void **state) {
  (void)state;
  static const struct docker_link_ops ops = {nothing_up, nothing_up, no_event};
  struct err err;
  struct agent *a = bare_agent_new(NULL);
  bare_agent_connect(a, "/nonexistent/docker.sock");
  assert_int_equal(docker_link_start(a->docker, "{}", &ops, NULL, &err), 0);
  struct ended ended = {0};
  for (int i = 0; i < 3; i++)
    assert_non_null(docker_call(a->docker, &(struct docker_options){.method = "GET", .path = "/info", .done = on_ended, .arg = &ended}));
  docker_free(a->docker);
  a->docker = NULL;
  assert_int_equal(ended.count, 3);
  assert_int_equal(ended.code, ERR_CANCELLED);
  bare_agent_free(a);
}

/* A Docker that says its version, and of two containers that they have died: one an hour from now, one now. */
static void say_deaths(int fd, const char *asked) {
  static const char version[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\nConnection: close\r\n\r\n"
                                "{\"Version\":\"20.10\"}";
  char line[256], answer[1024];
  if (strstr(asked, "/version")) {
    send(fd, version, sizeof version - 1, 0);
    close(fd);
    return;
  }
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int len = snprintf(line, sizeof line, "{\"timeNano\":%lld}\n{\"timeNano\":%lld}\n", (now.tv_sec + 3600) * 1000000000LL, now.tv_sec * 1000000000LL);
  snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n",
           (unsigned)len, line);
  send(fd, answer, strlen(answer), 0);
}

struct heard {
  struct loop *loop;
  unsigned events;
};

static void link_up(void *arg, const char *version) {
  (void)arg;
  assert_string_equal(version, "20.10");
}

static void one_event(void *arg, const json_t *event) {
  struct heard *h = arg;
  (void)event;
  if (++h->events == 2)
    loop_stop(h->loop);
}

static void test_events_of_a_clock_that_was_put_back(void **state) {
  (void)state;
  static const struct docker_link_ops ops = {link_up, nothing_up, one_event};
  struct err err;
  struct fake_docker d;
  fake_docker_open(&d, say_deaths);
  struct agent *a = bare_agent_new(NULL);
  struct heard heard = {.loop = a->loop};
  bare_agent_connect(a, d.path);
  assert_int_equal(docker_link_start(a->docker, "{}", &ops, &heard, &err), 0);
  bare_agent_run(a, 2 * NS_PER_SEC);
  assert_int_equal(heard.events, 2);
  bare_agent_free(a);
  fake_docker_close(&d);
}

/* A master's answer, or a log's end, was waited for; meanwhile the core has begun anew. */
static void test_what_the_core_has_given_up_is_not_done(void **state) {
  (void)state;
  struct fake_docker d;
  fake_docker_open(&d, NULL);
  struct agent *a = bare_agent_new(NULL);
  bare_agent_connect(a, d.path);
  char project[] = "shop", service[] = "api", node[] = "n1";
  Model__Instance inst = MODEL__INSTANCE__INIT;
  Node__Assignment assigned = NODE__ASSIGNMENT__INIT, *list[] = {&assigned};
  Node__DesiredState desired = NODE__DESIRED_STATE__INIT;
  struct agent_actions out = {0};
  inst.project = project;
  inst.service = service;
  inst.node = node;
  PB_SET(&inst, number, 1);
  assigned.instance = &inst;
  desired.assigned = list;
  desired.n_assigned = 1;
  agent_core_step(&a->core, &(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &desired}, (struct agent_now){0}, &out);
  struct agent_instance *i = agent_core_find(&a->core, "shop/api.1");
  assert_non_null(i);
  static const enum agent_op ops[] = {AGENT_OP_REMOVE, AGENT_OP_START};
  for (size_t n = 0; n < 2; n++) {
    struct agent_action act = {.kind = AGENT_ACT_INSTANCE, .op_kind = ops[n], .op = 7, .instance = "shop/api.1", .container = ID};
    i->op = AGENT_OP_NONE;
    i->op_id = 0;
    agent_docker_do(a, &act);
    if (ops[n] == AGENT_OP_START)
      agent_docker_start_container(a, &act);
    bare_agent_run(a, 20 * NS_PER_MS);
    assert_false(fake_docker_was_asked(&d));
    i->op = ops[n];
    i->op_id = 7;
    agent_docker_do(a, &act);
    bare_agent_run(a, 20 * NS_PER_MS);
    assert_true(fake_docker_was_asked(&d));
  }
  agent_actions_fini(&out);
  bare_agent_free(a);
  fake_docker_close(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_time),
      cmocka_unit_test(test_inspect),
      cmocka_unit_test(test_hostile_inspect),
      cmocka_unit_test(test_list),
      cmocka_unit_test(test_events),
      cmocka_unit_test(test_image),
      cmocka_unit_test(test_image_names),
      cmocka_unit_test(test_pull_progress),
      cmocka_unit_test(test_streams),
      cmocka_unit_test(test_registry_login),
      cmocka_unit_test(test_the_end_of_the_client),
      cmocka_unit_test(test_events_of_a_clock_that_was_put_back),
      cmocka_unit_test(test_what_the_core_has_given_up_is_not_done),
      cmocka_unit_test(test_registry_login_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
