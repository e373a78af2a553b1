/* Agents that are gone: their node is waited for, and unreachable when it was not in vain. */
#include "orca-apiserver/gateway_lost.h"
#include "tests/unit/apiserver/world.h"

static int64_t now_ns;

static int64_t clock_now(void *arg) {
  (void)arg;
  return now_ns;
}

struct lost_world {
  struct world *w;
  struct loop *loop; /* with a clock of the test's */
  struct gw_peers peers;
  struct gw_lost lost;
  struct api_round round;
};

static int setup(void **state) {
  static const struct loop_clock clock = {.mono = clock_now, .wall = clock_now};
  struct lost_world *l = calloc(1, sizeof *l);
  struct err err;
  now_ns = 100 * NS_PER_SEC;
  l->w = world_new();
  l->loop = l->w->api.loop = loop_new(&clock, &err);
  assert_non_null(l->loop);
  gw_peers_init(&l->peers, &l->w->api, NULL);
  gw_lost_init(&l->lost, &l->w->api, &l->peers);
  api_round_init(&l->round, &l->w->api.cache);
  *state = l;
  return 0;
}

static int teardown(void **state) {
  struct lost_world *l = *state;
  api_round_fini(&l->round);
  gw_lost_fini(&l->lost);
  gw_peers_fini(&l->peers);
  l->w->api.loop = l->w->loop;
  loop_free(l->loop);
  world_free(l->w);
  free(l);
  return 0;
}

static void pass(struct lost_world *l, int64_t ns) {
  struct err err;
  now_ns += ns;
  assert_int_equal(loop_once(l->loop, 0, &err), 0);
}

static void put_node(struct lost_world *l, const char *name, Model__NodeState state) {
  char key[KEY_MAX];
  Model__Node node = MODEL__NODE__INIT;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  node.name = status.name = TEXT(name);
  PB_SET(&status, state, state);
  key_named(key, KEY_NODES, name);
  put(l->w, key, &node.base);
  key_named(key, KEY_NODE_STATUS, name);
  put(l->w, key, &status.base);
}

static void put_ttl(struct lost_world *l, uint64_t ms) {
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  PB_SET(&cluster, node_ttl_ms, ms);
  put(l->w, KEY_CLUSTER, &cluster.base);
}

static bool says_lost(struct lost_world *l, const char *name) {
  char key[KEY_MAX];
  key_named(key, KEY_NODE_STATUS, name);
  const Model__NodeStatus *status = api_smap_get(&l->round.writes, key);
  return status && status->state == MODEL__NODE_STATE__NODE_UNREACHABLE;
}

static void unreachable_after_its_time(void **state) {
  struct lost_world *l = *state;
  put_node(l, "n1", MODEL__NODE_STATE__NODE_READY);
  int64_t at = gw_lost_agent(&l->lost, "n1", 0);
  assert_int_equal(at, now_ns + NS_PER_SEC);
  pass(l, NS_PER_SEC - 1);
  assert_int_equal(gw_lost_look(&l->lost, &l->round), at);
  assert_true(api_round_is_empty(&l->round));
  pass(l, 1);
  assert_int_equal(gw_lost_look(&l->lost, &l->round), INT64_MAX);
  assert_true(says_lost(l, "n1"));
}

static void the_time_is_the_clusters(void **state) {
  struct lost_world *l = *state;
  put_node(l, "n1", MODEL__NODE_STATE__NODE_READY);
  put_ttl(l, 5000);
  assert_int_equal(gw_lost_agent(&l->lost, "n1", 0), now_ns + 5 * NS_PER_SEC);
  put_ttl(l, 20000); /* counts for those who are waited for already */
  assert_int_equal(gw_lost_look(&l->lost, &l->round), now_ns + 20 * NS_PER_SEC);
  put_ttl(l, UINT64_MAX);
  assert_true(gw_lost_look(&l->lost, &l->round) > now_ns + 1000 * NS_PER_SEC);
  put_ttl(l, 10);
  assert_int_equal(gw_lost_agent(&l->lost, "n1", 3 * NS_PER_SEC), now_ns + 3 * NS_PER_SEC);
}

static void who_is_back_is_not_lost(void **state) {
  struct lost_world *l = *state;
  struct gw_peer agent = {.all = &l->peers, .role = GW_AGENT, .node = "n1"}, proxy = {.all = &l->peers, .role = GW_PROXY, .node = "n2"};
  agent.next = &proxy;
  put_node(l, "n1", MODEL__NODE_STATE__NODE_READY);
  put_node(l, "n2", MODEL__NODE_STATE__NODE_READY);
  gw_lost_agent(&l->lost, "n1", 0);
  gw_lost_agent(&l->lost, "n2", 0);
  gw_lost_agent(&l->lost, "gone", 0); /* no node of the cluster any more */
  l->peers.list = &agent;
  pass(l, NS_PER_SEC);
  assert_int_equal(gw_lost_look(&l->lost, &l->round), INT64_MAX);
  assert_int_equal(l->round.writes.count, 1);
  assert_true(says_lost(l, "n2")); /* its proxy is not its agent */
  l->peers.list = NULL;
}

static void those_that_are_absent(void **state) {
  struct lost_world *l = *state;
  struct gw_peer agent = {.all = &l->peers, .role = GW_AGENT, .node = "here"};
  put_node(l, "here", MODEL__NODE_STATE__NODE_READY);
  put_node(l, "away", MODEL__NODE_STATE__NODE_READY);
  put_node(l, "lost", MODEL__NODE_STATE__NODE_UNREACHABLE);
  l->peers.list = &agent;
  assert_int_equal(gw_lost_absent(&l->lost, 10 * NS_PER_SEC), now_ns + 10 * NS_PER_SEC);
  pass(l, 10 * NS_PER_SEC);
  gw_lost_look(&l->lost, &l->round);
  assert_int_equal(l->round.writes.count, 1);
  assert_true(says_lost(l, "away"));
  put_node(l, "away", MODEL__NODE_STATE__NODE_UNREACHABLE);
  assert_int_equal(gw_lost_absent(&l->lost, 0), INT64_MAX);
  l->peers.list = NULL;
}

int main(void) {
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
      T(unreachable_after_its_time),
      T(the_time_is_the_clusters),
      T(who_is_back_is_not_lost),
      T(those_that_are_absent),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
