/* What a change leaves behind, what cluster.toml says of nodes, and one request apart from how it came. */
#include "orca-apiserver/upkeep.h"
#include "tests/unit/apiserver/world.h"

/* A revision whose service mounts these files. */
static void put_mounting(struct world *w, const char *project, const char *name, uint64_t number, const char *const *hashes, size_t count) {
  Model__MountFile files[4], *list[4];
  for (size_t i = 0; i < count; i++) {
    model__mount_file__init(&files[i]);
    files[i].sha256 = TEXT(hashes[i]);
    list[i] = &files[i];
  }
  Model__Mount mount = MODEL__MOUNT__INIT, *mounts = &mount;
  mount.files = list;
  mount.n_files = count;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  spec.project = TEXT(project);
  spec.name = TEXT(name);
  spec.mounts = &mounts;
  spec.n_mounts = 1;
  put_spec(w, number, &spec);
}

static bool is_shop_old(void *arg, const char *project, const char *name) {
  (void)arg;
  return strcmp(project, "shop") == 0 && strcmp(name, "old") == 0;
}

static void deletes(const struct storec_txn *txn, const char *expected) {
  const Store__TxnRequest *t = storec_txn_request(txn);
  struct buf text = BUF_INIT(1024);
  for (size_t i = 0; i < t->n_success; i++) {
    assert_int_equal(t->success[i]->op_case, STORE__OP__OP_DELETE_RANGE);
    const ProtobufCBinaryData *k = &t->success[i]->delete_range->key;
    buf_printf(&text, "%.*s ", (int)k->len, (const char *)k->data);
  }
  assert_string_equal(buf_str(&text), expected);
  buf_free(&text);
}

static void files_go_with_the_last_that_names_them(void **state) {
  struct world *w = *state;
  put_mounting(w, "shop", "old", 1, (const char *[]){"aa", "bb", "cc"}, 3);
  put_mounting(w, "shop", "old", 2, (const char *[]){"dd"}, 1);
  put_mounting(w, "shop", "api", 1, (const char *[]){"bb"}, 1);
  struct spec_file brought = {.sha256 = "dd"};
  struct spec_set keep = {.files = &brought, .file_count = 1};
  struct storec_txn *txn = storec_txn_new();
  api_upkeep_files(&w->api.cache, is_shop_old, NULL, &keep, txn);
  deletes(txn, "/files/aa /files/cc ");
  storec_txn_free(txn);
  /* Another service of the same deploy names one that is there already. */
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT, *services = &spec;
  Model__Mount mount = MODEL__MOUNT__INIT, *mounts = &mount;
  Model__MountFile file = MODEL__MOUNT_FILE__INIT, *files = &file;
  file.sha256 = TEXT("cc");
  mount.files = &files;
  mount.n_files = 1;
  spec.mounts = &mounts;
  spec.n_mounts = 1;
  keep.services = &services;
  keep.service_count = 1;
  txn = storec_txn_new();
  api_upkeep_files(&w->api.cache, is_shop_old, NULL, &keep, txn);
  deletes(txn, "/files/aa ");
  storec_txn_free(txn);
  txn = storec_txn_new();
  api_upkeep_purge(&w->api.cache, "shop", "api", txn);
  deletes(txn, "/services/shop/api /revisions/shop/api/0000000001 ");
  storec_txn_free(txn);
}

static void old_revisions_go_but_not_what_runs(void **state) {
  struct world *w = *state;
  for (uint64_t n = 1; n <= API_KEEP_REVISIONS + 3; n++)
    put_revision(w, "shop", "api", n, "x:1", NULL);
  put_service(w, "shop", "api", API_KEEP_REVISIONS + 3, 1);
  put_instance(w, "shop", "api", 1, 2, "n1", MODEL__DESIRED__DESIRED_RUN);
  put_rollout(w, "shop", "api", MODEL__ROLLOUT_STATE__ROLLOUT_FAILED, API_KEEP_REVISIONS + 3, 3);
  struct storec_txn *txn = storec_txn_new();
  const struct api_object *service = api_cache_object(&w->api.cache, API_SERVICES, "/services/shop/api");
  api_upkeep_revisions(&w->api.cache, (const Model__Service *)service->msg, txn);
  deletes(txn,
          "/revisions/shop/api/0000000001 /revision-status/shop/api/0000000001 /revisions/shop/api/0000000004 /revision-status/shop/api/0000000004 ");
  storec_txn_free(txn);
}

static void nodes_are_as_cluster_toml_declares_them(void **state) {
  (void)state;
  Model__Node node = MODEL__NODE__INIT;
  node.name = TEXT("n1");
  node.address = TEXT("10.0.0.1");
  assert_null(api_upkeep_node(&node, NULL));
  Model__Pair disk = MODEL__PAIR__INIT, *labels = &disk;
  disk.key = TEXT("disk");
  disk.value = TEXT("ssd");
  Model__Gpu gpu = MODEL__GPU__INIT, *gpus = &gpu;
  Model__NodeDecl decls[2] = {MODEL__NODE_DECL__INIT, MODEL__NODE_DECL__INIT}, *list[] = {&decls[0], &decls[1]};
  decls[0].name = TEXT("n2");
  decls[1].address = TEXT("10.0.0.1"); /* one without a name is meant by its address */
  decls[1].labels = &labels;
  decls[1].n_labels = 1;
  decls[1].gpus = &gpus;
  decls[1].n_gpus = 1;
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  cluster.nodes = list;
  cluster.n_nodes = 2;
  Model__Node *changed = api_upkeep_node(&node, &cluster);
  assert_non_null(changed);
  assert_int_equal(changed->n_labels, 1);
  assert_string_equal(changed->labels[0]->value, "ssd");
  assert_int_equal(changed->n_gpus, 1);
  assert_null(api_upkeep_node(changed, &cluster)); /* it is so already */
  Model__Node *bare = api_upkeep_node(changed, NULL);
  assert_non_null(bare);
  assert_int_equal(bare->n_labels + bare->n_gpus, 0);
  model__node__free_unpacked(bare, NULL);
  model__node__free_unpacked(changed, NULL);
}

static void bodies(void **state) {
  struct world *w = *state;
  char deep[200];
  memset(deep, '[', sizeof deep);
  deep[sizeof deep - 1] = 0;
  const struct {
    const char *body, *expected;
  } cases[] = {
      {"{\"a\":\"[[\\\"{{\"}", NULL},
      {"", "a JSON object is needed"},
      {"[]", "a JSON object is needed"},
      {deep, "nests deeper"},
      {"{\"password\": hunter2}", "line 1, column"},
      {"{\"a\":1,\"a\":2}", "duplicate"},
      {"{\"a\":1} x", "line 1"},
      {"{\"value\":\"\\ud83d\\u0068unter2\"}", "column"},
      {"{\"value\":\"hunter2\xff\"}", "column"},
      {"{\"value\":\"hunter2", "line 1"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_request *r = api_request_new(&w->api, "POST", "/");
    struct err err = {0};
    buf_add_str(&r->body, cases[i].body);
    int rc = api_request_parse(r, &err);
    assert_int_equal(rc, cases[i].expected ? -1 : 0);
    if (cases[i].expected && !strstr(err.msg, cases[i].expected))
      fail_msg("%s", err.msg);
    assert_null(strstr(err.msg, "hunter2"));
    assert_null(strstr(err.msg, "0068"));
    assert_null(strstr(err.msg, "0xff"));
    api_request_unref(r);
  }
}

static unsigned woken, dropped;
static void wake(struct api_request *r) {
  (void)r;
  woken++;
}
static void drop(void *arg) {
  (void)arg;
  dropped++;
}

static void answers(void **state) {
  struct world *w = *state;
  static const struct api_upgrade_ops ops = {.drop = drop};
  struct api_request *r = api_request_new(&w->api, "GET", "/");
  r->transport = r;
  r->wake = wake;
  api_stream_wake(r);
  api_reply_upgrade(r, "accept", "orca", &ops, w);
  assert_int_equal(r->status, 101);
  assert_string_equal(r->accept, "accept");
  assert_int_equal(woken, 2);
  r->upgrade = NULL; /* as the transport took it */
  api_request_unref(r);
  r = api_request_new(&w->api, "GET", "/");
  for (int i = 0; i < API_QUERY_MAX; i++)
    assert_int_equal(api_request_add_query(r, i ? "flag" : "off", i ? NULL : "no"), 0);
  assert_int_equal(api_request_add_query(r, "more", "1"), -1);
  assert_true(api_request_flag(r, "flag") && !api_request_flag(r, "off") && !api_request_flag(r, "none"));
  api_fail_with(r, ERR_NOT_FOUND, "no service %s", "\xc3\xa9t\xc3\xa9 \xff");
  assert_int_equal(r->status, 404);
  json_t *json = json_loadb((const char *)r->out.data, r->out.len, 0, NULL);
  assert_non_null(json);
  assert_string_equal(json_string_value(json_object_get(json, "code")), "not_found");
  json_decref(json);
  api_request_unref(r);
}

/* Twelve megabytes of "{}," would be one gigabyte of tables. */
static void a_body_has_a_bounded_number_of_values(void **state) {
  struct world *w = *state;
  static const char *const units[] = {"{},", "[],", "0,", "{\"a\":\"[,{\"},"};
  static const unsigned parts[] = {2, 2, 1, 2};
  for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
    for (unsigned more = 0; more < 2; more++) {
      struct api_request *r = api_request_new(&w->api, "POST", "/");
      struct err err = {0};
      buf_add_str(&r->body, "{\"services\":[");
      for (unsigned i = 0; i < API_BODY_PARTS / parts[u] - 2 + 2 * more; i++)
        buf_add_str(&r->body, units[u]);
      buf_add_str(&r->body, "1]}");
      assert_int_equal(api_request_parse(r, &err), more ? -1 : 0);
      assert_int_equal(err.code, more ? ERR_TOO_LARGE : ERR_NONE);
      api_request_unref(r);
    }
}

/* The words of a command are parameters, too: half of one must not run. */
static void a_query_that_is_too_long_does_nothing(void **state) {
  struct world *w = *state;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  for (int more = 0; more < 2; more++) {
    struct api_request *r = api_request_new(&w->api, "POST", "/api/v1/services/api/scale");
    for (int i = 0; i < API_QUERY_MAX + more; i++)
      api_request_add_query(r, "project", "shop");
    buf_add_str(&r->body, "{\"replicas\":3}");
    assert_true(api_admit(&w->api, r, "Bearer secret-admin"));
    api_dispatch(&w->api, r);
    assert_int_equal(r->status, more ? 400 : 200);
    api_request_unref(r);
  }
}

int main(void) {
#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)
  const struct CMUnitTest tests[] = {WORLD(files_go_with_the_last_that_names_them),
                                     WORLD(old_revisions_go_but_not_what_runs),
                                     WORLD(nodes_are_as_cluster_toml_declares_them),
                                     WORLD(bodies),
                                     WORLD(answers),
                                     WORLD(a_body_has_a_bounded_number_of_values),
                                     WORLD(a_query_that_is_too_long_does_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
