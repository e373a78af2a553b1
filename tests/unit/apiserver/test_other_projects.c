/* What another project has: a plan is refused by it, and tells nothing of it. */
#include "tests/unit/apiserver/world.h"

static struct api_request *plan_as(struct world *w, const char *token, const char *more) {
  char body[1024];
  snprintf(body, sizeof body, "{\"services\":[{\"name\":\"mine\",\"project\":\"other\",\"image\":\"i:1\",\"port\":80%s}]}", more);
  return ask(w, "POST", "/api/v1/deploy", token, body, "dry_run", "true");
}

/* A good one is answered when the scheduler has told its steps. */
static int planned(const struct api_request *r) {
  return r->answered ? r->status : 200;
}

static void a_plan_tells_nothing_of_other_projects(void **state) {
  struct world *w = *state;
  char sha[65], key[KEY_MAX], mount[256];
  memset(sha, 'a', 64);
  sha[64] = 0;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "other", "secret-other", "deployer", "other", 0);
  put_service(w, "shop", "api", 1, 1);
  Model__MountFile file = MODEL__MOUNT_FILE__INIT, *files[] = {&file};
  Model__Mount of_shop = MODEL__MOUNT__INIT, *mounts[] = {&of_shop};
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  char *domains[] = {TEXT("a.test")};
  file.sha256 = sha;
  of_shop.source = TEXT("conf");
  of_shop.target = TEXT("/conf");
  of_shop.files = files;
  of_shop.n_files = 1;
  spec.project = TEXT("shop");
  spec.name = TEXT("api");
  spec.image = TEXT("x:1");
  spec.domains = domains;
  spec.n_domains = 1;
  spec.mounts = mounts;
  spec.n_mounts = 1;
  PB_SET(&spec, port, 80);
  put_spec(w, 1, &spec);
  Model__File content = MODEL__FILE__INIT;
  key_named(key, KEY_FILES, sha);
  put(w, key, &content.base);
  snprintf(mount, sizeof mount, ",\"mounts\":[{\"source\":\"conf\",\"target\":\"/x\",\"files\":[{\"path\":\"f\",\"sha256\":\"%s\"}]}]", sha);
  const struct {
    const char *more;
    int as_admin, as_other;
  } cases[] = {{"", 200, 200},
               {",\"domains\":[\"a.test\"]", 422, 422},
               {",\"depends_on\":[\"shop/api\"]", 200, 422},
               {",\"placement\":{\"avoid\":[\"shop/api\"]}", 200, 422},
               {mount, 200, 422}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_request *r = plan_as(w, "secret-admin", cases[i].more);
    if (planned(r) != cases[i].as_admin)
      fail_msg("%s as admin: %d %s", cases[i].more, r->status, buf_str(&r->out));
    api_request_unref(r);
    r = plan_as(w, "secret-other", cases[i].more);
    if (planned(r) != cases[i].as_other)
      fail_msg("%s as other: %d %s", cases[i].more, r->status, buf_str(&r->out));
    if (i == 1)
      assert_null(strstr(buf_str(&r->out), "shop"));
    api_request_unref(r);
  }
}

/* The names of tokens are an admin's to know. */
static void a_plan_tells_no_names_of_tokens(void **state) {
  struct world *w = *state;
  static const char *const tokens[] = {"secret-admin", "secret-other", "secret-other-admin", "secret-deployer"};
  char body[512];
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "other", "secret-other", "deployer", "other", 0);
  put_token(w, "other-admin", "secret-other-admin", "admin", "other", 0);
  put_token(w, "deployer", "secret-deployer", "deployer", NULL, 0);
  snprintf(body, sizeof body, "{\"cluster\":{\"token\":[{\"name\":\"admin\",\"role\":\"viewer\",\"hash\":\"%064d\"}]},\"services\":[]}", 1);
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
    struct api_request *r = ask(w, "POST", "/api/v1/deploy", tokens[i], body, "dry_run", "true");
    assert_int_equal(planned(r), i ? 200 : 422);
    assert_int_equal(strstr(buf_str(&r->out), "is taken by a token") != NULL, i == 0);
    api_request_unref(r);
    r = ask(w, "POST", "/api/v1/deploy", tokens[i], body, NULL, NULL);
    assert_int_equal(r->status, i ? 403 : 422);
    api_request_unref(r);
  }
}

/* A revision that gives a domain up may fail, and the one before comes back by itself. */
static void a_domain_is_free_once_the_rollout_is_over(void **state) {
  struct world *w = *state;
  char key[KEY_MAX];
  put_token(w, "other", "secret-other", "deployer", "other", 0);
  put_service(w, "shop", "api", 2, 1);
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  char *domains[] = {TEXT("a.test")};
  spec.project = TEXT("shop");
  spec.name = TEXT("api");
  spec.image = TEXT("x:1");
  PB_SET(&spec, port, 80);
  for (uint64_t n = 2; n > 0; n--) {
    spec.domains = domains;
    spec.n_domains = n == 1;
    put_spec(w, n, &spec);
  }
  Model__Rollout rollout = MODEL__ROLLOUT__INIT;
  rollout.project = TEXT("shop");
  rollout.service = TEXT("api");
  PB_SET(&rollout, revision, 2);
  key_service(key, KEY_ROLLOUTS, "shop", "api");
  for (uint64_t stable = 1; stable <= 2; stable++) {
    PB_SET(&rollout, stable_revision, stable);
    put(w, key, &rollout.base);
    struct api_request *r = plan_as(w, "secret-other", ",\"domains\":[\"a.test\"]");
    assert_int_equal(planned(r), stable == 1 ? 422 : 200);
    api_request_unref(r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_plan_tells_nothing_of_other_projects, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_plan_tells_no_names_of_tokens, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_domain_is_free_once_the_rollout_is_over, world_setup, world_teardown),
  };
  return cmocka_run_group_tests_name("other projects", tests, NULL, NULL);
}
