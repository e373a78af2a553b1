/* Arguments, names, what a deploy sends and shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orcactl/api.h"
#include "common/http/http.h"
#include "orcactl/ctl.h"
#include "orcactl/infra.h"
#include "orcactl/progress.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static int real_out, real_err;

static void quiet(void) {
  fflush(stdout);
  real_out = dup(1);
  real_err = dup(2);
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, 1);
  dup2(null, 2);
  close(null);
}

static void loud(void) {
  fflush(stdout);
  fflush(stderr);
  dup2(real_out, 1);
  dup2(real_err, 2);
  close(real_out);
  close(real_err);
}

#define PARSE(ctl, stop, ...) parse((ctl), (stop), (const char *[]){"orcactl", __VA_ARGS__, NULL})

static int parse(struct ctl *ctl, bool *stop, const char *const *argv) {
  int argc = 0;
  while (argv[argc])
    argc++;
  *ctl = (struct ctl){0};
  quiet();
  int rc = ctl_parse(ctl, argc, (char **)(uintptr_t)argv, stop);
  loud();
  return rc;
}

static void test_arguments(void **state) {
  (void)state;
  struct ctl ctl;
  bool stop;
  assert_int_equal(PARSE(&ctl, &stop, "-C", "infra", "deploy", "web", "--prune", "-o", "json", "db", "-y"), CTL_OK);
  assert_false(stop);
  assert_string_equal(ctl.command->name, "deploy");
  assert_string_equal(ctl.dir, "infra");
  assert_int_equal(ctl.argc, 2);
  assert_string_equal(ctl.argv[1], "db");
  assert_true(ctl_flag(&ctl, "prune") && !ctl_flag(&ctl, "no-wait") && ctl.yes && ctl.output == CTL_JSON);
  assert_int_equal(PARSE(&ctl, &stop, "rollback", "web", "--to=7", "--context", "c"), CTL_OK);
  assert_string_equal(ctl_value(&ctl, "to"), "7");
  assert_string_equal(ctl.context_name, "c");
  assert_int_equal(PARSE(&ctl, &stop, "events", "-fn20", "-owide"), CTL_OK);
  assert_true(ctl_flag(&ctl, "follow") && ctl.output == CTL_WIDE);
  assert_string_equal(ctl_value(&ctl, "tail"), "20");
  assert_int_equal(PARSE(&ctl, &stop, "ps", "--", "-odd"), CTL_OK);
  assert_string_equal(ctl.argv[0], "-odd");
  assert_int_equal(PARSE(&ctl, &stop, "--version"), CTL_OK);
  assert_string_equal(ctl.command->name, "version");
}

static void test_exec_arguments(void **state) {
  (void)state;
  struct ctl ctl;
  bool stop;
  assert_int_equal(PARSE(&ctl, &stop, "exec", "-it", "-eA=1", "api", "--env", "B=2", "-u", "0", "--", "ls", "-it", "--help"), CTL_OK);
  assert_false(stop);
  assert_true(ctl_flag(&ctl, "stdin") && ctl_flag(&ctl, "tty"));
  assert_string_equal(ctl_value_at(&ctl, "env", 0), "A=1");
  assert_string_equal(ctl_value_at(&ctl, "env", 1), "B=2");
  assert_null(ctl_value_at(&ctl, "env", 2));
  assert_null(ctl_value(&ctl, "workdir"));
  assert_int_equal(ctl.argc, 4);
  assert_string_equal(ctl.argv[3], "--help");
  /* From the command's first word on nothing is orcactl's own, also without "--". */
  assert_int_equal(PARSE(&ctl, &stop, "exec", "-i", "api", "-u0", "ls", "-t", "--", "--help"), CTL_OK);
  assert_false(stop);
  assert_true(ctl_flag(&ctl, "stdin") && !ctl_flag(&ctl, "tty"));
  assert_string_equal(ctl_value(&ctl, "user"), "0");
  assert_int_equal(ctl.argc, 5);
  assert_string_equal(ctl.argv[2], "-t");
  assert_string_equal(ctl.argv[3], "--");
  assert_string_equal(ctl.argv[4], "--help");
  assert_int_equal(PARSE(&ctl, &stop, "run", "image:1", "--timeout", "3s", "echo", "-d"), CTL_OK);
  assert_string_equal(ctl_value(&ctl, "timeout"), "3s");
  assert_false(ctl_flag(&ctl, "detach"));
  assert_string_equal(ctl.argv[2], "-d");
}

static void test_usage(void **state) {
  (void)state;
  struct ctl ctl;
  bool stop;
  assert_int_equal(PARSE(&ctl, &stop, "deploi"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "scale", "web"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "scale", "web", "3", "4"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "status", "--wacth"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "status", "--watch=1"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "rollback", "web", "--to"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "status", "-o", "xml"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "status", "-q"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "-C"), CTL_USAGE);
  assert_true(stop);
  char *no_argv[] = {(char[]){"orcactl"}, NULL};
  ctl = (struct ctl){0};
  quiet();
  assert_int_equal(ctl_parse(&ctl, 1, no_argv, &stop), CTL_USAGE);
  loud();
  for (size_t i = 0; i < ctl_command_count; i++) {
    char first[64], *second;
    snprintf(first, sizeof first, "%s", ctl_commands[i].name);
    if ((second = strchr(first, ' ')))
      *second++ = 0;
    assert_int_equal(second ? PARSE(&ctl, &stop, first, second, "--help") : PARSE(&ctl, &stop, first, "--help"), CTL_OK);
    assert_ptr_equal(ctl.command, &ctl_commands[i]);
    assert_true(stop);
    assert_true(ctl_commands[i].summary[0]);
  }
}

static void test_sub_verbs(void **state) {
  (void)state;
  struct ctl ctl;
  bool stop;
  assert_int_equal(PARSE(&ctl, &stop, "-C", "infra", "secrets", "-o", "json", "set", "A", "-p", "shop", "--", "-v"), CTL_OK);
  assert_false(stop);
  assert_string_equal(ctl.command->name, "secrets set");
  assert_int_equal(ctl.argc, 2);
  assert_string_equal(ctl.argv[0], "A");
  assert_string_equal(ctl.argv[1], "-v");
  assert_string_equal(ctl_value(&ctl, "project"), "shop");
  assert_true(ctl.output == CTL_JSON);
  assert_int_equal(PARSE(&ctl, &stop, "secrets"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "secrets", "--help"), CTL_OK);
  assert_int_equal(PARSE(&ctl, &stop, "secrets", "lst"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "secrets set", "A"), CTL_USAGE);
  assert_int_equal(PARSE(&ctl, &stop, "help", "secrets", "set"), CTL_OK);
  /* What follows -- is not looked at, and there may be any number of it. */
  const char *many[203] = {"orcactl", "ps", "--"};
  for (size_t i = 3; i < 202; i++)
    many[i] = i % 2 ? "--project" : "--";
  assert_int_equal(parse(&ctl, &stop, many), CTL_OK);
  assert_int_equal(ctl.argc, 199);
  assert_string_equal(ctl.argv[198], "--project");
  assert_null(ctl_value(&ctl, "project"));
}

static const char *verb(const void *list, size_t i) {
  (void)list;
  return i < ctl_command_count ? ctl_commands[i].name : NULL;
}

static const char *name_at(const void *list, size_t i) {
  return i ? NULL : list;
}

static void test_did_you_mean(void **state) {
  (void)state;
  assert_string_equal(ctl_nearest("deploi", verb, NULL), "deploy");
  assert_string_equal(ctl_nearest("statsu", verb, NULL), "status");
  assert_string_equal(ctl_nearest("rollbak", verb, NULL), "rollback");
  assert_string_equal(ctl_nearest("lgos", verb, NULL), "logs");
  assert_string_equal(ctl_nearest("rn", verb, NULL), "rm");
  assert_null(ctl_nearest("foo", verb, NULL)); /* not "job" */
  assert_null(ctl_nearest("x", name_at, (void *)(uintptr_t) "y"));
  assert_null(ctl_nearest("xyzzy-and-more", verb, NULL));
  char endless[300];
  memset(endless, 'a', sizeof endless);
  endless[sizeof endless - 1] = 0;
  ctl_nearest(endless, verb, NULL);
}

static void test_paths(void **state) {
  (void)state;
  char path[512];
  struct err err;
  assert_int_equal(api_service_path("web", "/scale", "", path, &err), 0);
  assert_string_equal(path, "/api/v1/services/web/scale");
  assert_int_equal(api_service_path("shop/web", "/rollback", "to=3", path, &err), 0);
  assert_string_equal(path, "/api/v1/services/web/rollback?project=shop&to=3");
  assert_int_equal(api_service_path("web", "", "purge=true", path, &err), 0);
  assert_string_equal(path, "/api/v1/services/web?purge=true");
  static const char *const bad[] = {"", "/", "a/", "/b", "a/b/c", "Web", "web?x=1", "../x", "web scale", "a%2fb"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(api_service_path(bad[i], "", "", path, &err), -1);
  assert_int_equal(http_escape("a b/ä", path, sizeof path), 0);
  assert_string_equal(path, "a%20b%2F%C3%A4");
  assert_int_equal(http_escape("abc", path, 3), -1);
}

static void test_only_named_services(void **state) {
  (void)state;
  static const char text[] = "[[service]]\nname = \"web\"\nimage = \"x\"\n[[service]]\nname = \"db\"\nimage = \"y\"\n";
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  struct err err;
  assert_int_equal(spec_parse_services("s", text, sizeof text - 1, "shop", &set, &faults), 0);
  const char *names[] = {"shop/db"};
  assert_int_equal(infra_keep(&set, names, 1, &err), 0);
  assert_int_equal(set.service_count, 1);
  assert_string_equal(set.services[0]->name, "db");
  names[0] = "dv";
  assert_int_equal(infra_keep(&set, names, 1, &err), -1);
  assert_non_null(strstr(err.msg, "did you mean db"));
  names[0] = "other/db";
  assert_int_equal(infra_keep(&set, names, 1, &err), -1);
  json_t *details = json_pack("[{s:s,s:s},{s:s},{s:s},{s:s}]", "path", "services[0].port", "message", "m", "path", "services[9].x", "path",
                              "services[0]", "path", "cluster.name");
  infra_name_faults(NULL, &set, details, NULL);
  assert_string_equal(api_str(json_array_get(details, 0), "path"), "shop/db: port");
  assert_string_equal(api_str(json_array_get(details, 1), "path"), "services[9].x");
  assert_string_equal(api_str(json_array_get(details, 2), "path"), "shop/db");
  assert_string_equal(api_str(json_array_get(details, 3), "path"), "cluster.name");
  json_decref(details);
  spec_set_free(&set);
  spec_faults_free(&faults);
}

static void feed(struct progress *p, const char *event, const char *data, struct buf *out) {
  json_t *json = json_loads(data, 0, NULL);
  assert_non_null(json);
  buf_reset(out);
  progress_event(p, event, json, out);
  json_decref(json);
}

static void test_progress(void **state) {
  (void)state;
  struct buf out = BUF_INIT(100000);
  struct progress p = {0};
  feed(&p, "progress", "{\"service\":\"shop/api\",\"state\":\"deploying\",\"phase\":\"one of two\",\"ready\":1,\"replicas\":2}", &out);
  assert_string_equal(buf_str(&out), "shop/api  deploying     1/2 ready  one of two\n");
  feed(&p, "done",
       "{\"ok\":false,\"services\":[{\"service\":\"shop/api\",\"state\":\"rolled_back\",\"reason\":\"it "
       "\\u001b[1mcrashed\"},{\"service\":\"a/b\",\"state\":\"running\",\"reason\":\"\"}]}",
       &out);
  assert_string_equal(buf_str(&out), "shop/api: rolled back: it crashed\n");
  feed(&p, "progress", "{\"service\":7,\"state\":[],\"ready\":\"x\"}", &out); /* nonsense is shown as nothing, not believed */
  feed(&p, "unknown", "{}", &out);
  assert_string_equal(buf_str(&out), "");
  progress_free(&p);
  /* on a terminal the lines are drawn again */
  p = (struct progress){.live = true, .width = 30, .height = 24};
  feed(&p, "progress", "{\"service\":\"a/b\",\"state\":\"deploying\",\"phase\":\"a phase that is too long for this\",\"ready\":0,\"replicas\":1}",
       &out);
  assert_string_equal(buf_str(&out), "\ra/b  deploying     0/1 ready …\033[K\n");
  feed(&p, "progress", "{\"service\":\"a/c\",\"state\":\"pending\",\"phase\":\"\",\"ready\":0,\"replicas\":1}", &out);
  assert_non_null(strstr(buf_str(&out), "\033[1A\ra/b"));
  progress_free(&p);
  buf_free(&out);
}

static void test_status_page(void **state) {
  (void)state;
  struct ctl ctl = {0};
  struct buf out = BUF_INIT(100000);
  json_t *reply = json_loads("{\"well\":true,\"summary\":\"All is well: 1 service\",\"reasons\":[],\"services\":["
                             "{\"project\":\"shop\",\"name\":\"web\",\"status\":\"running\",\"replicas\":2,\"ready_replicas\":2,\"running_"
                             "replicas\":2,\"image\":\"x:1\",\"domain\":\"w.test\","
                             "\"revision\":3,\"nodes\":[\"n1\"],\"cpu\":0.25,\"memory\":2097152,\"last_error\":\"\"}]}",
                             0, NULL);
  json_t *services = json_object_get(reply, "services");
  view_status(&ctl, reply, &out);
  assert_string_equal(buf_str(&out), "All is well: 1 service\n\n"
                                     "SERVICE   STATUS   READY  IMAGE  DOMAIN  REV   CPU  MEMORY\n"
                                     "shop/web  running    2/2  x:1    w.test    3  0.25   2.0Mi\n");
  json_object_set_new(json_array_get(services, 0), "status", json_string("rolled_back"));
  json_object_set_new(json_array_get(services, 0), "last_error", json_string("exit 1\nagain"));
  json_object_set_new(reply, "summary", json_string("Not well: \033[2Jit"));
  buf_reset(&out);
  view_status(&ctl, reply, &out);
  assert_true(strncmp(buf_str(&out), "Not well: ", 10) == 0);
  assert_null(strchr(buf_str(&out), '\033'));
  assert_non_null(strstr(buf_str(&out), "shop/web: rolled back to revision 3: exit 1 again\n"));
  buf_reset(&out);
  json_array_clear(services);
  view_status(&ctl, reply, &out);
  assert_int_equal(strcspn(buf_str(&out), "\n") + 1, out.len);
  json_decref(reply);
  buf_free(&out);
}

static void expect_fit(unsigned rows, const char *want) {
  struct buf out = BUF_INIT(10000);
  view_fit("\033[31mNot well\033[0m\n\n12345678901\n1234567890\nend\n", rows, 10, &out);
  assert_string_equal(buf_str(&out), want);
  buf_free(&out);
}

/* A page that is drawn again and again begins in the first row, however low the window is. */
static void test_a_page_fits_the_window(void **state) {
  (void)state;
#define FIRST "\033[31mNot well\033[0m\033[K\n"
  expect_fit(0, FIRST "\033[K\n12345678901\033[K\n1234567890\nend\033[K\n\033[J");
  expect_fit(7, FIRST "\033[K\n12345678901\033[K\n1234567890\nend\033[K\n\033[J");
  expect_fit(6, FIRST "\033[K\n12345678901\033[K\n1234567890\n\033[J(1 more line: a higher window shows them)");
  expect_fit(4, FIRST "\033[K\n\033[J(3 more lines: a higher window shows them)");
}

int main(void) {
  setenv("LC_ALL", "C.UTF-8", 1);
  text_init();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_arguments),
      cmocka_unit_test(test_exec_arguments),
      cmocka_unit_test(test_usage),
      cmocka_unit_test(test_sub_verbs),
      cmocka_unit_test(test_did_you_mean),
      cmocka_unit_test(test_paths),
      cmocka_unit_test(test_only_named_services),
      cmocka_unit_test(test_progress),
      cmocka_unit_test(test_status_page),
      cmocka_unit_test(test_a_page_fits_the_window),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
