/* Deploys of jobs, the verbs that change them, tasks: what is written, what is refused, what is shown. */
#include "orca-apiserver/deploy_plan.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/upkeep.h"
#include "tests/unit/apiserver/world.h"

#define JOB(rest) "{\"jobs\":[{\"name\":\"j\",\"project\":\"shop\",\"image\":\"x:1\"" rest "}]}"

static int setup(void **state) {
  struct world *w = world_new();
  put_token(w, "admin", "a", "admin", NULL, 0);
  put_token(w, "shopper", "s", "deployer", "shop", 0);
  *state = w;
  return 0;
}

static void say(struct world *w, const char *method, const char *path, const char *body, int status) {
  json_decref(answer_to(w, method, path, "a", body, NULL, NULL, status));
}

static const Model__Job *job(struct world *w, const char *name) {
  return api_cache_job(&w->api.cache, "shop", name, NULL);
}

static void a_revision_for_what_changed_and_a_run_for_each(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  assert_int_equal(job(w, "j")->revision, 1);
  assert_int_equal(job(w, "j")->requested, 1);
  assert_null(api_cache_service(&w->api.cache, "shop", "j", NULL));
  unsigned commits = w->commits;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  assert_int_equal(w->commits, commits);
  say(w, "POST", "/api/v1/deploy", JOB(",\"retries\":2"), 200);
  assert_int_equal(job(w, "j")->requested, 2);
  say(w, "POST", "/api/v1/deploy", JOB(",\"schedule\":\"@daily\""), 200);
  assert_int_equal(job(w, "j")->revision, 3);
  assert_int_equal(job(w, "j")->requested, 2); /* it runs by its schedule */
  /* A dry run shows the difference. */
  json_t *json = answer_to(w, "POST", "/api/v1/deploy", "a", JOB(",\"schedule\":\"@hourly\""), "dry_run", "true", 200);
  json_t *change = json_array_get(json_object_get(json, "changes"), 0);
  assert_non_null(strstr(json_string_value(json_object_get(change, "diff")), "+schedule = \"@hourly\""));
  assert_true(json_is_true(json_object_get(change, "job")));
  json_decref(json);
  assert_int_equal(job(w, "j")->revision, 3);
}

static void verbs(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(",\"schedule\":\"@daily\""), 200);
  say(w, "POST", "/api/v1/jobs/j/run", NULL, 202);
  assert_int_equal(job(w, "j")->requested, 1);
  say(w, "POST", "/api/v1/jobs/j/stop", NULL, 200);
  assert_true(job(w, "j")->suspended);
  say(w, "POST", "/api/v1/jobs/j/run", NULL, 409);
  say(w, "POST", "/api/v1/jobs/j/start", NULL, 200);
  assert_false(job(w, "j")->suspended);
  say(w, "POST", "/api/v1/jobs/j/stop", NULL, 200);
  say(w, "POST", "/api/v1/deploy", JOB(",\"schedule\":\"@daily\""), 200);
  assert_false(job(w, "j")->suspended); /* a deploy starts what was stopped */
  say(w, "POST", "/api/v1/stop", NULL, 200);
  assert_true(job(w, "j")->suspended);
  say(w, "DELETE", "/api/v1/jobs/j", NULL, 200);
  assert_null(job(w, "j"));
  assert_null(api_cache_revision(&w->api.cache, "shop", "j", 1));
  say(w, "DELETE", "/api/v1/jobs/j", NULL, 404);
}

static void asked_for_without_end(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(",\"schedule\":\"@daily\""), 200);
  for (int i = 0; i < 100; i++)
    say(w, "POST", "/api/v1/jobs/j/run", NULL, 202);
  say(w, "POST", "/api/v1/jobs/j/run", NULL, 429);
  assert_int_equal(job(w, "j")->requested, 100);
}

static void pruned_but_not_tasks(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  say(w, "POST", "/api/v1/tasks", "{\"image\":\"x:1\",\"name\":\"t\",\"project\":\"shop\"}", 202);
  json_t *json =
      answer_to(w, "POST", "/api/v1/deploy", "a", "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:1\"}]}", "prune", "true", 200);
  assert_string_equal(json_string_value(json_array_get(json_object_get(json, "removed"), 0)), "shop/j");
  json_decref(json);
  assert_null(job(w, "j"));
  assert_true(job(w, "t")->task);
}

static void names_are_shared_with_services(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  say(w, "POST", "/api/v1/deploy", "{\"services\":[{\"name\":\"j\",\"project\":\"shop\",\"image\":\"x:1\"}]}", 422);
  say(w, "POST", "/api/v1/deploy",
      "{\"services\":[{\"name\":\"k\",\"project\":\"shop\",\"image\":\"x:1\"}],\"jobs\":[{\"name\":\"k\",\"project\":\"shop\",\"image\":\"x:1\"}]}",
      422);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  say(w, "POST", "/api/v1/deploy", "{\"jobs\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:1\"}]}", 422);
  say(w, "POST", "/api/v1/tasks", "{\"image\":\"x:1\",\"name\":\"api\",\"project\":\"shop\"}", 409);
  say(w, "POST", "/api/v1/tasks", "{\"image\":\"x:1\",\"name\":\"j\",\"project\":\"shop\"}", 409);
}

static void tasks(void **state) {
  struct world *w = *state;
  say(w, "POST", "/tasks",
      "{\"image\":\"x:1\",\"name\":\"t\",\"project\":\"shop\",\"command\":[\"a\",\"b "
      "c\"],\"memory\":\"64Mi\",\"cpu\":0.5,\"portBindings\":{\"80/tcp\":\"8080\",\"53/udp\":53},"
      "\"nodeSelectors\":{\"disk\":\"ssd\"},\"restartPolicy\":\"no\",\"env\":{\"A\":\"1\"}}",
      202);
  const Model__ServiceSpec *spec = api_cache_revision(&w->api.cache, "shop", "t", 1)->spec;
  assert_string_equal(spec->command[1], "b c");
  assert_int_equal(spec->resources->memory, 64 << 20);
  assert_int_equal(spec->resources->cpu_milli, 500);
  assert_int_equal(spec->n_extra_ports, 2);
  assert_string_equal(spec->placement->labels[0]->value, "ssd");
  assert_non_null(spec->job);
  assert_int_equal(job(w, "t")->requested, 1);
  json_t *json = answer_to(w, "POST", "/tasks", "a", "{\"image\":\"x:1\"}", NULL, NULL, 202); /* a name is made up */
  assert_int_equal(strncmp(json_string_value(json_object_get(json, "job")), "default/task-", 13), 0);
  json_decref(json);
  static const char *const bad[] = {
      "{}",
      "{\"image\":\"\"}",
      "{\"image\":\"x\",\"privileged\":true}",
      "{\"image\":\"x\",\"mounts\":[\"/:/h\"]}",
      "{\"image\":\"x\",\"network\":\"host\"}",
      "{\"image\":\"x\",\"restartPolicy\":\"always\"}",
      "{\"image\":\"x\",\"name\":\"a b\"}",
      "{\"image\":\"x\",\"name\":\"-\"}",
      "{\"image\":\"x\",\"portBindings\":[]}",
      "{\"image\":\"x\",\"portBindings\":{\"80\":\"0\"}}",
      "{\"image\":\"x\",\"portBindings\":{\"80/tcp\":\"99999\"}}",
      "{\"image\":\"x\",\"portBindings\":{\"0/tcp\":\"80\"}}",
      "{\"image\":\"x\",\"portBindings\":{\"80/icmp\":\"80\"}}",
      "{\"image\":\"x\",\"portBindings\":{\"80/tcp\":\"80x\"}}",
      "{\"image\":\"x\",\"portBindings\":{\"80/tcp\":\"80\",\"81/tcp\":\"80\"}}",
      "{\"image\":\"x\",\"nodeSelectors\":[\"a\"]}",
      "{\"image\":\"x\",\"command\":\"sh\"}",
      "{\"image\":\"x\",\"memory\":\"much\"}",
      "{\"image\":\"x\",\"cpu\":\"1\"}",
      "{\"image\":\"x\",\"labels\":{\"orca.cluster\":\"x\"}}",
      "{\"image\":\"x\",\"env\":{\"A B\":\"x\"}}",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    say(w, "POST", "/tasks", bad[i], 400);
  json_decref(answer_to(w, "POST", "/tasks", "s", "{\"image\":\"x\",\"project\":\"other\"}", NULL, NULL, 403));
  json_decref(answer_to(w, "POST", "/tasks", "s", "{\"image\":\"x\"}", "project", "shop", 202));
}

/* What the policy takes back is not run again. */
static void the_policy_holds_for_jobs(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(",\"privileged\":true"), 422);
  say(w, "POST", "/api/v1/deploy", JOB(",\"mounts\":[\"/var/run/docker.sock:/s\"]"), 422);
  say(w, "POST", "/api/v1/deploy",
      "{\"cluster\":{\"policy\":{\"allow_privileged\":true}},\"jobs\":[{\"name\":\"j\",\"project\":\"shop\",\"image\":\"x\",\"privileged\":true,"
      "\"schedule\":\"@daily\"}]}",
      200);
  say(w, "POST", "/api/v1/jobs/j/run", NULL, 202);
  say(w, "POST", "/api/v1/jobs/j/stop", NULL, 200);
  Model__ClusterSpec none = MODEL__CLUSTER_SPEC__INIT;
  put(w, KEY_CLUSTER, &none.base);
  say(w, "POST", "/api/v1/jobs/j/start", NULL, 403);
}

static void what_is_shown(void **state) {
  struct world *w = *state;
  put_job(w, "shop", "nightly", 1, "shop:1");
  json_t *json = answer_to(w, "GET", "/api/v1/jobs", "a", NULL, NULL, NULL, 200);
  json_t *one = json_array_get(json_object_get(json, "jobs"), 0);
  assert_string_equal(json_string_value(json_object_get(one, "status")), "succeeded");
  json_decref(json);
  json = answer_to(w, "GET", "/api/v1/jobs/nightly", "a", NULL, NULL, NULL, 200);
  one = json_array_get(json_object_get(json_object_get(json, "job"), "runs"), 0);
  assert_int_equal(json_integer_value(json_object_get(one, "run")), 1);
  assert_int_equal(json_integer_value(json_object_get(one, "exit_code")), 0);
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "spec"), "image")), "shop:1");
  json_decref(json);
  json_decref(answer_to(w, "GET", "/api/v1/jobs/nightly", "a", NULL, "run", "1", 200));
  json_decref(answer_to(w, "GET", "/api/v1/jobs/nightly", "a", NULL, "run", "2", 404));
  json_decref(answer_to(w, "GET", "/api/v1/jobs/nightly", "a", NULL, "run", "-1", 400));
  json_decref(answer_to(w, "GET", "/api/v1/jobs/nightly", "a", NULL, "run", "99999999999999999999999", 404));
  json = answer_to(w, "GET", "/api/v1/status", "a", NULL, NULL, NULL, 200);
  assert_int_equal(json_array_size(json_object_get(json, "services")), 0);
  json_decref(json);
}

/* With all that shows services. */
static void they_are_found_everywhere(void **state) {
  struct world *w = *state;
  put_job(w, "shop", "nightly", 3, "x:1");
  put_job(w, "shop", "oneoff", 1, "x:1");
  Model__Job task = *job(w, "oneoff");
  PB_SET(&task, task, true);
  put(w, "/jobs/shop/oneoff", &task.base);
  uint64_t ended[] = {0, 0, 41, 2};
  Model__JobState counts = MODEL__JOB_STATE__INIT;
  counts.ended = ended;
  counts.n_ended = 4;
  PB_SET(&counts, created_ms, 1);
  PB_SET(&counts, last_success_ms, T0 + 500);
  put(w, "/job-state/shop/nightly", &counts.base);

  json_t *json = answer_to(w, "GET", "/api/v1/status", "a", NULL, NULL, NULL, 200);
  assert_int_equal(json_array_size(json_object_get(json, "jobs")), 1);
  assert_non_null(strstr(json_string_value(json_object_get(json, "summary")), "no scheduler leads"));
  json_decref(json);

  json = answer_to(w, "GET", "/api/v1/jobs/nightly/explain", "a", NULL, NULL, NULL, 200);
  assert_int_equal(json_integer_value(json_object_get(json, "last_run")), 1);
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "job"), "status")), "succeeded");
  assert_non_null(json_string_value(json_object_get(json_object_get(json, "job"), "last_success")));
  json_decref(json);

  json = answer_to(w, "GET", "/api/v1/services/nightly/history", "a", NULL, NULL, NULL, 404);
  assert_non_null(strstr(json_string_value(json_object_get(json, "error")), "orcactl job history shop/nightly"));
  json_decref(json);
  say(w, "GET", "/api/v1/services/nowhere/history", NULL, 404);

  struct api_request *r = ask(w, "GET", "/metrics", "a", NULL, NULL, NULL);
  buf_add_byte(&r->out, 0);
  const char *text = (const char *)r->out.data;
  assert_non_null(strstr(text, "orca_job_runs_total{project=\"shop\",job=\"nightly\",state=\"succeeded\"} 41\n"));
  assert_non_null(strstr(text, "orca_job_runs_total{project=\"shop\",job=\"nightly\",state=\"failed\"} 2\n"));
  assert_non_null(strstr(text, "orca_job_last_success_timestamp_seconds{project=\"shop\",job=\"nightly\"} 1700000000.500\n"));
  assert_null(strstr(text, "oneoff"));
  assert_null(strstr(text, "orca_job_next_tick_timestamp_seconds{"));
  api_request_unref(r);
}

/* A run that waits for another try, or for the one before it, will need its revision. */
static void revisions_that_runs_wait_with_are_kept(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  Model__JobRun run = MODEL__JOB_RUN__INIT;
  PB_SET(&run, number, 1);
  PB_SET(&run, revision, 1);
  put(w, "/job-runs/shop/j/0000000001", &run.base);
  PB_SET(&run, number, 2);
  PB_SET(&run, revision, 2);
  PB_SET(&run, state, MODEL__RUN_STATE__RUN_SUCCEEDED);
  put(w, "/job-runs/shop/j/0000000002", &run.base);
  for (int i = 1; i <= 30; i++) {
    char body[256];
    snprintf(body, sizeof body, JOB(",\"timeout\":\"%ds\""), i);
    say(w, "POST", "/api/v1/deploy", body, 200);
  }
  assert_non_null(api_cache_revision(&w->api.cache, "shop", "j", 1));
  assert_null(api_cache_revision(&w->api.cache, "shop", "j", 2));
}

/* Removed, and there again: its first run is not the other's first. */
static void a_run_of_an_earlier_job(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  Model__JobRun run = MODEL__JOB_RUN__INIT;
  Model__JobState of = MODEL__JOB_STATE__INIT;
  PB_SET(&run, number, 1);
  PB_SET(&run, request, 1);
  PB_SET(&run, state, MODEL__RUN_STATE__RUN_SUCCEEDED);
  PB_SET(&of, created_ms, job(w, "j")->created_ms - 1);
  PB_SET(&of, next_number, 2);
  put(w, "/job-runs/shop/j/0000000001", &run.base);
  put(w, "/job-state/shop/j", &of.base);
  assert_null(api_run_of_request(&w->api.cache, "shop", "j", 1)); /* the scheduler has not come to it */
  PB_SET(&of, created_ms, job(w, "j")->created_ms);
  PB_SET(&of, first_number, 2);
  put(w, "/job-state/shop/j", &of.base);
  assert_null(api_run_of_request(&w->api.cache, "shop", "j", 1));
  PB_SET(&run, number, 2);
  put(w, "/job-runs/shop/j/0000000002", &run.base);
  assert_int_equal(api_run_of_request(&w->api.cache, "shop", "j", 1)->number, 2);
}

/* Whoever waits for a run that will not come is told so. */
static void a_run_that_will_not_come(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(",\"schedule\":\"@daily\""), 200);
  struct api_request *r = ask(w, "POST", "/api/v1/jobs/j/run", "a", NULL, "wait", "true");
  struct buf out = BUF_INIT(65536);
  assert_non_null(r->stream);
  assert_int_equal(r->stream->fill(r->stream_arg, &out), API_PIECE_NONE);
  Model__JobState handled = MODEL__JOB_STATE__INIT;
  PB_SET(&handled, created_ms, job(w, "j")->created_ms);
  PB_SET(&handled, handled, 1);
  put(w, "/job-state/shop/j", &handled.base); /* it was stopped, and started again */
  assert_int_equal(r->stream->fill(r->stream_arg, &out), API_PIECE_LAST);
  assert_non_null(
      strstr(buf_str(&out), "event: done\ndata: {\"job\":\"shop/j\",\"run\":null,\"state\":\"forgotten\",\"reason\":\"the job was stopped"));
  buf_free(&out);
  api_request_unref(r);
}

/* A job that becomes a service, and back, in one deploy. */
static void a_name_changes_its_kind(void **state) {
  struct world *w = *state;
  say(w, "POST", "/api/v1/deploy", JOB(""), 200);
  json_decref(
      answer_to(w, "POST", "/api/v1/deploy", "a", "{\"services\":[{\"name\":\"j\",\"project\":\"shop\",\"image\":\"x:1\"}]}", "prune", "true", 200));
  assert_null(job(w, "j"));
  const Model__Service *service = api_cache_service(&w->api.cache, "shop", "j", NULL);
  assert_non_null(service);
  assert_non_null(api_cache_revision(&w->api.cache, "shop", "j", service->revision));
  assert_int_equal(service->revision, 2); /* nothing that is left of the job passes for it */
  json_decref(answer_to(w, "POST", "/api/v1/deploy", "a", JOB(""), "prune", "true", 200));
  assert_null(api_cache_service(&w->api.cache, "shop", "j", NULL));
  assert_int_equal(job(w, "j")->revision, 3);
  assert_non_null(api_cache_revision(&w->api.cache, "shop", "j", 3));
  assert_null(api_cache_revision(&w->api.cache, "shop", "j", 2));
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, world_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_revision_for_what_changed_and_a_run_for_each),
      TEST(verbs),
      TEST(asked_for_without_end),
      TEST(pruned_but_not_tasks),
      TEST(names_are_shared_with_services),
      TEST(tasks),
      TEST(the_policy_holds_for_jobs),
      TEST(what_is_shown),
      TEST(they_are_found_everywhere),
      TEST(revisions_that_runs_wait_with_are_kept),
      TEST(a_name_changes_its_kind),
      TEST(a_run_of_an_earlier_job),
      TEST(a_run_that_will_not_come),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
