/* What `explain` says: of each way in which an instance gets no requests, of the end of its last run, of what a service waits for, of its route; of a
 * job's runs. Sentences are those that people read. */
#include "orca-apiserver/explain_view.h"
#include "tests/unit/apiserver/world.h"

static struct api_route_table table;

static int setup(void **state) {
  api_routes_init(&table, 1, 0);
  return world_setup(state);
}
static int teardown(void **state) {
  api_routes_fini(&table);
  return world_teardown(state);
}

/* ---- what is there ---- */

static void put_web(struct world *w, uint64_t replicas) {
  put_service(w, "shop", "web", 1, (uint32_t)replicas);
  put_revision(w, "shop", "web", 1, "web:1", "web.test");
}

static const Model__Instance *instance(struct world *w, uint64_t number) {
  return api_cache_instance(&w->api.cache, "shop", "web", number);
}

static void put_told(struct world *w, Model__InstanceStatus *s) {
  char key[KEY_MAX];
  PB_SET(s, epoch, 1);
  s->node = TEXT("n1");
  key_numbered(key, KEY_INSTANCE_STATUS, s->project, s->service, s->number);
  put(w, key, &s->base);
}

static Model__InstanceStatus told(uint64_t number, Model__Phase phase) {
  Model__InstanceStatus s = MODEL__INSTANCE_STATUS__INIT;
  s.project = TEXT("shop");
  s.service = TEXT("web");
  PB_SET(&s, number, number);
  PB_SET(&s, phase, phase);
  return s;
}

/* ---- what is said ---- */

/* Of JSON with ' for ". */
static void same(const json_t *got, const char *expected) {
  char *text = strdup(expected);
  assert_non_null(text);
  for (char *p = text; *p; p++)
    *p = *p == '\'' ? '"' : *p;
  json_error_t fault;
  json_t *want = json_loads(text, JSON_DECODE_ANY, &fault);
  if (!want)
    fail_msg("%s: %s", fault.text, text);
  if (!json_equal((json_t *)(uintptr_t)got, want)) {
    char *is = json_dumps(got, JSON_INDENT(1) | JSON_ENCODE_ANY);
    fail_msg("%s\nis not\n%s", is, text);
  }
  json_decref(want);
  free(text);
}

static json_t *parsed(struct buf *out) {
  json_error_t fault;
  json_t *json = json_loadb(buf_str(out), out->len, JSON_REJECT_DUPLICATES, &fault);
  if (!json)
    fail_msg("%s: %s", fault.text, buf_str(out));
  buf_free(out);
  return json;
}

static json_t *explained(struct world *w, const char *name, const struct api_route_table *routes) {
  struct buf out = BUF_INIT((size_t)1 << 20);
  struct api_json json = {.out = &out};
  const Model__Service *service = api_cache_service(&w->api.cache, "shop", name, NULL);
  assert_non_null(service);
  api_json_object(&json, NULL);
  api_explain_json(&w->api.cache, &w->api.figures, routes, service, &json);
  api_json_object_end(&json);
  return parsed(&out);
}

static json_t *told_of(const Model__Instance *in, const Model__InstanceStatus *status) {
  struct buf out = BUF_INIT((size_t)1 << 20);
  struct api_json json = {.out = &out};
  api_json_object(&json, NULL);
  api_explain_instance_fields(in, status, &json);
  api_json_object_end(&json);
  return parsed(&out);
}

static void why_not(struct world *w, const struct api_route_table *routes, uint64_t number, const char *expected) {
  char why[API_WHY_MAX];
  bool receives = api_explain_receives(&w->api.cache, routes, instance(w, number), why);
  assert_string_equal(why, expected);
  assert_int_equal(receives, !*expected);
}

/* ---- requests ---- */

static void every_phase_keeps_requests_away_in_its_own_words(void **state) {
  struct world *w = *state;
  static const struct {
    Model__Phase phase;
    const char *reason, *progress, *expected;
  } cases[] = {
      {MODEL__PHASE__PHASE_WAITING, "shop/db is not ready", "", "it waits: shop/db is not ready"},
      {MODEL__PHASE__PHASE_PULLING, "", "3 of 7 layers, 41 %", "its image is being pulled: 3 of 7 layers, 41 %"},
      {MODEL__PHASE__PHASE_PULLING, "", "", "its image is being pulled"},
      {MODEL__PHASE__PHASE_CREATING, "", "", "it is being started"},
      {MODEL__PHASE__PHASE_STARTING, "startup: connection refused", "", "it is being started: startup: connection refused"},
      {MODEL__PHASE__PHASE_RUNNING, "readiness: http 503 from /healthz", "", "not ready: readiness: http 503 from /healthz"},
      {MODEL__PHASE__PHASE_BACKOFF, "exit code 3", "", "it has ended and waits for its next try: exit code 3"},
      {MODEL__PHASE__PHASE_STOPPING, "", "", "it is being stopped"},
      {MODEL__PHASE__PHASE_EXITED, "exit code 0", "", "it has ended: exit code 0"},
      {MODEL__PHASE__PHASE_FAILED, "no such image: web:9", "", "it can't be started: no such image: web:9"},
      {(Model__Phase)99, "", "", "its state is not known"},
  };
  put_web(w, 1);
  put_instance(w, "shop", "web", 1, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    Model__InstanceStatus s = told(1, cases[i].phase);
    s.reason = TEXT(cases[i].reason);
    s.progress = TEXT(cases[i].progress);
    put_told(w, &s);
    why_not(w, &table, 1, cases[i].expected);
  }
}

static void ready_and_yet_not_reached(void **state) {
  struct world *w = *state;
  put_web(w, 1);
  put_instance(w, "shop", "web", 1, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  why_not(w, &table, 1, "the agent of n1 has said nothing of it yet");
  Model__InstanceStatus s = told(1, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&s, ready, 1);
  put_told(w, &s);
  why_not(w, &table, 1, "it has no address");
  s.address = TEXT("10.1.0.2");
  put_told(w, &s);
  why_not(w, NULL, 1, "its service has no route");
  why_not(w, &table, 1, "its service has no route");
  assert_true(api_routes_update(&table, &w->api.cache, "shop", "web"));
  why_not(w, &table, 1, "");
  put_instance(w, "shop", "web", 2, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "shop", "web", 2, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  why_not(w, &table, 2, "it is ready, and not in the route table yet");
}

static void without_a_node_or_on_its_way_out(void **state) {
  struct world *w = *state;
  char key[KEY_MAX], longest[2 * API_WHY_MAX];
  put_web(w, 2);
  put_instance(w, "shop", "web", 1, 1, "", MODEL__DESIRED__DESIRED_RUN);
  why_not(w, &table, 1, "it has no node yet");
  Model__Instance in = MODEL__INSTANCE__INIT;
  in.project = TEXT("shop");
  in.service = TEXT("web");
  in.reason = TEXT("no node fits: n1: memory: needs 900Gi, 3Gi free");
  PB_SET(&in, number, 1);
  key_numbered(key, KEY_INSTANCES, "shop", "web", 1);
  put(w, key, &in.base);
  why_not(w, &table, 1, "it has no node yet: no node fits: n1: memory: needs 900Gi, 3Gi free");
  memset(longest, 'x', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  in.reason = longest;
  put(w, key, &in.base);
  char why[API_WHY_MAX];
  assert_false(api_explain_receives(&w->api.cache, &table, instance(w, 1), why));
  assert_int_equal(strlen(why), API_WHY_MAX - 1);
  in.node = TEXT("n1");
  in.reason = TEXT("scaled down");
  PB_SET(&in, desired, MODEL__DESIRED__DESIRED_STOP);
  put(w, key, &in.base);
  why_not(w, NULL, 1, "it is being stopped: scaled down");
  in.reason = NULL;
  PB_SET(&in, desired, MODEL__DESIRED__DESIRED_DRAIN);
  put(w, key, &in.base);
  why_not(w, &table, 1, "it drains");
  char *draining[] = {TEXT("shop/web.1")};
  static const char *const nodes[] = {"n1", "n2"};
  for (size_t i = 0; i < 2; i++) {
    api_routes_proxy_up(&table, nodes[i]);
    api_routes_proxy_ack(&table, nodes[i], 1, draining, 1);
  }
  why_not(w, &table, 1, "it drains; requests are being finished by the proxy on n1, n2");
}

/* ---- one instance ---- */

static void how_the_last_run_ended(void **state) {
  struct world *w = *state;
  char lines[] = "starting\nno\xff"
                 "thing\n\n\x1b[31mend";
  put_web(w, 1);
  put_instance(w, "shop", "web", 1, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  json_t *json = told_of(instance(w, 1), NULL);
  same(json, "{'revision': 1, 'restarts': 0, 'since': null, 'next_try': null, 'progress': '', 'last_end': null, 'verdicts': []}");
  json_decref(json);
  Model__InstanceStatus s = told(1, MODEL__PHASE__PHASE_BACKOFF);
  PB_SET(&s, restarts, 4);
  PB_SET(&s, since_ms, T0);
  PB_SET(&s, next_try_ms, T0 + 8000);
  PB_SET(&s, ended_ms, T0 - 500);
  PB_SET(&s, exit_code, 3);
  s.has_last_lines = 1;
  s.last_lines = (ProtobufCBinaryData){sizeof lines - 1, (uint8_t *)lines};
  json = told_of(instance(w, 1), &s);
  same(json, "{'revision': 1, 'restarts': 4, 'since': '2023-11-14T22:13:20.000Z', 'next_try': '2023-11-14T22:13:28.000Z', 'progress': '',"
             " 'last_end': {'by': 'exit code 3', 'time': '2023-11-14T22:13:19.500Z', 'exit_code': 3, 'oom_killed': false,"
             "              'lines': ['starting', 'no?thing', '', '\\u001b[31mend']}, 'verdicts': []}");
  json_decref(json);
  PB_SET(&s, oom_killed, 1);
  s.has_exit_code = 0;
  s.has_last_lines = 0;
  json = told_of(instance(w, 1), &s);
  same(json_object_get(json, "last_end"),
       "{'by': 'out of memory', 'time': '2023-11-14T22:13:19.500Z', 'exit_code': null, 'oom_killed': true, 'lines': []}");
  json_decref(json);
  s.ended_by = TEXT("liveness: http 503 from /healthz");
  json = told_of(instance(w, 1), &s);
  assert_string_equal(json_string_value(json_object_get(json_object_get(json, "last_end"), "by")), "liveness: http 503 from /healthz");
  json_decref(json);
}

static void a_line_without_end_is_cut(void **state) {
  (void)state;
  static uint8_t lines[10000];
  memset(lines, 'a', sizeof lines);
  lines[4] = 0;
  lines[6000] = '\n';
  struct buf out = BUF_INIT((size_t)1 << 20);
  struct api_json json = {.out = &out};
  api_json_object(&json, NULL);
  api_lines_json(&json, "lines", &(ProtobufCBinaryData){sizeof lines, lines});
  api_json_object_end(&json);
  json_t *got = parsed(&out), *list = json_object_get(got, "lines");
  assert_int_equal(json_array_size(list), 2);
  assert_int_equal(json_string_length(json_array_get(list, 0)), 4096);
  assert_memory_equal(json_string_value(json_array_get(list, 0)), "aaaa?aaa", 8);
  assert_int_equal(json_string_length(json_array_get(list, 1)), 3999);
  json_decref(got);
}

/* ---- a service ---- */

static void one_that_is_well(void **state) {
  struct world *w = *state;
  char key[KEY_MAX];
  put_web(w, 1);
  put_rollout(w, "shop", "web", MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE, 1, 1);
  Model__NodeVerdict verdicts[2] = {MODEL__NODE_VERDICT__INIT, MODEL__NODE_VERDICT__INIT}, *list[] = {&verdicts[0], &verdicts[1]};
  verdicts[0].node = TEXT("n1");
  verdicts[0].reason = TEXT("best fit: 81 % full with it");
  PB_SET(&verdicts[0], chosen, 1);
  PB_SET(&verdicts[0], fits, 1);
  verdicts[1].node = TEXT("n2");
  verdicts[1].reason = TEXT("memory: needs 512 MiB, 128 MiB free");
  Model__Instance in = MODEL__INSTANCE__INIT;
  in.project = TEXT("shop");
  in.service = TEXT("web");
  in.node = TEXT("n1");
  in.verdicts = list;
  in.n_verdicts = 2;
  PB_SET(&in, number, 1);
  PB_SET(&in, revision, 1);
  PB_SET(&in, generation, 1);
  PB_SET(&in, epoch, 1);
  PB_SET(&in, desired, MODEL__DESIRED__DESIRED_RUN);
  PB_SET(&in, desired_since_ms, T0);
  key_numbered(key, KEY_INSTANCES, "shop", "web", 1);
  put(w, key, &in.base);
  put_status(w, "shop", "web", 1, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  assert_true(api_routes_update(&table, &w->api.cache, "shop", "web"));
  api_routes_proxy_up(&table, "n1");
  api_routes_proxy_ack(&table, "n1", table.version, NULL, 0);
  api_routes_proxy_up(&table, "n2");
  api_routes_proxy_fault(&table, "n2", "port 443: address already in use");
  api_routes_proxy_down(&table, "n2", 1);
  json_t *json = explained(w, "web", &table);
  same(json,
       "{'service': 'shop/web', 'status': 'running', 'replicas': 1, 'ready_replicas': 1, 'last_error': '',"
       " 'rollout': {'state': 'complete', 'revision': 1, 'stable_revision': 1, 'phase': '', 'reason': 'it was not ready in time'},"
       " 'depends_on': [],"
       " 'route': {'domains': ['web.test'], 'paths': ['/*'], 'endpoints': 1, 'version': 2, 'proxies': ["
       "   {'node': 'n1', 'connected': true, 'up_to_date': true, 'fault': ''},"
       "   {'node': 'n2', 'connected': false, 'up_to_date': false, 'fault': 'port 443: address already in use'}]},"
       " 'no_route': '',"
       " 'instances': [{'id': 'shop/web.1', 'node': 'n1', 'state': 'running', 'ready': true, 'reason': '', 'receives': true, 'receives_not': '',"
       "   'revision': 1, 'restarts': 0, 'since': '2023-11-14T22:13:20.000Z', 'next_try': null, 'progress': '', 'last_end': null, 'verdicts': ["
       "     {'node': 'n1', 'chosen': true, 'fits': true, 'reason': 'best fit: 81 % full with it'},"
       "     {'node': 'n2', 'chosen': false, 'fits': false, 'reason': 'memory: needs 512 MiB, 128 MiB free'}]}]}");
  json_decref(json);
}

static void no_route_and_why(void **state) {
  struct world *w = *state;
  static const struct {
    const char *domain;
    bool port, recorded, open;
    const char *expected;
  } cases[] = {
      {"web.test", true, true, false, "the gateway is not open yet"},
      {NULL, true, false, true, "the record of its revision is missing"},
      {NULL, true, true, true, "it has no domain: other services reach it by its name"},
      {"web.test", false, true, true, "it has a domain, and no port"},
      {"web.test", true, true, true, "it is not in the route table yet"},
  };
  put_service(w, "shop", "web", 1, 1);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *domains[] = {TEXT(cases[i].domain)};
    Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
    spec.project = TEXT("shop");
    spec.name = TEXT("web");
    spec.image = TEXT("web:1");
    spec.domains = domains;
    spec.n_domains = cases[i].domain ? 1 : 0;
    if (cases[i].port)
      PB_SET(&spec, port, 8080);
    if (cases[i].recorded)
      put_spec(w, 1, &spec);
    else
      api_cache_del(&w->api.cache, "/revisions/shop/web/0000000001");
    json_t *json = explained(w, "web", cases[i].open ? &table : NULL);
    assert_true(json_is_null(json_object_get(json, "route")) && json_is_null(json_object_get(json, "rollout")));
    assert_string_equal(json_string_value(json_object_get(json, "no_route")), cases[i].expected);
    json_decref(json);
  }
}

static void what_it_waits_for(void **state) {
  struct world *w = *state;
  char *depends[] = {TEXT("db"), TEXT("other/cache"), TEXT("none")};
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  spec.project = TEXT("shop");
  spec.name = TEXT("web");
  spec.image = TEXT("web:1");
  spec.depends_on = depends;
  spec.n_depends_on = 3;
  put_spec(w, 1, &spec);
  put_service(w, "shop", "web", 1, 1);
  put_service(w, "shop", "db", 1, 2);
  put_revision(w, "shop", "db", 1, "db:1", NULL);
  put_instance(w, "shop", "db", 1, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "shop", "db", 1, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  put_service(w, "other", "cache", 1, 1);
  put_revision(w, "other", "cache", 1, "cache:1", NULL);
  put_instance(w, "other", "cache", 1, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "other", "cache", 1, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  json_t *json = explained(w, "web", &table);
  same(json_object_get(json, "depends_on"), "[{'service': 'shop/db', 'satisfied': false, 'reason': 'deploying: 1 of 2 ready'},"
                                            " {'service': 'other/cache', 'satisfied': true, 'reason': ''},"
                                            " {'service': 'shop/none', 'satisfied': false, 'reason': 'there is no such service'}]");
  same(json_object_get(json, "instances"), "[]");
  json_decref(json);
}

/* ---- a job ---- */

static void a_job_and_its_runs(void **state) {
  struct world *w = *state;
  char key[KEY_MAX], log[] = "copied 3 of 9\ndisk is full\n";
  put_job(w, "shop", "nightly", 1, "tool:1");
  put_instance(w, "shop", "nightly", 2, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "shop", "nightly", 2, "n1", MODEL__PHASE__PHASE_RUNNING, false);
  Model__JobRun run = MODEL__JOB_RUN__INIT;
  run.project = TEXT("shop");
  run.name = TEXT("nightly");
  run.reason = TEXT("exit code 3");
  PB_SET(&run, number, 2);
  PB_SET(&run, revision, 1);
  PB_SET(&run, state, MODEL__RUN_STATE__RUN_FAILED);
  PB_SET(&run, exit_code, 3);
  PB_SET(&run, attempts, 1);
  run.has_last_lines = 1;
  run.last_lines = (ProtobufCBinaryData){sizeof log - 1, (uint8_t *)log};
  key_numbered(key, KEY_JOB_RUNS, "shop", "nightly", 2);
  put(w, key, &run.base);
  struct buf out = BUF_INIT((size_t)1 << 20);
  struct api_json json = {.out = &out};
  api_json_object(&json, NULL);
  api_explain_job_json(&w->api.cache, api_cache_job(&w->api.cache, "shop", "nightly", NULL), &json);
  api_json_object_end(&json);
  json_t *got = parsed(&out);
  const json_t *runs = json_object_get(json_object_get(got, "job"), "runs"), *last = json_array_get(runs, 0);
  assert_int_equal(json_array_size(runs), 2);
  assert_string_equal(json_string_value(json_object_get(last, "state")), "failed");
  assert_string_equal(json_string_value(json_object_get(last, "reason")), "exit code 3");
  assert_string_equal(json_string_value(json_object_get(last, "log")), "copied 3 of 9\ndisk is full\n");
  same(json_object_get(got, "last_run"), "2");
  same(json_object_get(got, "instances"),
       "[{'id': 'shop/nightly.2', 'node': 'n1', 'state': 'running', 'reason': '', 'revision': 1, 'restarts': 0, 'since': null, 'next_try': null,"
       "  'progress': '', 'last_end': null, 'verdicts': []}]");
  json_decref(got);
  json = (struct api_json){.out = &out};
  api_cache_del(&w->api.cache, "/job-runs/shop/nightly/0000000001");
  api_cache_del(&w->api.cache, "/job-runs/shop/nightly/0000000002");
  api_json_object(&json, NULL);
  api_explain_job_json(&w->api.cache, api_cache_job(&w->api.cache, "shop", "nightly", NULL), &json);
  api_json_object_end(&json);
  got = parsed(&out);
  same(json_object_get(got, "last_run"), "0");
  json_decref(got);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(every_phase_keeps_requests_away_in_its_own_words),
                                     TEST(ready_and_yet_not_reached),
                                     TEST(without_a_node_or_on_its_way_out),
                                     TEST(how_the_last_run_ended),
                                     TEST(a_line_without_end_is_cut),
                                     TEST(one_that_is_well),
                                     TEST(no_route_and_why),
                                     TEST(what_it_waits_for),
                                     TEST(a_job_and_its_runs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
