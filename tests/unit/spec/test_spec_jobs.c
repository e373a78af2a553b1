/* [[job]]: what it takes, what it refuses and where, and that it comes back as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/spec/spec.h"
#include "tests/unit/spec/faults.h"

#define JOB "[[job]]\nname = \"j\"\nimage = \"x:1\"\n"

static void refused(const char *lines, const char *fault) {
  struct spec_set set;
  struct spec_faults faults = {0};
  struct buf text = BUF_INIT(4096), all = BUF_INIT(8192);
  buf_printf(&text, JOB "%s\n", lines);
  assert_int_equal(spec_parse_services("f", buf_str(&text), text.len, "shop", &set, &faults), -1);
  print_faults(&faults, &all);
  if (!strstr(buf_str(&all), fault))
    fail_msg("%s: %s, not %s", lines, buf_str(&all), fault);
  spec_faults_free(&faults);
  buf_free(&text);
  buf_free(&all);
}

static struct spec_set read_set(const char *text) {
  struct spec_set set;
  struct spec_faults faults = {0};
  if (spec_parse_services("f", text, strlen(text), "shop", &set, &faults) < 0) {
    struct buf all = BUF_INIT(8192);
    print_faults(&faults, &all);
    fail_msg("%s", buf_str(&all));
  }
  return set;
}

static void everything_comes_back(void **state) {
  (void)state;
  struct spec_set set =
      read_set("[[service]]\nname = \"a\"\nimage = \"y\"\n" JOB "schedule = \"0 30 2 * * *\"\ntz = \"UTC\"\noverlap = \"replace\"\nretries = 3\n"
               "timeout = \"1h\"\nhistory = 7\nvolumes = [\"v:/data\"]\nenv = { A = \"b\" }\ndepends_on = [\"a\"]\n");
  assert_int_equal(set.service_count, 2);
  assert_null(set.services[0]->job);
  const Model__JobRules *rules = set.services[1]->job;
  assert_string_equal(rules->schedule, "0 30 2 * * *");
  assert_int_equal(rules->overlap, MODEL__OVERLAP__OVERLAP_REPLACE);
  assert_int_equal(rules->timeout_ms, 3600000);
  assert_int_equal(spec_restart(set.services[1]), MODEL__RESTART_POLICY__RESTART_NEVER);

  json_t *json = spec_set_to_json(&set);
  assert_int_equal(json_array_size(json_object_get(json, "services")), 1);
  assert_int_equal(json_array_size(json_object_get(json, "jobs")), 1);
  struct spec_set again;
  struct spec_faults faults = {0};
  assert_int_equal(spec_set_from_json(json, &again, &faults), 0);
  size_t at = again.services[0]->job ? 0 : 1;
  assert_true(spec_same_revision(again.services[at], set.services[1]));
  json_decref(json);

  struct buf text = BUF_INIT(8192), diff = BUF_INIT(8192);
  assert_int_equal(spec_service_to_toml(set.services[1], &text), 0);
  assert_non_null(strstr(buf_str(&text), "[[job]]"));
  struct spec_set third = read_set(buf_str(&text));
  assert_true(spec_same_revision(third.services[0], set.services[1]));
  /* Another schedule is another revision. */
  free(third.services[0]->job->schedule);
  third.services[0]->job->schedule = strdup("@daily");
  assert_false(spec_same_revision(third.services[0], set.services[1]));
  assert_int_equal(spec_diff(set.services[1], third.services[0], &diff), 0);
  assert_non_null(strstr(buf_str(&diff), "+schedule = \"@daily\""));
  buf_free(&text);
  buf_free(&diff);
  spec_set_free(&set);
  spec_set_free(&again);
  spec_set_free(&third);
}

static void defaults(void **state) {
  (void)state;
  struct spec_set set = read_set(JOB);
  assert_non_null(set.services[0]->job); /* without any rule it is one all the same */
  spec_fill_defaults(set.services[0]);
  assert_int_equal(set.services[0]->job->history, 20);
  assert_string_equal(set.services[0]->job->tz, "UTC");
  assert_false(set.services[0]->has_replicas);
  assert_null(set.services[0]->deploy);
  assert_non_null(set.services[0]->resources);
  spec_set_free(&set);
}

static void refusals(void **state) {
  (void)state;
  refused("port = 80", "f:4:1: job[0].port: is of a [[service]]");
  refused("replicas = 2", "f:4:1: job[0].replicas: is of a [[service]]");
  refused("domain = \"a.test\"", "is of a [[service]]");
  refused("health = \"/\"", "is of a [[service]]");
  refused("restart = \"always\"", "is of a [[service]]");
  refused("[job.readiness]\ntcp = true", "is of a [[service]]");
  refused("[job.deploy]\nmax_surge = 1", "is of a [[service]]");
  refused("host_port = 80", "is of a [[service]]");
  refused("schedule = \"61 * * * * *\"", "f:4:12: job[0].schedule: must be cron");
  refused("schedule = \"* * *\"", "must be cron");
  refused("schedule = \"0 0 0 31 2 *\"", "never happens");
  refused("schedule = \"${env.X}\"", "must be cron");
  refused("schedule = \"@daily\"\ntz = \"/etc/passwd\"", "f:5:6: job[0].tz: must be a time zone's name");
  refused("schedule = \"@daily\"\ntz = \"../x\"", "must be a time zone's name");
  refused("schedule = \"@daily\"\ntz = \"Nowhere/Land\"", "is not a time zone");
  refused("tz = \"UTC\"", "without a `schedule`");
  refused("overlap = \"forbit\"", "did you mean \"forbid\"");
  refused("retries = -1", "must be between");
  refused("timeout = 5", "expected a duration");
  refused("timeout = \"10ms\"", "must be between");
  refused("history = 0", "must be between");
  refused("shedule = \"@daily\"", "did you mean `schedule`");
  struct spec_set set;
  struct spec_faults faults = {0};
  const char *text = "[[service]]\nname = \"a\"\nimage = \"x\"\nschedule = \"@daily\"\n";
  assert_int_equal(spec_parse_services("f", text, strlen(text), "shop", &set, &faults), -1);
  assert_non_null(strstr(faults.list[0].message, "is of a [[job]]"));
  spec_faults_free(&faults);
}

static void with_others(void **state) {
  (void)state;
  struct spec_set set = read_set("[[service]]\nname = \"j\"\nimage = \"y\"\n" JOB), other = read_set(JOB);
  struct spec_faults faults = {0};
  struct buf all = BUF_INIT(8192);
  spec_check_set(&set, NULL, 0, NULL, &faults);
  print_faults(&faults, &all);
  assert_non_null(strstr(buf_str(&all), "f:4:1: shop/j.name: shop/j is there twice, as a service and as a job, first at f:1:1"));
  spec_faults_free(&faults);
  spec_set_free(&set);
  faults = (struct spec_faults){0};
  set = read_set("[[service]]\nname = \"j\"\nimage = \"y\"\n[[service]]\nname = \"k\"\nimage = \"y\"\ndepends_on = [\"j2\"]\n[[job]]\nname = "
                 "\"j2\"\nimage = \"z\"\n"
                 "privileged = true\n");
  spec_check_set(&set, other.services, 1, NULL, &faults);
  buf_reset(&all);
  print_faults(&faults, &all);
  assert_non_null(strstr(buf_str(&all), "shop/j is deployed as a job"));
  assert_non_null(strstr(buf_str(&all), "j2 is a job, which is never ready"));
  assert_non_null(strstr(buf_str(&all), "shop/j2.privileged: refused by [policy]"));
  spec_faults_free(&faults);
  spec_set_free(&set);
  spec_set_free(&other);
  buf_free(&all);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(everything_comes_back),
      cmocka_unit_test(defaults),
      cmocka_unit_test(refusals),
      cmocka_unit_test(with_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
