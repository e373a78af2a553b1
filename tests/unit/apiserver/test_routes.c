/* The route table and who may what: every route × every kind of token, made from the table itself; and what is not in it. */
#include "orca-apiserver/openapi.h"
#include "tests/unit/apiserver/world.h"

/* Written down a second time, on purpose: the table must agree with it, and a new route must be entered here. */
static const struct {
  const char *route;
  char needs; /* o open, m metrics, v viewer, d deployer, a admin */
} expected[] = {
    {"GET /api/v1/health", 'o'},
    {"GET /metrics", 'm'},
    {"GET /api/v1/openapi.json", 'o'},
    {"POST /api/v1/deploy", 'd'},
    {"GET /api/v1/status", 'v'},
    {"GET /api/v1/services/{name}", 'v'},
    {"DELETE /api/v1/services/{name}", 'd'},
    {"GET /api/v1/services/{name}/explain", 'v'},
    {"GET /api/v1/services/{name}/history", 'v'},
    {"POST /api/v1/services/{name}/scale", 'd'},
    {"POST /api/v1/services/{name}/stop", 'd'},
    {"POST /api/v1/services/{name}/start", 'd'},
    {"POST /api/v1/services/{name}/restart", 'd'},
    {"POST /api/v1/services/{name}/redeploy", 'd'},
    {"POST /api/v1/services/{name}/rollback", 'd'},
    {"DELETE /api/v1/projects/{name}", 'd'},
    {"POST /api/v1/stop", 'a'},
    {"GET /api/v1/events", 'v'},
    {"GET /api/v1/tokens", 'a'},
    {"POST /api/v1/tokens", 'a'},
    {"GET /api/v1/tokens/{name}", 'a'},
    {"DELETE /api/v1/tokens/{name}", 'a'},
    {"GET /api/v1/audit", 'a'},
    {"GET /api/v1/services/{name}/exec", 'd'},
    {"GET /api/v1/secrets", 'a'},
    {"POST /api/v1/secrets", 'a'},
    {"POST /api/v1/secrets/rotate-key", 'a'},
    {"GET /api/v1/secrets/{name}", 'a'},
    {"PUT /api/v1/secrets/{name}", 'a'},
    {"DELETE /api/v1/secrets/{name}", 'a'},
    {"GET /api/v1/cluster/info", 'v'},
    {"GET /api/v1/nodes", 'v'},
};

static char needs_of(const struct api_route *route) {
  char text[128];
  snprintf(text, sizeof text, "%s %s", route->method, route->path);
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
    if (strcmp(expected[i].route, text) == 0)
      return expected[i].needs;
  fail_msg("%s is not in this test's table", text);
  return 0;
}

static void fill(struct world *w) {
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "deployer", "secret-deployer", "deployer", NULL, 0);
  put_token(w, "viewer", "secret-viewer", "viewer", NULL, 0);
  put_token(w, "expired", "secret-expired", "admin", NULL, 1);
  put_token(w, "nobody", "secret-nobody", "superuser", NULL, 0);
  put_token(w, "other", "secret-other", "admin", "other", 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", "a.test");
}

static void concrete(const char *pattern, char path[128]) {
  const char *open = strchr(pattern, '{');
  if (!open)
    snprintf(path, 128, "%s", pattern);
  else
    snprintf(path, 128, "%.*s%s%s", (int)(open - pattern), pattern, strstr(pattern, "projects") ? "shop" : "api", strchr(open, '}') + 1);
}

static int status_of(struct world *w, const struct api_route *route, const char *token) {
  char path[128];
  concrete(route->path, path);
  struct api_request *r = ask(w, route->method, path, token, route->takes ? "{\"replicas\":2}" : NULL, NULL, NULL);
  int status = r->answered ? r->status : -1;
  api_request_unref(r);
  return status;
}

static void every_route_and_role(void **state) {
  (void)state;
  static const struct {
    const char *token;
    int level; /* 0 nobody, 1 viewer, 2 deployer, 3 admin */
  } who[] = {{NULL, 0}, {"wrong", 0}, {"secret-expired", 0}, {"secret-nobody", 0}, {"secret-viewer", 1}, {"secret-deployer", 2}, {"secret-admin", 3}};
  assert_int_equal(api_route_count, sizeof expected / sizeof expected[0]);
  for (size_t i = 0; i < api_route_count; i++)
    for (size_t k = 0; k < sizeof who / sizeof who[0]; k++) {
      struct world *w = world_new();
      fill(w);
      char needs = needs_of(&api_routes[i]);
      int level = needs == 'o' ? 0 : needs == 'v' || needs == 'm' ? 1 : needs == 'd' ? 2 : 3;
      int status = status_of(w, &api_routes[i], who[k].token);
      int want = who[k].level >= level ? 0 : who[k].level ? 403 : 401;
      if (want ? status != want : status == 401 || status == 403 || status == 404 || status == 405)
        fail_msg("%s %s with token %s: %d", api_routes[i].method, api_routes[i].path, who[k].token ? who[k].token : "none", status);
      world_free(w);
    }
}

/* What a token may not see does not exist for it. */
static void another_projects_token(void **state) {
  struct world *w = *state;
  fill(w);
  for (size_t i = 0; i < api_route_count; i++) {
    if (!strchr(api_routes[i].path, '{'))
      continue;
    assert_int_equal(status_of(w, &api_routes[i], "secret-other"), 404);
  }
  struct api_request *r = ask(w, "GET", "/api/v1/status", "secret-other", NULL, NULL, NULL);
  json_t *json = answer_of(r);
  assert_int_equal(json_array_size(json_object_get(json, "services")), 0);
  json_decref(json);
  api_request_unref(r);
  r = ask(w, "POST", "/api/v1/deploy", "secret-other", "{\"services\":[{\"name\":\"x\",\"project\":\"shop\",\"image\":\"y\"}]}", NULL, NULL);
  assert_int_equal(r->status, 403);
  api_request_unref(r);
  assert_null(api_cache_service(&w->api.cache, "shop", "x", NULL));
}

static void metrics_are_open_on_loopback_only(void **state) {
  struct world *w = *state;
  fill(w);
  struct api_request *r = api_request_new(&w->api, "GET", "/metrics");
  r->who.local = true;
  assert_true(api_admit(&w->api, r, NULL));
  api_dispatch(&w->api, r);
  assert_int_equal(r->status, 200);
  assert_non_null(strstr(buf_str(&r->out), "orca_service_replicas{project=\"shop\",service=\"api\"} 1"));
  api_request_unref(r);
  r = api_request_new(&w->api, "GET", "/api/v1/status");
  r->who.local = true;
  assert_false(api_admit(&w->api, r, NULL));
  assert_int_equal(r->status, 401);
  api_request_unref(r);
}

static void unknown_paths_and_methods(void **state) {
  struct world *w = *state;
  fill(w);
  static const struct {
    const char *method, *path, *token;
    int status;
  } cases[] = {
      {"GET", "/api/v1/nothing", NULL, 401},
      {"GET", "/api/v1/nothing", "secret-viewer", 404},
      {"PUT", "/api/v1/status", NULL, 401},
      {"PUT", "/api/v1/status", "secret-viewer", 405},
      {"GET", "/", "secret-viewer", 404},
      {"GET", "/api/v1/services/", "secret-viewer", 404},
      {"GET", "/api/v1/services/a/b", "secret-viewer", 404},
      {"GET", "/api/v1/services/api/explain/", "secret-viewer", 404},
      {"HEAD", "/api/v1/status", "secret-viewer", 200},
      {"POST", "/api/v1/services/api/promote", "secret-admin", 404},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_request *r = ask(w, cases[i].method, cases[i].path, cases[i].token, NULL, NULL, NULL);
    if (r->status != cases[i].status)
      fail_msg("%s %s: %d, not %d", cases[i].method, cases[i].path, r->status, cases[i].status);
    api_request_unref(r);
  }
  char longest[200];
  memset(longest, 'a', sizeof longest);
  memcpy(longest, "/api/v1/services/", 17);
  longest[199] = 0;
  struct api_request *r = ask(w, "GET", longest, "secret-viewer", NULL, NULL, NULL);
  assert_int_equal(r->status, 404);
  api_request_unref(r);
  r = ask(w, "PATCH", "/api/v1/services/api", "secret-viewer", NULL, NULL, NULL);
  assert_string_equal(r->allow, "GET, DELETE");
  api_request_unref(r);
}

static void before_the_store_has_answered(void **state) {
  struct world *w = *state;
  w->api.synced = w->api.in_touch = false;
  struct api_request *r = ask(w, "GET", "/api/v1/health", NULL, NULL, NULL, NULL);
  assert_int_equal(r->status, 503);
  assert_non_null(strstr(buf_str(&r->out), "not answered yet"));
  api_request_unref(r);
  r = ask(w, "GET", "/api/v1/status", "secret-admin", NULL, NULL, NULL);
  assert_int_equal(r->status, 503);
  assert_int_equal(r->retry_after, 1);
  api_request_unref(r);
}

static void tokens_that_are_none(void **state) {
  struct world *w = *state;
  fill(w);
  char huge[API_TOKEN_MAX + 2];
  memset(huge, 'x', sizeof huge - 1);
  huge[sizeof huge - 1] = 0;
  static const char *const headers[] = {"", "Bearer", "Bearer ", "Basic secret-admin", "secret-admin", "Bearer secret-admin2", "Bearer secret-admi"};
  struct api_principal who = {0};
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
    assert_false(api_auth_check(&w->api.cache, headers[i], T0, &who));
  assert_false(api_auth_check(&w->api.cache, huge, T0, &who));
  assert_true(api_auth_check(&w->api.cache, "bearer secret-admin", T0, &who));
  assert_true(api_auth_is_known(&w->api.cache, &who, T0));
  api_cache_del(&w->api.cache, "/tokens/admin");
  assert_false(api_auth_is_known(&w->api.cache, &who, T0)); /* revoked: at once */
  assert_false(api_auth_sees(&w->api.cache, &who, "shop"));
}

static void the_document(void **state) {
  (void)state;
  json_t *doc = api_openapi();
  assert_non_null(doc);
  assert_string_equal(json_string_value(json_object_get(doc, "openapi")), "3.1.0");
  json_t *schemas = json_object_get(json_object_get(doc, "components"), "schemas");
  for (size_t i = 0; i < api_route_count; i++) {
    json_t *path = json_object_get(json_object_get(doc, "paths"), api_routes[i].path);
    char method[8] = "";
    for (size_t n = 0; api_routes[i].method[n]; n++)
      method[n] = (char)(api_routes[i].method[n] | 0x20);
    assert_non_null(json_object_get(path, method));
    assert_true(strcmp(api_routes[i].gives, "text") == 0 || strcmp(api_routes[i].gives, "WebSocket") == 0 ||
                json_is_object(json_object_get(schemas, api_routes[i].gives)));
    if (api_routes[i].takes)
      assert_true(json_is_object(json_object_get(schemas, api_routes[i].takes)));
  }
  /* Every reference leads somewhere. */
  char *text = json_dumps(doc, JSON_COMPACT);
  for (const char *p = text; (p = strstr(p, "#/components/schemas/")); p++) {
    char name[64];
    assert_int_equal(sscanf(p, "#/components/schemas/%63[A-Za-z]", name), 1);
    assert_non_null(json_object_get(schemas, name));
  }
  free(text);
  json_decref(doc);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_route_and_role),
      cmocka_unit_test_setup_teardown(another_projects_token, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(metrics_are_open_on_loopback_only, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(unknown_paths_and_methods, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(before_the_store_has_answered, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(tokens_that_are_none, world_setup, world_teardown),
      cmocka_unit_test(the_document),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
