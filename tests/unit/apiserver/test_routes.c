/* The route table: what is not in it, what is no token, and the document that is made from it. Who may what: test_permissions.c. */
#include "orca-apiserver/openapi.h"
#include "tests/unit/apiserver/world.h"

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
  assert_non_null(strstr(buf_str(&r->out), "not in touch"));
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
    if (!json_object_get(schemas, name))
      fail_msg("%s is referred to and not among the schemas of openapi.c", name);
  }
  free(text);
  json_decref(doc);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(metrics_are_open_on_loopback_only, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(unknown_paths_and_methods, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(before_the_store_has_answered, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(tokens_that_are_none, world_setup, world_teardown),
      cmocka_unit_test(the_document),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
