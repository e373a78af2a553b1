/* What agents and proxies are told: desired states and route tables, merged for who is slow, and when an instance is let go of. */
#include "orca-apiserver/desired.h"
#include "orca-apiserver/gateway_files.h"
#include "orca-apiserver/routes_derive.h"
#include "tests/unit/apiserver/world.h"

#define RUN MODEL__DESIRED__DESIRED_RUN
#define DRAIN MODEL__DESIRED__DESIRED_DRAIN
#define RUNNING MODEL__PHASE__PHASE_RUNNING
#define SEC INT64_C(1000000000)

/* ---- desired state ---- */

static Node__DesiredState *next(struct world *w, struct api_desired *d) {
  Node__DesiredState *s = api_desired_build(d, &w->api.cache);
  assert_non_null(s);
  return s;
}

static void sent(struct api_desired *d, Node__DesiredState *s) {
  api_desired_sent(d, s);
  api_desired_free(s);
}

static void everything_then_changes(void **state) {
  struct world *w = *state;
  struct api_desired d;
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  put_instance(w, "shop", "api", 1, 1, "n1", RUN);
  put_instance(w, "shop", "api", 2, 1, "n2", RUN);
  api_desired_init(&d, "n1");
  assert_true(api_desired_pending(&d));
  Node__DesiredState *s = next(w, &d);
  assert_true(s->full);
  assert_int_equal(s->n_assigned, 1);
  assert_int_equal(s->assigned[0]->instance->number, 1);
  assert_string_equal(s->assigned[0]->revision->spec->image, "x:1");
  sent(&d, s);
  assert_false(api_desired_pending(&d));

  put_instance(w, "shop", "api", 3, 1, "n1", RUN);
  api_desired_mark(&d, "shop/api.3");
  put_instance(w, "shop", "api", 3, 1, "n1", DRAIN); /* a second change while it is slow: still one entry */
  api_desired_mark(&d, "shop/api.3");
  put_instance(w, "shop", "api", 1, 1, "n2", RUN); /* it has moved */
  api_desired_mark(&d, "shop/api.1");
  s = next(w, &d);
  assert_false(s->full);
  assert_int_equal(s->n_assigned, 1);
  assert_int_equal(s->assigned[0]->instance->desired, DRAIN);
  assert_int_equal(s->n_removed, 1);
  assert_string_equal(s->removed[0], "shop/api.1");
  assert_null(s->cluster);
  sent(&d, s);
  assert_false(api_desired_pending(&d));
  api_desired_fini(&d);
}

/* Its agent, started anew, is not to begin it again when its container has gone meanwhile. */
static void a_jobs_past_is_told(void **state) {
  struct world *w = *state;
  struct api_desired d;
  char key[KEY_MAX];
  Model__Instance i = MODEL__INSTANCE__INIT;
  i.project = TEXT("shop");
  i.service = TEXT("job");
  i.node = TEXT("n1");
  PB_SET(&i, number, 1);
  PB_SET(&i, revision, 1);
  PB_SET(&i, epoch, 1);
  PB_SET(&i, job, true);
  key_numbered(key, KEY_INSTANCES, "shop", "job", 1);
  put(w, key, &i.base);
  put_status(w, "shop", "job", 1, "n1", RUNNING, true);
  put_instance(w, "shop", "web", 1, 1, "n1", RUN);
  put_status(w, "shop", "web", 1, "n1", RUNNING, true);
  api_desired_init(&d, "n1");
  Node__DesiredState *s = next(w, &d);
  assert_int_equal(s->n_assigned, 2);
  assert_non_null(s->assigned[0]->status);
  assert_int_equal(s->assigned[0]->status->phase, RUNNING);
  assert_null(s->assigned[1]->status); /* of a service there is nothing to go on from */
  sent(&d, s);
  api_desired_fini(&d);
}

static void nodes_are_told_no_tokens(void **state) {
  struct world *w = *state;
  struct api_desired d;
  char cluster_name[] = "c", token_name[] = "ci";
  uint8_t hash[32] = {1};
  Model__TokenDecl token = MODEL__TOKEN_DECL__INIT, *tokens[] = {&token};
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  token.name = token_name;
  token.has_hash = 1;
  token.hash = (ProtobufCBinaryData){sizeof hash, hash};
  cluster.name = cluster_name;
  cluster.tokens = tokens;
  cluster.n_tokens = 1;
  put(w, KEY_CLUSTER, &cluster.base);
  api_desired_init(&d, "n1");
  Node__DesiredState *s = next(w, &d);
  assert_string_equal(s->cluster->name, "c");
  assert_int_equal(s->cluster->n_tokens, 0);
  assert_int_equal(api_cache_cluster(&w->api.cache, NULL)->n_tokens, 1);
  sent(&d, s);
  api_desired_fini(&d);
}

static void a_file_is_for_the_nodes_that_mount_it(void **state) {
  struct world *w = *state;
  char sha[65], other[65];
  snprintf(sha, sizeof sha, "%064d", 1);
  snprintf(other, sizeof other, "%064d", 2);
  Model__MountFile file = MODEL__MOUNT_FILE__INIT, *files[] = {&file};
  Model__Mount mount = MODEL__MOUNT__INIT, *mounts[] = {&mount};
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  file.sha256 = sha;
  mount.files = files;
  mount.n_files = 1;
  spec.project = TEXT("shop");
  spec.name = TEXT("api");
  spec.mounts = mounts;
  spec.n_mounts = 1;
  put_spec(w, 2, &spec);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  put_instance(w, "shop", "api", 1, 2, "n1", RUN);
  put_instance(w, "shop", "api", 2, 1, "n2", RUN);
  assert_true(gw_file_is_of(&w->api.cache, "n1", sha));
  assert_false(gw_file_is_of(&w->api.cache, "n1", other));
  assert_false(gw_file_is_of(&w->api.cache, "n2", sha));
  put_instance(w, "shop", "api", 2, 2, "n2", DRAIN);
  assert_true(gw_file_is_of(&w->api.cache, "n2", sha));
}

#define LARGE 100000

/* Of service p/s, with a spec of LARGE bytes. */
static void put_large(struct world *w, uint64_t from, uint64_t to, const char *node) {
  static char image[LARGE + 1];
  memset(image, 'x', LARGE);
  put_revision(w, "p", "s", 1, image, NULL);
  for (uint64_t i = from; i <= to; i++)
    put_instance(w, "p", "s", i, 1, node, RUN);
}

static void mark_large(struct api_desired *d, uint64_t number) {
  char id[INSTANCE_ID_MAX];
  instance_id(id, "p", "s", number);
  api_desired_mark(d, id);
}

static void fits(const Node__DesiredState *s) {
  assert_true(node__desired_state__get_packed_size(s) < API_DESIRED_BYTES + LARGE + 10000);
}

static void large_deltas_come_in_pieces(void **state) {
  struct world *w = *state;
  struct api_desired d;
  api_desired_init(&d, "n1");
  sent(&d, next(w, &d));
  put_large(w, 1, 100, "n1");
  for (uint64_t i = 1; i <= 100; i++)
    mark_large(&d, i);
  size_t told = 0;
  while (api_desired_pending(&d)) {
    Node__DesiredState *s = next(w, &d);
    fits(s);
    told += s->n_assigned;
    sent(&d, s);
  }
  assert_int_equal(told, 100);
  api_desired_fini(&d);
}

static void everything_comes_in_parts(void **state) {
  struct world *w = *state;
  struct api_desired d;
  size_t told = 0;
  uint32_t parts = 0;
  put_large(w, 11, 40, "n1");
  put_large(w, 41, 50, "n2");
  put_large(w, 51, 80, "n1");
  api_desired_init(&d, "n1");
  for (bool more = true; more; parts++) {
    Node__DesiredState *s = next(w, &d);
    fits(s);
    assert_true(s->full);
    assert_int_equal(s->part, parts);
    told += s->n_assigned;
    more = s->more;
    sent(&d, s);
    assert_int_equal(api_desired_pending(&d), more);
  }
  assert_int_equal(told, 60);
  assert_in_range(parts, 6, 8);
  api_desired_fini(&d);
}

/* An instance that comes to this node behind the part that is next is told before that: what no part had, its agent takes away at the end. */
static void changes_come_between_parts(void **state) {
  struct world *w = *state;
  struct api_desired d;
  put_large(w, 11, 40, "n1");
  api_desired_init(&d, "n1");
  mark_large(&d, 11); /* before the first part: it is in it */
  Node__DesiredState *s = next(w, &d);
  assert_true(s->full && s->more);
  sent(&d, s);

  put_instance(w, "p", "s", 1, 1, "n1", RUN);
  mark_large(&d, 1);
  put_instance(w, "p", "s", 11, 1, "n2", RUN);
  mark_large(&d, 11);
  s = next(w, &d);
  assert_false(s->full);
  assert_int_equal(s->n_assigned, 1);
  assert_int_equal(s->assigned[0]->instance->number, 1);
  assert_int_equal(s->n_removed, 1);
  sent(&d, s);

  s = next(w, &d);
  assert_true(s->full);
  assert_int_equal(s->part, 1);
  uint64_t first = s->assigned[0]->instance->number;
  api_desired_free(s); /* not sent: it comes again */
  s = next(w, &d);
  assert_int_equal(s->assigned[0]->instance->number, first);
  sent(&d, s);
  api_desired_fini(&d);
}

/* ---- routes ---- */

static bool look(struct world *w, struct api_route_table *t) {
  return api_routes_update(t, &w->api.cache, "shop", "web");
}

static void web(struct world *w) {
  put_service(w, "shop", "web", 1, 2);
  put_revision(w, "shop", "web", 1, "x:1", "web.test");
  put_instance(w, "shop", "web", 1, 1, "n1", RUN);
  put_instance(w, "shop", "web", 2, 1, "n1", RUN);
  put_status(w, "shop", "web", 1, "n1", RUNNING, true);
}

static void ready_instances_are_endpoints(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  web(w);
  api_routes_init(&t, 100, 0);
  assert_true(look(w, &t));
  assert_false(look(w, &t)); /* nothing has changed: no new version */
  uint64_t version = t.version;
  Node__RouteTable *m = api_routes_message(&t, &w->api.cache, 0);
  assert_true(m->full);
  assert_int_equal(m->n_routes, 1);
  assert_int_equal(m->routes[0]->n_endpoints, 1);
  assert_string_equal(m->routes[0]->endpoints[0]->instance, "shop/web.1");
  assert_int_equal(m->routes[0]->endpoints[0]->port, 8080);
  assert_string_equal(m->routes[0]->paths[0], "/*");
  api_routes_message_free(m);
  put_status(w, "shop", "web", 2, "n1", RUNNING, true);
  assert_true(look(w, &t));
  put_status(w, "shop", "web", 1, "n1", RUNNING, false);
  assert_true(look(w, &t));
  m = api_routes_message(&t, &w->api.cache, version); /* two changes, one message */
  assert_false(m->full);
  assert_int_equal(m->version, t.version);
  assert_int_equal(m->n_routes, 1);
  assert_int_equal(m->routes[0]->n_endpoints, 1);
  assert_string_equal(m->routes[0]->endpoints[0]->instance, "shop/web.2");
  api_routes_message_free(m);
  assert_null(api_routes_message(&t, &w->api.cache, t.version));
  api_cache_del(&w->api.cache, "/services/shop/web");
  assert_true(look(w, &t));
  m = api_routes_message(&t, &w->api.cache, version);
  assert_int_equal(m->n_removed, 1);
  assert_string_equal(m->removed[0], "shop/web");
  api_routes_message_free(m);
  api_routes_fini(&t);
}

static void status_of_another_epoch_or_node_does_not_count(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  web(w);
  put_status(w, "shop", "web", 2, "n9", RUNNING, true);
  api_routes_init(&t, 100, 0);
  look(w, &t);
  Node__RouteTable *m = api_routes_message(&t, &w->api.cache, 0);
  assert_int_equal(m->routes[0]->n_endpoints, 1);
  api_routes_message_free(m);
  api_routes_fini(&t);
}

/* What a new revision says of names holds from its first ready instance on; until then the old one's does. */
static void names_change_with_the_first_ready_instance(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  web(w);
  put_rollout(w, "shop", "web", MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE, 1, 1);
  api_routes_init(&t, 100, 0);
  look(w, &t);
  put_service(w, "shop", "web", 2, 2);
  put_revision(w, "shop", "web", 2, "x:2", "new.test");
  put_rollout(w, "shop", "web", MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING, 2, 1);
  put_instance(w, "shop", "web", 3, 2, "n1", RUN);
  assert_false(look(w, &t));
  put_status(w, "shop", "web", 3, "n1", RUNNING, true);
  assert_true(look(w, &t));
  Node__RouteTable *m = api_routes_message(&t, &w->api.cache, 0);
  assert_string_equal(m->routes[0]->domains[0], "new.test");
  assert_int_equal(m->routes[0]->n_endpoints, 2);
  api_routes_message_free(m);
  put_rollout(w, "shop", "web", MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK, 2, 1);
  assert_true(look(w, &t));
  m = api_routes_message(&t, &w->api.cache, 0);
  assert_string_equal(m->routes[0]->domains[0], "web.test");
  api_routes_message_free(m);
  api_routes_fini(&t);
}

static bool drained(struct world *w, struct api_route_table *t, uint64_t number, int64_t now, int64_t *again) {
  return api_routes_drained(t, &w->api.cache, api_cache_instance(&w->api.cache, "shop", "web", number), now, again);
}

static void let_go_of_when_every_proxy_has(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  int64_t again;
  web(w);
  api_routes_init(&t, 100, 0);
  look(w, &t);
  api_routes_proxy_up(&t, "n1");
  api_routes_proxy_up(&t, "n2");
  api_routes_proxy_ack(&t, "n1", t.version, NULL, 0);
  api_routes_proxy_ack(&t, "n2", t.version, NULL, 0);
  assert_false(drained(w, &t, 1, SEC, &again)); /* it is in the table */
  put_instance(w, "shop", "web", 1, 1, "n1", DRAIN);
  look(w, &t);
  assert_false(drained(w, &t, 1, SEC, &again)); /* nobody has heard of it */
  char one[] = "shop/web.1", *draining[] = {one};
  api_routes_proxy_ack(&t, "n1", t.version, draining, 1);
  api_routes_proxy_ack(&t, "n2", t.version, NULL, 0);
  assert_false(drained(w, &t, 1, SEC, &again)); /* n1 still has requests of it */
  assert_int_equal(again, INT64_MAX);
  api_routes_proxy_ack(&t, "n1", t.version, NULL, 0);
  assert_true(drained(w, &t, 1, SEC, &again));
  api_routes_fini(&t);
}

static void a_lost_proxy_is_waited_for_a_while(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  int64_t again;
  web(w);
  api_routes_init(&t, 100, 0);
  look(w, &t);
  api_routes_proxy_up(&t, "n1");
  api_routes_proxy_ack(&t, "n1", t.version, NULL, 0);
  put_instance(w, "shop", "web", 1, 1, "n1", DRAIN);
  look(w, &t);
  api_routes_proxy_down(&t, "n1", 20 * SEC);
  assert_false(drained(w, &t, 1, 21 * SEC, &again));
  assert_int_equal(again, 30 * SEC);
  assert_true(drained(w, &t, 1, 30 * SEC, &again));
  api_routes_proxy_up(&t, "n1"); /* back, from its disk perhaps: until it says so it may serve anything */
  assert_false(drained(w, &t, 1, 31 * SEC, &again));
  api_routes_proxy_ack(&t, "n1", t.first - 1, NULL, 0);
  assert_false(drained(w, &t, 1, 31 * SEC, &again));
  api_routes_proxy_ack(&t, "n1", t.version, NULL, 0);
  assert_true(drained(w, &t, 1, 31 * SEC, &again));
  api_routes_fini(&t);
}

static void after_a_restart_proxies_may_serve_an_old_table(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  int64_t again;
  web(w);
  put_instance(w, "shop", "web", 1, 1, "n1", DRAIN);
  api_routes_init(&t, 100, SEC);
  look(w, &t);
  assert_false(drained(w, &t, 1, 2 * SEC, &again)); /* this process never had it in a table, but the one before may have */
  assert_int_equal(again, SEC + API_PROXY_GRACE);
  assert_true(drained(w, &t, 1, SEC + API_PROXY_GRACE, &again));
  put_service(w, "shop", "job", 1, 1);
  put_revision(w, "shop", "job", 1, "x:1", NULL);
  put_instance(w, "shop", "job", 1, 1, "n1", DRAIN);
  api_routes_update(&t, &w->api.cache, "shop", "job");
  assert_true(
      api_routes_drained(&t, &w->api.cache, api_cache_instance(&w->api.cache, "shop", "job", 1), 2 * SEC, &again)); /* never routed: at once */
  api_routes_fini(&t);
}

static void removals_are_not_remembered_for_ever(void **state) {
  struct world *w = *state;
  struct api_route_table t;
  api_routes_init(&t, 100, 0);
  uint64_t before = t.version;
  for (unsigned i = 0; i < API_TOMBSTONES_MAX + 10; i++) {
    char name[32], key[KEY_MAX];
    snprintf(name, sizeof name, "s%u", i);
    put_service(w, "p", name, 1, 1);
    put_revision(w, "p", name, 1, "x", "a.test");
    assert_true(api_routes_update(&t, &w->api.cache, "p", name));
    key_service(key, KEY_SERVICES, "p", name);
    api_cache_del(&w->api.cache, key);
    assert_true(api_routes_update(&t, &w->api.cache, "p", name));
  }
  assert_true(t.routes.count <= API_TOMBSTONES_MAX + 1);
  Node__RouteTable *m = api_routes_message(&t, &w->api.cache, before);
  assert_true(m->full); /* who is that far behind gets everything */
  api_routes_message_free(m);
  api_routes_fini(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
      T(everything_then_changes),
      T(a_jobs_past_is_told),
      T(nodes_are_told_no_tokens),
      T(a_file_is_for_the_nodes_that_mount_it),
      T(large_deltas_come_in_pieces),
      T(everything_comes_in_parts),
      T(changes_come_between_parts),
      T(ready_instances_are_endpoints),
      T(status_of_another_epoch_or_node_does_not_count),
      T(names_change_with_the_first_ready_instance),
      T(let_go_of_when_every_proxy_has),
      T(a_lost_proxy_is_waited_for_a_while),
      T(after_a_restart_proxies_may_serve_an_old_table),
      T(removals_are_not_remembered_for_ever),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
