/* Every route × role × project: what routes.c says against a table of its own, which stands here. A route that is not in it fails. */
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/apiserver/world.h"

enum scope {
  NAMED,   /* is about a thing of project shop: for a token of another project it is not there (404) */
  LIST,    /* a token of another project gets it without what is in shop */
  SAME,    /* the same for each token of that role; says nothing of projects */
  MAKES,   /* makes something in project shop, which need not be there: another project's token is denied (403) */
  CLUSTER, /* of the whole cluster: each token of some projects is denied (403) */
};

/* Who may is written down a second time, on purpose. A new route needs a line here:
 *   {"GET /api/v1/things/{name}", 'v', NAMED, "/api/v1/things/api", QUERY or NULL, BODY or NULL} */
static const struct {
  const char *route;
  char needs; /* o open, m metrics (open on loopback), v viewer, d deployer, a admin */
  enum scope scope;
  const char *path, *query, *body; /* query: "key=value" */
} expected[] = {
    {"GET /api/v1/health", 'o', SAME, "/api/v1/health", NULL, NULL},
    {"GET /metrics", 'm', LIST, "/metrics", NULL, NULL},
    {"GET /api/v1/openapi.json", 'o', SAME, "/api/v1/openapi.json", NULL, NULL},
    {"POST /api/v1/deploy", 'd', MAKES, "/api/v1/deploy", NULL, "{\"services\":[{\"name\":\"api\",\"project\":\"shop\",\"image\":\"y\"}]}"},
    {"GET /api/v1/status", 'v', LIST, "/api/v1/status", NULL, NULL},
    {"GET /api/v1/services/{name}", 'v', NAMED, "/api/v1/services/api", NULL, NULL},
    {"DELETE /api/v1/services/{name}", 'd', NAMED, "/api/v1/services/api", "project=shop", NULL},
    {"GET /api/v1/services/{name}/explain", 'v', NAMED, "/api/v1/services/api/explain", NULL, NULL},
    {"GET /api/v1/services/{name}/history", 'v', NAMED, "/api/v1/services/api/history", NULL, NULL},
    {"GET /api/v1/services/{name}/exec", 'd', NAMED, "/api/v1/services/api/exec", "cmd=true", NULL},
    {"GET /api/v1/services/{name}/logs", 'v', NAMED, "/api/v1/services/api/logs", NULL, NULL},
    {"POST /api/v1/services/{name}/scale", 'd', NAMED, "/api/v1/services/api/scale", NULL, "{\"replicas\":2}"},
    {"POST /api/v1/services/{name}/stop", 'd', NAMED, "/api/v1/services/api/stop", NULL, NULL},
    {"POST /api/v1/services/{name}/start", 'd', NAMED, "/api/v1/services/api/start", NULL, NULL},
    {"POST /api/v1/services/{name}/restart", 'd', NAMED, "/api/v1/services/api/restart", NULL, NULL},
    {"POST /api/v1/services/{name}/redeploy", 'd', NAMED, "/api/v1/services/api/redeploy", NULL, NULL},
    {"POST /api/v1/services/{name}/rollback", 'd', NAMED, "/api/v1/services/api/rollback", "to=1", NULL},
    {"DELETE /api/v1/projects/{name}", 'd', NAMED, "/api/v1/projects/shop", NULL, NULL},
    {"POST /api/v1/stop", 'a', LIST, "/api/v1/stop", NULL, NULL},
    {"GET /api/v1/jobs", 'v', LIST, "/api/v1/jobs", NULL, NULL},
    {"GET /api/v1/jobs/{name}", 'v', NAMED, "/api/v1/jobs/nightly", NULL, NULL},
    {"GET /api/v1/jobs/{name}/explain", 'v', NAMED, "/api/v1/jobs/nightly/explain", NULL, NULL},
    {"DELETE /api/v1/jobs/{name}", 'd', NAMED, "/api/v1/jobs/nightly", NULL, NULL},
    {"POST /api/v1/jobs/{name}/run", 'd', NAMED, "/api/v1/jobs/nightly/run", NULL, NULL},
    {"POST /api/v1/jobs/{name}/stop", 'd', NAMED, "/api/v1/jobs/nightly/stop", NULL, NULL},
    {"POST /api/v1/jobs/{name}/start", 'd', NAMED, "/api/v1/jobs/nightly/start", NULL, NULL},
    {"GET /api/v1/tasks", 'v', LIST, "/api/v1/tasks", NULL, NULL},
    {"POST /api/v1/tasks", 'd', MAKES, "/api/v1/tasks", NULL, "{\"image\":\"x:1\",\"project\":\"shop\"}"},
    {"GET /tasks", 'v', LIST, "/tasks", NULL, NULL},
    {"POST /tasks", 'd', MAKES, "/tasks", NULL, "{\"image\":\"x:1\",\"project\":\"shop\"}"},
    {"GET /api/v1/events", 'v', LIST, "/api/v1/events", NULL, NULL},
    {"GET /api/v1/top", 'v', LIST, "/api/v1/top", NULL, NULL},
    {"GET /api/v1/tokens", 'a', LIST, "/api/v1/tokens", NULL, NULL},
    {"POST /api/v1/tokens", 'a', MAKES, "/api/v1/tokens", NULL, "{\"name\":\"new\",\"role\":\"viewer\",\"projects\":[\"shop\"]}"},
    {"GET /api/v1/tokens/{name}", 'a', NAMED, "/api/v1/tokens/ci", NULL, NULL},
    {"DELETE /api/v1/tokens/{name}", 'a', NAMED, "/api/v1/tokens/ci", NULL, NULL},
    {"GET /api/v1/audit", 'a', LIST, "/api/v1/audit", NULL, NULL},
    {"GET /api/v1/doctor", 'a', CLUSTER, "/api/v1/doctor", NULL, NULL},
    {"GET /api/v1/cluster/info", 'v', LIST, "/api/v1/cluster/info", NULL, NULL},
    {"GET /api/v1/nodes", 'v', LIST, "/api/v1/nodes", NULL, NULL},
    {"GET /api/v1/cluster/nodes", 'v', LIST, "/api/v1/cluster/nodes", NULL, NULL},
    {"GET /api/v1/secrets", 'a', LIST, "/api/v1/secrets", NULL, NULL},
    {"POST /api/v1/secrets", 'a', NAMED, "/api/v1/secrets", "project=shop", "{\"secrets\":{\"A\":\"b\"}}"},
    {"POST /api/v1/secrets/rotate-key", 'a', CLUSTER, "/api/v1/secrets/rotate-key", NULL, NULL},
    {"GET /api/v1/secrets/{name}", 'a', NAMED, "/api/v1/secrets/DB_URL", "project=shop", NULL},
    {"PUT /api/v1/secrets/{name}", 'a', NAMED, "/api/v1/secrets/DB_URL", "project=shop", "{\"value\":\"x\"}"},
    {"DELETE /api/v1/secrets/{name}", 'a', NAMED, "/api/v1/secrets/DB_URL", "project=shop", NULL},
};
#define EXPECTED (sizeof expected / sizeof expected[0])

static int level_of(char needs) {
  return needs == 'o' ? 0 : needs == 'v' || needs == 'm' ? 1 : needs == 'd' ? 2 : 3;
}

static size_t row_of(const struct api_route *route) {
  char text[160];
  snprintf(text, sizeof text, "%s %s", route->method, route->path);
  for (size_t i = 0; i < EXPECTED; i++)
    if (strcmp(expected[i].route, text) == 0)
      return i;
  fail_msg("%s is not in the table of test_permissions.c: add {\"%s\", WHO, SCOPE, PATH, QUERY, BODY}, as you mean it and not as routes.c says it",
           text, text);
  return 0;
}

/* Everything there is, in project shop. What a token of project other may read must not hold the word. */
static void fill(struct world *w) {
  static const char *const roles[] = {"viewer", "deployer", "admin"};
  char id[64], text[64];
  for (size_t i = 0; i < 3; i++) {
    put_token(w, roles[i], (snprintf(text, sizeof text, "secret-%s", roles[i]), text), roles[i], NULL, 0);
    snprintf(id, sizeof id, "%s-mine", roles[i]);
    snprintf(text, sizeof text, "secret-%s-mine", roles[i]);
    put_token(w, id, text, roles[i], "shop", 0);
    snprintf(id, sizeof id, "%s-other", roles[i]);
    snprintf(text, sizeof text, "secret-%s-other", roles[i]);
    put_token(w, id, text, roles[i], "other", 0);
  }
  put_token(w, "spare", "secret-spare", "admin", NULL, 0);
  put_token(w, "ci", "secret-ci", "deployer", "shop", 0);
  put_token(w, "expired", "secret-expired", "admin", NULL, 1);
  put_token(w, "nobody", "secret-nobody", "superuser", NULL, 0);
  put_service(w, "shop", "api", 2, 1);
  put_revision(w, "shop", "api", 1, "x:1", "a.test");
  put_revision(w, "shop", "api", 2, "x:2", "a.test");
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_FAILED, 2, 1);
  put_instance(w, "shop", "api", 1, 2, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "shop", "api", 1, "n1", MODEL__PHASE__PHASE_RUNNING, true);

  put_job(w, "shop", "nightly", 1, "shop:1");

  char key[KEY_MAX];
  Model__JobRun run = MODEL__JOB_RUN__INIT;
  run.project = TEXT("shop");
  run.name = TEXT("nightly");
  PB_SET(&run, number, 1);
  key_numbered(key, KEY_JOB_RUNS, "shop", "nightly", 1);
  put(w, key, &run.base);
  Model__Node node = MODEL__NODE__INIT;
  node.name = TEXT("n1");
  node.address = TEXT("127.0.0.1");
  put(w, "/nodes/n1", &node.base);
  Model__Event event = MODEL__EVENT__INIT;
  event.kind = TEXT("service.deployed");
  event.project = TEXT("shop");
  event.service = TEXT("api");
  PB_SET(&event, ms, T0);
  key_event(key, KEY_HISTORY_APISERVER, T0, 0);
  put(w, key, &event.base);
  Model__AuditEntry entry = MODEL__AUDIT_ENTRY__INIT;
  entry.project = TEXT("shop");
  entry.target = TEXT("shop/api");
  PB_SET(&entry, ms, T0);
  key_event(key, KEY_AUDIT, T0, 0);
  put(w, key, &entry.base);
  Model__Secret secret = MODEL__SECRET__INIT;
  secret.project = TEXT("shop");
  secret.name = TEXT("DB_URL");
  PB_SET(&secret, version, 1);
  key_secret(key, "shop", "DB_URL");
  put(w, key, &secret.base);
}

struct answer {
  int status; /* -1: not yet */
  bool says_shop;
};

static struct answer ask_row(const struct api_route *route, size_t row, const char *token) {
  struct world *w = world_new();
  fill(w);
  char key[32] = "", *equals = NULL;
  if (expected[row].query) {
    snprintf(key, sizeof key, "%s", expected[row].query);
    equals = strchr(key, '=');
    *equals++ = 0;
  }
  struct api_request *r = ask(w, route->method, expected[row].path, token,
                              expected[row].body ? expected[row].body
                              : route->takes     ? "{}"
                                                 : NULL,
                              *key ? key : NULL, equals);
  struct answer a = {.status = r->answered ? r->status : -1};
  a.says_shop = r->out.len && strstr(buf_str(&r->out), "shop");
  if (r->stream) {
    struct buf piece = BUF_INIT(1 << 20);
    r->stream->fill(r->stream_arg, &piece);
    a.says_shop = a.says_shop || (piece.len && strstr(buf_str(&piece), "shop"));
    buf_free(&piece);
  }
  api_request_unref(r);
  world_free(w);
  return a;
}

static bool is_refusal(int status) {
  return status == 401 || status == 403 || status == 404 || status == 405;
}

static void every_route_role_and_project(void **state) {
  (void)state;
  static const struct {
    const char *token;
    int level;       /* 0 nobody, 1 viewer, 2 deployer, 3 admin */
    bool is_another; /* of project other */
  } who[] = {{NULL, 0, false},
             {"wrong", 0, false},
             {"secret-expired", 0, false},
             {"secret-nobody", 0, false},
             {"secret-viewer", 1, false},
             {"secret-viewer-mine", 1, false},
             {"secret-viewer-other", 1, true},
             {"secret-deployer", 2, false},
             {"secret-deployer-mine", 2, false},
             {"secret-deployer-other", 2, true},
             {"secret-admin", 3, false},
             {"secret-admin-mine", 3, false},
             {"secret-admin-other", 3, true}};
  for (size_t i = 0; i < api_route_count; i++)
    for (size_t k = 0; k < sizeof who / sizeof who[0]; k++) {
      size_t row = row_of(&api_routes[i]);
      int level = level_of(expected[row].needs), want = 0;
      enum scope scope = expected[row].scope;
      bool limited = who[k].token && (strstr(who[k].token, "-mine") || who[k].is_another);
      struct answer a = ask_row(&api_routes[i], row, who[k].token);
      if (level && !who[k].level)
        want = 401;
      else if (who[k].level >= level && scope == NAMED && who[k].is_another)
        want = 404;
      else if (who[k].level < level || (scope == MAKES && who[k].is_another) || (scope == CLUSTER && limited))
        want = 403;
      if (want ? a.status != want : is_refusal(a.status))
        fail_msg("%s with token %s: %d, not %d", expected[row].route, who[k].token ? who[k].token : "none", a.status, want);
      if (who[k].is_another && scope == LIST && a.says_shop)
        fail_msg("%s tells token %s of project shop", expected[row].route, who[k].token);
    }
}

static void no_row_without_a_route(void **state) {
  (void)state;
  for (size_t row = 0; row < EXPECTED; row++) {
    bool found = false;
    for (size_t i = 0; i < api_route_count; i++)
      found = found || row_of(&api_routes[i]) == row;
    if (!found)
      fail_msg("%s is in the table of test_permissions.c, and not in routes.c", expected[row].route);
  }
}

/* ---- what does not build ---- */

/* The compiler's exit code for a table of one route that asks for `permission`, by the macro of routes.c itself. */
static int compile(const char *permission) {
  char dir[] = "/tmp/orca-routes-XXXXXX", path[64], line[2048];
  assert_non_null(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/one.c", dir);
  FILE *to = fopen(path, "w"), *from = fopen("orca-apiserver/routes.c", "r");
  assert_non_null(to);
  assert_non_null(from);
  bool in_table = false, told = false;
  while (fgets(line, sizeof line, from)) {
    if (strstr(line, "const struct api_route api_routes[]")) {
      fprintf(to, "%s  ROUTE(\"GET\", \"/x\", %s api_get_health, \"\", NULL, \"Health\", \"\")\n", line, permission);
      in_table = told = true;
    } else if (strncmp(line, "};", 2) == 0) {
      in_table = false;
    }
    if (!in_table)
      fputs(line, to);
  }
  assert_true(told);
  fclose(from);
  fclose(to);
  char include[PATH_MAX + 16] = "-I", self[PATH_MAX] = "";
  assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  char *cut = strstr(self, "/tests/unit/"); /* generated headers are beside the tests */
  assert_non_null(cut);
  *cut = 0;
  snprintf(include, sizeof include, "-I%s/gen", self);
  const char *cc = getenv("CC");
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    if (!freopen("/dev/null", "w", stderr))
      _exit(126);
    execlp(cc && *cc && !strchr(cc, ' ') ? cc : "cc", "cc", "-D_GNU_SOURCE", "-std=gnu17", "-I.", include, "-fsyntax-only", path, (char *)NULL);
    _exit(127);
  }
  int status = 0;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  unlink(path);
  rmdir(dir);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_route_without_a_permission_does_not_build(void **state) {
  (void)state;
  if (access("orca-apiserver/routes.c", R_OK) != 0 || compile("API_PERM_VIEW,") == 127)
    skip(); /* not in the source tree, or without a compiler */
  assert_int_equal(compile("API_PERM_VIEW,"), 0);
  assert_int_not_equal(compile(""), 0);
  assert_int_not_equal(compile("0,"), 0);
  assert_int_not_equal(compile("API_PERM_END,"), 0);
  assert_int_not_equal(compile("NULL,"), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_route_role_and_project),
      cmocka_unit_test(no_row_without_a_route),
      cmocka_unit_test(a_route_without_a_permission_does_not_build),
  };
  return cmocka_run_group_tests_name("permissions", tests, NULL, NULL);
}
