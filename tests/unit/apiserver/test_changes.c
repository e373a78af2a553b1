/* Deploys and the verbs that change services: what is written, what is not, and what is said about it. */
#include "orca-apiserver/deploy_plan.h"
#include "orca-apiserver/upkeep.h"
#include "tests/unit/apiserver/world.h"

#define ONE "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:1\",\"port\":80,\"replicas\":2}]}"
#define CHANGED "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:2\",\"port\":80,\"replicas\":2}]}"
#define RESCALED "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:1\",\"port\":80,\"replicas\":5}]}"
#define TWO                                                                                                                                          \
  "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:1\",\"port\":80,\"replicas\":2},{\"name\":\"db\",\"project\":\"shop\","       \
  "\"image\":\"d:1\"}]}"

static int setup(void **state) {
  struct world *w = world_new();
  put_token(w, "admin", "a", "admin", NULL, 0);
  put_token(w, "deployer", "d", "deployer", NULL, 0);
  put_token(w, "shopper", "s", "deployer", "shop", 0);
  *state = w;
  return 0;
}

static json_t *say(struct world *w, const char *method, const char *path, const char *body, const char *query, const char *value, int status) {
  return answer_to(w, method, path, "a", body, query, value, status);
}

static size_t length(json_t *json, const char *key) {
  return json_array_size(json_object_get(json, key));
}

static json_t *deploy(struct world *w, const char *body, size_t deployed, size_t unchanged) {
  json_t *json = say(w, "POST", "/api/v1/deploy", body, NULL, NULL, 200);
  assert_int_equal(length(json, "deployed"), deployed);
  assert_int_equal(length(json, "unchanged"), unchanged);
  return json;
}

static const Model__Service *service(struct world *w, const char *name) {
  return api_cache_service(&w->api.cache, "shop", name, NULL);
}

static void a_revision_only_for_what_changed(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  assert_int_equal(service(w, "api")->revision, 1);
  assert_int_equal(service(w, "api")->replicas, 2);
  unsigned commits = w->commits;
  json_decref(deploy(w, ONE, 0, 1));
  assert_int_equal(w->commits, commits); /* nothing is written */
  json_decref(deploy(w, CHANGED, 1, 0));
  assert_int_equal(service(w, "api")->revision, 2);
  assert_string_equal(api_cache_revision(&w->api.cache, "shop", "api", 2)->spec->image, "x:2");
  json_decref(deploy(w, TWO, 2, 0)); /* back to x:1: a new revision all the same */
  assert_int_equal(service(w, "api")->revision, 3);
  assert_int_equal(service(w, "db")->replicas, 1);
}

static void replicas_are_no_revision_and_scale_survives(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  json_decref(say(w, "POST", "/api/v1/services/api/scale", "{\"replicas\":7}", NULL, NULL, 200));
  assert_int_equal(service(w, "api")->replicas, 7);
  json_decref(deploy(w, ONE, 0, 1));
  assert_int_equal(service(w, "api")->replicas, 7);
  json_decref(deploy(w, CHANGED, 1, 0)); /* its replicas are what they were */
  assert_int_equal(service(w, "api")->replicas, 7);
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, "to", "1", 200));
  json_t *json = deploy(w, RESCALED, 1, 0);
  assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(json, "changes"), 0), "action")), "scale");
  json_decref(json);
  assert_int_equal(service(w, "api")->replicas, 5);
  assert_int_equal(service(w, "api")->last_revision, 2);
}

static void failed_revisions_are_tried_again(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_FAILED, 1, 0);
  json_decref(deploy(w, ONE, 1, 0));
  assert_int_equal(service(w, "api")->generation, 2);
  assert_int_equal(service(w, "api")->revision, 1);
  json_decref(deploy(w, ONE, 0, 1)); /* the rollout is of the old generation now */
}

/* What was meant to be only looked at, or to be kept, is not done because of a slip. */
static void parameters_that_are_none_change_nothing(void **state) {
  struct world *w = *state;
  json_decref(say(w, "POST", "/api/v1/deploy", ONE, "dryrun", "true", 400));
  json_decref(say(w, "POST", "/api/v1/deploy", ONE, "dry_run", "maybe", 400));
  json_decref(say(w, "POST", "/api/v1/deploy", ONE, "dry_run", "True", 200));
  assert_null(service(w, "api"));
  json_decref(say(w, "POST", "/api/v1/deploy", ONE, "dry_run", "no", 200));
  assert_non_null(service(w, "api"));
  json_decref(say(w, "DELETE", "/api/v1/services/api", NULL, "projekt", "other", 400));
  assert_false(service(w, "api")->stopped);
  json_decref(say(w, "GET", "/api/v1/services/api", NULL, "_", "1", 200)); /* a look is a look */
}

static void stop_start_and_delete(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, TWO, 2, 0));
  json_decref(say(w, "POST", "/api/v1/services/api/stop", NULL, NULL, NULL, 200));
  assert_true(service(w, "api")->stopped);
  json_t *json = say(w, "POST", "/api/v1/services/api/stop", NULL, NULL, NULL, 200);
  assert_false(json_is_true(json_object_get(json, "changed")));
  json_decref(json);
  json_decref(deploy(w, ONE, 1, 0)); /* a deploy starts what was stopped */
  assert_false(service(w, "api")->stopped);
  json_decref(say(w, "DELETE", "/api/v1/services/api", NULL, NULL, NULL, 200));
  assert_true(service(w, "api")->stopped);
  json_decref(say(w, "DELETE", "/api/v1/services/api", NULL, "purge", "true", 200));
  assert_null(service(w, "api"));
  assert_null(api_cache_revision(&w->api.cache, "shop", "api", 1));
  json_decref(say(w, "DELETE", "/api/v1/services/api", NULL, NULL, NULL, 404));
  /* What is no name is no project, and least of all the empty one that means all. */
  static const char *const no_names[] = {"\xff\xfe", "\xc3", "Shop", "shop ", "%2e"};
  for (size_t i = 0; i < sizeof no_names / sizeof *no_names; i++) {
    char path[64];
    snprintf(path, sizeof path, "/api/v1/projects/%s", no_names[i]);
    json_decref(say(w, "DELETE", path, NULL, NULL, NULL, 404));
    assert_false(service(w, "db")->stopped);
  }
  json_decref(say(w, "DELETE", "/api/v1/projects/shop", NULL, NULL, NULL, 200));
  assert_true(service(w, "db")->stopped);
  json_decref(say(w, "DELETE", "/api/v1/projects/nothing", NULL, NULL, NULL, 404));
}

/* Old instances of a purged service must never pass for ones of the next service of that name. */
static void numbers_go_on_after_a_purge(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE, 1, 1);
  put_instance(w, "shop", "api", 1, 4, "n1", MODEL__DESIRED__DESIRED_STOP);
  json_decref(say(w, "DELETE", "/api/v1/services/api", NULL, "purge", "true", 200));
  json_decref(deploy(w, CHANGED, 1, 0));
  assert_int_equal(service(w, "api")->revision, 5);
}

static void restart_redeploy_rollback(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, NULL, NULL, 422));
  json_decref(say(w, "POST", "/api/v1/services/api/restart", NULL, NULL, NULL, 200));
  assert_int_equal(service(w, "api")->generation, 2);
  json_decref(say(w, "POST", "/api/v1/services/api/redeploy", NULL, NULL, NULL, 200));
  assert_int_equal(service(w, "api")->revision, 2);
  assert_true(api_cache_revision(&w->api.cache, "shop", "api", 2)->force_pull);
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, NULL, NULL, 200));
  assert_int_equal(service(w, "api")->revision, 1);
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, "to", "1", 422));
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, "to", "9", 404));
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, "to", "-1", 400));
  json_decref(say(w, "POST", "/api/v1/services/api/rollback", NULL, "to", "2", 200));
  assert_int_equal(service(w, "api")->revision, 2);
}

static void a_dry_run_writes_nothing(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  unsigned commits = w->commits;
  json_t *json = say(w, "POST", "/api/v1/deploy", CHANGED, "dry_run", "true", 200);
  json_t *change = json_array_get(json_object_get(json, "changes"), 0);
  assert_string_equal(json_string_value(json_object_get(change, "action")), "update");
  const char *diff = json_string_value(json_object_get(change, "diff"));
  assert_non_null(diff);
  assert_non_null(strstr(diff, "-image = \"x:1\""));
  assert_non_null(strstr(diff, "+image = \"x:2\""));
  json_decref(json);
  assert_int_equal(w->commits, commits);
  assert_int_equal(service(w, "api")->revision, 1);
}

static void prune_removes_what_is_no_longer_there(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, TWO, 2, 0));
  put_service(w, "other", "x", 1, 1);
  json_t *json = say(w, "POST", "/api/v1/deploy", ONE, "prune", "true", 200);
  assert_int_equal(length(json, "removed"), 1);
  json_decref(json);
  assert_null(service(w, "db"));
  assert_non_null(api_cache_service(&w->api.cache, "other", "x", NULL)); /* a project that was not named */
  json = say(w, "POST", "/api/v1/deploy", "{\"cluster\":{\"cluster\":{\"name\":\"c\"}},\"services\":[]}", "prune", "true", 200);
  json_decref(json);
  assert_null(service(w, "api")); /* the whole infra directory was sent: all that is not in it goes */
  assert_null(api_cache_service(&w->api.cache, "other", "x", NULL));
}

static void all_faults_and_nothing_changed(void **state) {
  struct world *w = *state;
  unsigned commits = w->commits;
  json_t *json =
      say(w, "POST", "/api/v1/deploy",
          "{\"services\":[{\"name\":\"ok\",\"project\":\"p\",\"image\":\"x\"},{\"name\":\"B\",\"project\":\"p\",\"image\":5,\"portt\":1}]}", NULL,
          NULL, 400);
  assert_true(length(json, "details") >= 3);
  assert_string_equal(json_string_value(json_object_get(json, "code")), "invalid");
  json_decref(json);
  json = say(w, "POST", "/api/v1/deploy", "{\"services\":[{\"name\":\"p\",\"project\":\"p\",\"image\":\"x\",\"privileged\":true}]}", NULL, NULL, 422);
  json_decref(json);
  json = say(w, "POST", "/api/v1/deploy",
             "{\"services\":[{\"name\":\"p\",\"project\":\"p\",\"image\":\"x\",\"mounts\":[{\"source\":\"./f\",\"target\":\"/"
             "f\",\"files\":[{\"path\":\"\",\"sha256\":"
             "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"mode\":420}]}]}]}",
             NULL, NULL, 422);
  json_decref(json);
  assert_int_equal(w->commits, commits);
}

static void bodies_that_are_none(void **state) {
  struct world *w = *state;
  static const char *const bodies[] = {"",
                                       "[]",
                                       "null",
                                       "{",
                                       "{\"a\":1,\"a\":2}",
                                       "{\"services\":{}}",
                                       "{\"services\":[1]}",
                                       "NaN",
                                       "{\"x\":NaN}",
                                       "{\"services\":[{\"name\":\"\\ud800\"}]}",
                                       "{\"services\":[{\"name\":\"a\\u0000b\"}]}",
                                       "\xff\xfe",
                                       "{\"jobs\":[{}]}",
                                       "{\"services\":[],\"what\":1}"};
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
    json_decref(say(w, "POST", "/api/v1/deploy", bodies[i], NULL, NULL, 400));
  static const char *const scales[] = {
      "{}", "{\"replicas\":-1}", "{\"replicas\":1.5}", "{\"replicas\":\"3\"}", "{\"replicas\":100000}", "{\"replicas\":1,\"x\":2}"};
  json_decref(deploy(w, ONE, 1, 0));
  for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
    json_decref(say(w, "POST", "/api/v1/services/api/scale", scales[i], NULL, NULL, 400));
}

static void one_name_in_several_projects(void **state) {
  struct world *w = *state;
  put_service(w, "a", "web", 1, 1);
  put_service(w, "b", "web", 1, 1);
  json_t *json = say(w, "GET", "/api/v1/services/web", NULL, NULL, NULL, 409);
  assert_non_null(strstr(json_string_value(json_object_get(json, "error")), "a, b"));
  json_decref(json);
  json_decref(say(w, "GET", "/api/v1/services/web", NULL, "project", "b", 200));
  json_decref(say(w, "GET", "/api/v1/services/web", NULL, "project", "c", 404));
}

static void somebody_was_faster(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  w->refuse = 3;
  json_decref(say(w, "POST", "/api/v1/services/api/scale", "{\"replicas\":4}", NULL, NULL, 200));
  assert_int_equal(service(w, "api")->replicas, 4);
  w->refuse = 100;
  json_decref(say(w, "POST", "/api/v1/services/api/scale", "{\"replicas\":5}", NULL, NULL, 409));
}

#define DOMAIN(project) "{\"services\":[{\"name\":\"web\",\"project\":\"" project "\",\"image\":\"x:1\",\"port\":80,\"domain\":\"d.test\"}]}"

/* While one deploy is on its way to the store, another one lands there. */
static void commit_after_another(void *arg, struct storec_txn *txn, storec_txn_fn *done, void *done_arg) {
  struct world *w = arg;
  w->api.commit = world_commit;
  json_decref(deploy(w, DOMAIN("other"), 1, 0));
  world_commit(arg, txn, done, done_arg);
}

static void two_deploys_at_once_do_not_get_one_domain(void **state) {
  struct world *w = *state;
  w->api.commit = commit_after_another;
  json_t *json = say(w, "POST", "/api/v1/deploy", DOMAIN("shop"), NULL, NULL, 422);
  assert_non_null(strstr(json_string_value(json_object_get(json, "error")), "d.test"));
  assert_int_equal(length(json, "details"), 1);
  json_decref(json);
  assert_null(service(w, "web"));
}

static void a_purge_of_more_than_a_transaction_holds(void **state) {
  struct world *w = *state;
  size_t left;
  for (unsigned i = 0; i < 120; i++) {
    char name[16];
    snprintf(name, sizeof name, "s%u", i);
    put_service(w, "shop", name, 50, 1);
    for (uint64_t r = 1; r <= 50; r++) {
      put_revision(w, "shop", name, r, "x:1", NULL);
      char key[KEY_MAX];
      Model__RevisionStatus resolved = MODEL__REVISION_STATUS__INIT;
      key_numbered(key, KEY_REVISION_STATUS, "shop", name, r);
      put(w, key, &resolved.base);
    }
  }
  w->refuse = 1;
  json_t *json = say(w, "DELETE", "/api/v1/projects/shop", NULL, "purge", "true", 200);
  assert_int_equal(length(json, "removed"), 120);
  json_decref(json);
  assert_in_range(w->commits, 4, 5); /* one was refused */
  api_cache_all(&w->api.cache, API_REVISIONS, &left);
  assert_int_equal(left, 0);
  api_cache_all(&w->api.cache, API_SERVICES, &left);
  assert_int_equal(left, 0);
}

static void cluster_toml_takes_an_admin(void **state) {
  struct world *w = *state;
  const char *body = "{\"cluster\":{\"cluster\":{\"name\":\"c\"},\"policy\":{\"allow_privileged\":true}},\"services\":[]}";
  struct api_request *r = ask(w, "POST", "/api/v1/deploy", "d", body, NULL, NULL);
  assert_int_equal(r->status, 403);
  api_request_unref(r);
  assert_null(api_cache_cluster(&w->api.cache, NULL));
  json_decref(say(w, "POST", "/api/v1/deploy", body, NULL, NULL, 200));
  assert_true(api_cache_cluster(&w->api.cache, NULL)->policy->allow_privileged);
  r = ask(w, "POST", "/api/v1/deploy", "d", body, NULL, NULL); /* as it is already */
  assert_int_equal(r->status, 200);
  api_request_unref(r);
}

static void old_revisions_are_let_go(void **state) {
  struct world *w = *state;
  for (unsigned i = 0; i < API_KEEP_REVISIONS + 10; i++) {
    char body[128];
    snprintf(body, sizeof body, "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"x:%u\"}]}", i);
    json_decref(deploy(w, body, 1, 0));
    if (i == 0)
      put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE, 1, 1);
  }
  size_t count;
  api_cache_of_service(&w->api.cache, API_REVISIONS, "shop", "api", &count);
  assert_int_equal(count, API_KEEP_REVISIONS + 1); /* and the stable one */
  assert_non_null(api_cache_revision(&w->api.cache, "shop", "api", 1));
  assert_null(api_cache_revision(&w->api.cache, "shop", "api", 2));
}

static void a_restart_is_of_what_runs(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  json_decref(deploy(w, CHANGED, 1, 0));
  assert_int_equal(service(w, "api")->revision, 2);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING, 2, 1);
  json_decref(say(w, "POST", "/api/v1/services/api/restart", NULL, NULL, NULL, 200));
  assert_int_equal(service(w, "api")->revision, 2);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK, 2, 1);
  json_decref(say(w, "POST", "/api/v1/services/api/restart", NULL, NULL, NULL, 200));
  assert_int_equal(service(w, "api")->revision, 1);
  assert_int_equal(service(w, "api")->generation, 3);
}

static void every_change_is_in_the_history(void **state) {
  struct world *w = *state;
  json_decref(deploy(w, ONE, 1, 0));
  json_decref(say(w, "POST", "/api/v1/services/api/scale", "{\"replicas\":4}", NULL, NULL, 200));
  json_decref(say(w, "POST", "/api/v1/services/api/restart", NULL, NULL, NULL, 200));
  json_t *json = say(w, "GET", "/api/v1/events", NULL, NULL, NULL, 200);
  json_t *events = json_object_get(json, "events");
  static const char *const kinds[] = {"service.deployed", "service.scaled", "service.restarted"};
  assert_int_equal(json_array_size(events), 3);
  for (size_t i = 0; i < 3; i++) {
    assert_string_equal(json_string_value(json_object_get(json_array_get(events, i), "kind")), kinds[i]);
    assert_string_equal(json_string_value(json_object_get(json_array_get(events, i), "actor")), "admin");
  }
  char since[32];
  snprintf(since, sizeof since, "%lld", (long long)json_integer_value(json_object_get(json_array_get(events, 1), "revision")));
  json_decref(json);
  json = say(w, "GET", "/api/v1/events", NULL, "since", since, 200);
  assert_int_equal(length(json, "events"), 1);
  json_decref(json);
  json_decref(say(w, "GET", "/api/v1/events", NULL, "since", "yesterday", 400));
  json_decref(say(w, "GET", "/api/v1/events", NULL, "since", "10m", 200));
  json_decref(say(w, "GET", "/api/v1/events", NULL, "limit", "x", 400));
}

static void a_deploy_is_followed_to_its_end(void **state) {
  struct world *w = *state;
  struct api_request *r = ask(w, "POST", "/api/v1/deploy", "a", ONE, "wait", "true");
  assert_non_null(r->stream);
  struct buf out = BUF_INIT(1 << 20);
  assert_int_equal(r->stream->fill(r->stream_arg, &out), API_PIECE_SOME);
  assert_non_null(strstr(buf_str(&out), "event: plan\ndata: {\"deployed\":[\"shop/api\"]"));
  assert_non_null(strstr(buf_str(&out), "event: progress\ndata: {\"service\":\"shop/api\",\"state\":\"deploying\""));
  buf_reset(&out);
  assert_int_equal(r->stream->fill(r->stream_arg, &out), API_PIECE_NONE); /* nothing new */
  put_instance(w, "shop", "api", 1, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_instance(w, "shop", "api", 2, 1, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "shop", "api", 1, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING, 1, 0);
  assert_int_equal(r->stream->fill(r->stream_arg, &out), API_PIECE_SOME);
  assert_non_null(strstr(buf_str(&out), "\"ready\":1"));
  buf_reset(&out);
  put_status(w, "shop", "api", 2, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE, 1, 1);
  assert_int_equal(r->stream->fill(r->stream_arg, &out), API_PIECE_LAST);
  assert_non_null(strstr(buf_str(&out), "event: done\ndata: {\"ok\":true,\"services\":[{\"service\":\"shop/api\",\"state\":\"running\""));
  buf_free(&out);
  api_request_unref(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)
      T(a_revision_only_for_what_changed),
      T(replicas_are_no_revision_and_scale_survives),
      T(failed_revisions_are_tried_again),
      T(parameters_that_are_none_change_nothing),
      T(stop_start_and_delete),
      T(numbers_go_on_after_a_purge),
      T(restart_redeploy_rollback),
      T(a_dry_run_writes_nothing),
      T(prune_removes_what_is_no_longer_there),
      T(all_faults_and_nothing_changed),
      T(bodies_that_are_none),
      T(one_name_in_several_projects),
      T(somebody_was_faster),
      T(two_deploys_at_once_do_not_get_one_domain),
      T(a_purge_of_more_than_a_transaction_holds),
      T(cluster_toml_takes_an_admin),
      T(old_revisions_are_let_go),
      T(a_restart_is_of_what_runs),
      T(every_change_is_in_the_history),
      T(a_deploy_is_followed_to_its_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
