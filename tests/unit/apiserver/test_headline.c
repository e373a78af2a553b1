/* The first line of `status`: whether all is well, and the two weightiest reasons when it is not. */
#include "tests/unit/apiserver/world.h"

#include "orca-apiserver/headline.h"

static const char *line(const struct headline *h) {
  static char text[1000];
  headline_text(h, text, sizeof text);
  return text;
}

static void add(struct headline *h, const char *name, const char *status, const char *error, uint32_t ready, uint32_t wanted, bool newer) {
  Model__Service service = MODEL__SERVICE__INIT;
  char project[] = "shop", copy[64];
  snprintf(copy, sizeof copy, "%s", name);
  service.project = project;
  service.name = copy;
  struct api_view v = {.service = &service, .status = status, .ready = ready, .replicas = wanted, .last_error = error, .secrets_newer = newer};
  headline_service(h, &v);
}

static void well(void **state) {
  (void)state;
  struct headline h = {0};
  assert_string_equal(line(&h), "All is well: nothing is deployed yet");
  struct headline noted = {0}, other = {.project = "shp"};
  headline_add(&noted, 10, "a certificate ends soon");
  assert_string_equal(line(&noted), "All is well: nothing is deployed yet; a certificate ends soon");
  assert_string_equal(line(&other), "All is well: nothing of project shp is deployed");
  add(&h, "web", "running", "", 2, 2, false);
  assert_string_equal(line(&h), "All is well: 1 service, 2 of 2 instances ready");
  struct headline surge = {0};
  add(&surge, "web", "deploying", "", 4, 3, false);
  assert_string_equal(line(&surge), "All is well: 1 service, 3 of 3 instances ready; shop/web is being deployed");
  add(&h, "db", "stopped", "", 0, 0, false);
  assert_string_equal(line(&h), "All is well: 2 services, 2 of 2 instances ready");
  add(&h, "api", "deploying", "", 0, 1, false);
  assert_string_equal(line(&h), "All is well: 3 services, 2 of 3 instances ready; shop/api is being deployed");
  add(&h, "old", "running", "", 1, 1, true);
  assert_string_equal(line(&h),
                      "All is well: 4 services, 3 of 4 instances ready; shop/api is being deployed; shop/old runs with older secrets than there are");
}

static void the_two_weightiest(void **state) {
  (void)state;
  struct headline h = {0};
  add(&h, "web", "degraded", "", 1, 2, false);
  assert_string_equal(line(&h), "Not well: shop/web has too few ready instances");
  add(&h, "db", "crashing", "exit code 1", 0, 1, false);
  assert_string_equal(line(&h), "Not well: shop/db is in a crash loop: exit code 1; shop/web has too few ready instances");
  add(&h, "api", "pending", "no node fits: n1: memory: needs 80 MiB, 20 MiB free", 0, 1, false);
  add(&h, "x", "deploying", "", 0, 1, false);
  assert_string_equal(
      line(&h),
      "Not well: shop/db is in a crash loop: exit code 1; shop/api is pending: no node fits: n1: memory: needs 80 MiB, 20 MiB free (and 1 more)");
  add(&h, "y", "failed", "no progress for 300 s", 0, 1, false);
  headline_add(&h, 98, "the store's disk is full: changes are refused");
  assert_memory_equal(line(&h), "Not well: the store's disk is full: changes are refused; shop/y has failed: no progress for 300 s (and 3 more)",
                      100);
  headline_add(&h, 100, "the store is away");
  assert_memory_equal(line(&h), "Not well: the store is away; the store's disk is full", 50);
}

static void jobs(void **state) {
  (void)state;
  struct headline h = {0};
  char project[] = "shop", name[] = "nightly", reason[] = "exit code 3", nowhere[] = "no node fits", zone[] = "time zone X is not known here";
  Model__Job job = MODEL__JOB__INIT;
  Model__JobState told = MODEL__JOB_STATE__INIT;
  Model__JobRun last = MODEL__JOB_RUN__INIT;
  Model__Instance instance = MODEL__INSTANCE__INIT;
  job.project = project;
  job.name = name;
  headline_job(&h, &job, NULL, NULL, NULL);
  assert_string_equal(line(&h), "All is well: 1 job");
  headline_job(&h, &job, &told, &last, NULL);
  add(&h, "web", "running", "", 2, 2, false);
  assert_string_equal(line(&h), "All is well: 1 service, 2 jobs, 2 of 2 instances ready");
  last.state = MODEL__RUN_STATE__RUN_SUCCEEDED;
  headline_job(&h, &job, &told, &last, NULL);
  assert_int_equal(h.wrong, 0);
  last.state = MODEL__RUN_STATE__RUN_FAILED;
  last.reason = reason;
  headline_job(&h, &job, &told, &last, NULL);
  assert_string_equal(line(&h), "Not well: the last run of job shop/nightly has failed: exit code 3");
  last.state = MODEL__RUN_STATE__RUN_TIMED_OUT;
  h = (struct headline){0};
  headline_job(&h, &job, &told, &last, NULL);
  assert_memory_equal(line(&h), "Not well: the last run of job shop/nightly has timed out", 50);
  instance.reason = nowhere;
  h = (struct headline){0};
  headline_job(&h, &job, &told, &last, &instance);
  assert_string_equal(line(&h), "Not well: job shop/nightly is pending: no node fits");
  told.error = zone;
  h = (struct headline){0};
  headline_job(&h, &job, &told, &last, NULL);
  assert_string_equal(line(&h), "Not well: job shop/nightly: time zone X is not known here");
}

static void more_than_are_kept(void **state) {
  (void)state;
  struct headline h = {0};
  for (int i = 0; i < 1000; i++)
    add(&h, "web", i % 2 ? "crashing" : "failed", "a reason", 0, 1, false);
  assert_int_equal(h.count, HEADLINE_REASONS);
  assert_int_equal(h.wrong, 1000);
  assert_string_equal(h.reasons[0].text, "shop/web has failed: a reason");
  assert_non_null(strstr(line(&h), "(and 998 more)"));
}

static void nodes_and_scheduler(void **state) {
  (void)state;
  struct api_cache cache = {0};
  struct headline h = {0};
  Model__Node node = MODEL__NODE__INIT;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  Model__Leader leader = MODEL__LEADER__INIT;
  char name[] = "n1", reason[] = "agent is not connected", docker[] = "connection refused";
  node.name = status.name = leader.node = name;
  status.reason = reason;
  assert_int_equal(api_cache_put_message(&cache, "/nodes/n1", &node.base, 1, NULL), 0);
  assert_int_equal(api_cache_put_message(&cache, "/node-status/n1", &status.base, 2, NULL), 0);
  headline_cluster(&h, &cache, NULL);
  assert_string_equal(line(&h), "Not well: no scheduler leads: nothing new is placed; node n1 is unreachable: agent is not connected");
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_READY);
  status.docker_error = docker;
  assert_int_equal(api_cache_put_message(&cache, "/node-status/n1", &status.base, 3, NULL), 0);
  assert_int_equal(api_cache_put_message(&cache, KEY_SCHEDULER_LEADER, &leader.base, 4, NULL), 0);
  h = (struct headline){0};
  headline_cluster(&h, &cache, NULL);
  assert_string_equal(line(&h), "Not well: Docker on node n1 does not answer: connection refused");
  api_cache_fini(&cache);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(well), cmocka_unit_test(the_two_weightiest), cmocka_unit_test(more_than_are_kept),
                                     cmocka_unit_test(jobs), cmocka_unit_test(nodes_and_scheduler)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
