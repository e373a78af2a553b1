/* The client against the real store, both ends in one loop: transactions, mirrors over restarts and forgotten history, leases, roles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/storec/storec.h"
#include "orca-store/store.h"
#include "orca-store/store_rpc.h"
#include "tests/lib/folder.h"

#define WAIT (10 * NS_PER_SEC)
#define SEEN 64

struct seen {
  char key[32], value[64];
  uint64_t mod;
};

struct rig {
  char dir[FOLDER_MAX], endpoint[96];
  struct loop *loop;
  struct bus_key_pair store_keys, admin_keys, scheduler_keys;
  struct acl acl;
  struct bus *store_bus, *client_bus;
  struct store *store;
  struct store_rpc *rpc;
  struct storec *c;
  bool serving;

  /* A mirror's owner. */
  struct seen seen[SEEN];
  unsigned puts, dels, ends, synced, lost;
  uint64_t revision;
  /* A lease's. */
  uint64_t lease;
  unsigned granted, lease_lost;
};

static void on_serving(void *arg) {
  ((struct rig *)arg)->serving = true;
}
static void on_changed(void *arg, bool compacted) {
  store_rpc_changed(((struct rig *)arg)->rpc, compacted);
}
static void on_fatal(void *arg, const struct err *why) {
  (void)arg;
  fail_msg("%s", why->msg);
}
static void on_note(void *arg, const char *what, const char *text) {
  (void)arg;
  (void)what;
  (void)text;
}

#define until(r, condition)                                                                                                                          \
  do {                                                                                                                                               \
    int64_t end_ = loop_now((r)->loop) + WAIT;                                                                                                       \
    struct err err_;                                                                                                                                 \
    while (!(condition)) {                                                                                                                           \
      assert_int_equal(loop_once((r)->loop, NS_PER_MS, &err_), 0);                                                                                   \
      if (loop_now((r)->loop) > end_)                                                                                                                \
        fail_msg("never: %s", #condition);                                                                                                           \
    }                                                                                                                                                \
  } while (0)

static void open_store(struct rig *r) {
  static const struct store_ops ops = {.serving = on_serving, .changed = on_changed, .fatal = on_fatal, .note = on_note};
  struct err err;
  struct store_options o = {.loop = r->loop,
                            .dir = r->dir,
                            .cluster_id = "test",
                            .node = "n1",
                            .address = "127.0.0.1",
                            .ops = &ops,
                            .arg = r,
                            .map_size = (size_t)256 << 20,
                            .snapshot_entries = 40};
  r->serving = false;
  r->store = store_open(&o, &err);
  if (!r->store)
    fail_msg("%s", err.msg);
  until(r, r->serving);
}

static void listen_store(struct rig *r) {
  struct err err;
  struct bus_config config = {.keys = &r->store_keys};
  r->store_bus = bus_new(r->loop, &config, &err);
  assert_non_null(r->store_bus);
  /* The port of before may still be closing on ZeroMQ's own thread. */
  for (int i = 0; !(r->rpc = store_rpc_new(r->loop, r->store_bus, r->store, &r->acl, r->endpoint, &err)); i++) {
    if (i == 200)
      fail_msg("%s", err.msg);
    usleep(10000);
  }
}

static void start_store(struct rig *r) {
  open_store(r);
  listen_store(r);
}

static void stop_store(struct rig *r) {
  struct err err;
  store_rpc_free(r->rpc);
  r->rpc = NULL;
  if (store_close(r->store, &err) < 0)
    fail_msg("%s", err.msg);
  bus_free(r->store_bus);
}

static int setup(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  struct err err;
  if (!r)
    return -1;
  setenv("ZSYS_SIGHANDLER", "false", 1);
  folder_make(r->dir);
  r->loop = loop_new(NULL, &err);
  assert_non_null(r->loop);
  assert_int_equal(bus_key_new(&r->store_keys, &err), 0);
  assert_int_equal(bus_key_new(&r->admin_keys, &err), 0);
  assert_int_equal(bus_key_new(&r->scheduler_keys, &err), 0);
  snprintf(r->acl.keys[ACL_ADMIN], sizeof r->acl.keys[ACL_ADMIN], "%s", r->admin_keys.public_key);
  snprintf(r->acl.keys[ACL_SCHEDULER], sizeof r->acl.keys[ACL_SCHEDULER], "%s", r->scheduler_keys.public_key);
  snprintf(r->endpoint, sizeof r->endpoint, "ipc://%s.sock", r->dir);
  start_store(r);
  struct bus_config config = {.keys = &r->admin_keys};
  r->client_bus = bus_new(r->loop, &config, &err);
  struct bus_address address = {r->endpoint, r->store_keys.public_key};
  r->c = storec_new(r->client_bus, r->loop, &address, 1, &err);
  assert_non_null(r->c);
  *state = r;
  return 0;
}

static int teardown(void **state) {
  struct rig *r = *state;
  storec_free(r->c);
  bus_free(r->client_bus);
  stop_store(r);
  loop_free(r->loop);
  folder_remove(r->dir);
  unlink(r->endpoint + strlen("ipc://"));
  free(r);
  return 0;
}

/* ---------------------------------------------------------------- helpers */

struct outcome {
  bool done, succeeded;
  uint64_t revision;
  enum err_code code;
};

static void on_commit(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct outcome *o = arg;
  *o = (struct outcome){true, succeeded, revision, err ? err->code : ERR_NONE};
}

static struct outcome commit(struct rig *r, struct storec_txn *txn) {
  struct outcome o = {0};
  storec_commit(r->c, txn, WAIT, on_commit, &o);
  until(r, o.done);
  return o;
}

static struct outcome put(struct rig *r, const char *key, const char *value) {
  struct storec_txn *txn = storec_txn_new();
  storec_put(txn, key, value, strlen(value), 0);
  return commit(r, txn);
}

static void on_reply(void *arg, const Store__Reply *reply, const struct err *err) {
  struct outcome *o = arg;
  (void)reply;
  *o = (struct outcome){.done = true, .code = err ? err->code : ERR_NONE};
}

static struct outcome compact(struct rig *r, uint64_t revision) {
  struct outcome o = {0};
  Store__Call call = STORE__CALL__INIT;
  Store__Compact c = STORE__COMPACT__INIT;
  PB_SET(&c, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &c;
  storec_call(r->c, &call, WAIT, on_reply, &o);
  until(r, o.done);
  return o;
}

/* ---------------------------------------------------------------- a mirror's owner */

static struct seen *seen(struct rig *r, const char *key) {
  struct seen *empty = NULL;
  for (size_t i = 0; i < SEEN; i++) {
    if (strcmp(r->seen[i].key, key) == 0)
      return &r->seen[i];
    if (!r->seen[i].key[0] && !empty)
      empty = &r->seen[i];
  }
  assert_non_null(empty);
  snprintf(empty->key, sizeof empty->key, "%s", key);
  return empty;
}

static void m_put(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t mod) {
  struct rig *r = arg;
  struct seen *s = seen(r, key);
  assert_true(mod > s->mod);
  snprintf(s->value, sizeof s->value, "%.*s", (int)len, (const char *)value);
  s->mod = mod;
  r->puts++;
}
static void m_del(void *arg, const char *key, uint64_t mod) {
  struct rig *r = arg;
  struct seen *s = seen(r, key);
  assert_true(mod >= s->mod);
  assert_true(s->value[0] != 0);
  s->value[0] = 0;
  r->dels++;
}
static void m_end(void *arg, uint64_t revision) {
  struct rig *r = arg;
  assert_true(revision >= r->revision);
  r->revision = revision;
  r->ends++;
}
static void m_synced(void *arg, uint64_t revision) {
  struct rig *r = arg;
  assert_true(revision >= r->revision);
  r->synced++;
}
static void m_lost(void *arg, const struct err *why) {
  (void)why;
  ((struct rig *)arg)->lost++;
}
static const struct storec_mirror_ops mirror_ops = {m_put, m_del, m_end, m_synced, m_lost};

/* ---------------------------------------------------------------- tests */

static void test_txn(void **state) {
  struct rig *r = *state;
  struct outcome o = put(r, "/a", "1");
  assert_int_equal(o.code, ERR_NONE);
  assert_true(o.succeeded);
  struct storec_txn *txn = storec_txn_new();
  storec_if_mod_revision(txn, "/a", o.revision + 1);
  storec_put(txn, "/a", "2", 1, 0);
  struct outcome no = commit(r, txn);
  assert_int_equal(no.code, ERR_NONE);
  assert_false(no.succeeded);
  txn = storec_txn_new();
  storec_if_mod_revision(txn, "/a", o.revision);
  storec_if_mod_revision(txn, "/b", 0);
  storec_put(txn, "/b", "x", 1, 0);
  storec_put(txn, "/b", "y", 1, 0); /* the later one counts */
  storec_delete(txn, "/a");
  assert_int_equal(storec_txn_ops(txn), 2);
  struct outcome yes = commit(r, txn);
  assert_true(yes.succeeded);
  assert_int_equal(yes.revision, o.revision + 1);
}

static void test_mirror(void **state) {
  struct rig *r = *state;
  static const char *const prefixes[] = {"/m/", "/n/"};
  struct err err;
  put(r, "/m/1", "one");
  put(r, "/n/1", "eins");
  put(r, "/o/1", "not ours");
  struct storec_mirror *m = storec_mirror_new(r->c, prefixes, 2, &mirror_ops, r, &err);
  assert_non_null(m);
  until(r, r->synced == 1);
  assert_int_equal(r->puts, 2);
  assert_string_equal(seen(r, "/m/1")->value, "one");
  /* Live, both prefixes in the order of revisions; one that is not ours stirs nothing. */
  struct storec_txn *txn = storec_txn_new();
  storec_put(txn, "/m/2", "two", 3, 0);
  storec_put(txn, "/n/2", "zwei", 4, 0);
  storec_delete(txn, "/m/1");
  uint64_t revision = commit(r, txn).revision;
  until(r, r->revision == revision);
  assert_string_equal(seen(r, "/m/1")->value, "");
  assert_string_equal(seen(r, "/n/2")->value, "zwei");
  unsigned ends = r->ends;
  put(r, "/o/2", "x");
  put(r, "/m/3", "three");
  until(r, seen(r, "/m/3")->value[0]);
  assert_int_equal(r->ends, ends + 1);
  /* The store restarts: on from the next revision, without a word twice (m_put checks). */
  unsigned puts = r->puts, lost = r->lost;
  stop_store(r);
  until(r, r->lost > lost);
  start_store(r);
  until(r, r->synced == 2);
  assert_int_equal(r->puts, puts);
  put(r, "/m/4", "four");
  until(r, seen(r, "/m/4")->value[0]);
  storec_mirror_free(m);
}

static void ignore(void *arg, const struct kv_result *result, const struct err *err) {
  (void)arg;
  assert_null(err);
  assert_int_equal(result->err.code, ERR_NONE);
}

/* Straight into the shell: before any client is back. */
static void propose(struct rig *r, const Store__Call *call) {
  struct buf packed = BUF_INIT(4096);
  assert_int_equal(pb_pack(&call->base, &packed), 0);
  store_propose(r->store, packed.data, packed.len, 1, ignore, NULL);
  buf_free(&packed);
}

static void propose_put(struct rig *r, const char *key, const char *value) {
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__Op op = STORE__OP__INIT, *ops = &op;
  Store__Put p = STORE__PUT__INIT;
  Store__DeleteRange d = STORE__DELETE_RANGE__INIT;
  p.has_key = p.has_value = d.has_key = 1;
  p.key = d.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
  if (value) {
    p.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)(uintptr_t)value};
    op.op_case = STORE__OP__OP_PUT;
    op.put = &p;
  } else {
    op.op_case = STORE__OP__OP_DELETE_RANGE;
    op.delete_range = &d;
  }
  txn.n_success = 1;
  txn.success = &ops;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  propose(r, &call);
}

/* History is forgotten while a mirror is away: the difference is told, and no more. */
static void test_mirror_after_compaction(void **state) {
  struct rig *r = *state;
  static const char *const prefixes[] = {"/m/"};
  struct err err;
  put(r, "/m/stays", "1");
  put(r, "/m/changes", "1");
  put(r, "/m/goes", "1");
  struct storec_mirror *m = storec_mirror_new(r->c, prefixes, 1, &mirror_ops, r, &err);
  until(r, r->synced == 1);
  assert_int_equal(r->puts, 3);
  stop_store(r);
  until(r, r->lost == 1);
  open_store(r);
  propose_put(r, "/m/changes", "2");
  propose_put(r, "/m/goes", NULL);
  propose_put(r, "/m/comes", "1");
  uint64_t revision = kv_state(store_kv(r->store))->revision + 3;
  until(r, kv_state(store_kv(r->store))->revision == revision);
  Store__Call call = STORE__CALL__INIT;
  Store__Compact c = STORE__COMPACT__INIT;
  PB_SET(&c, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &c;
  propose(r, &call);
  until(r, kv_state(store_kv(r->store))->compact_revision == revision && !kv_trim_pending(store_kv(r->store)));
  listen_store(r);
  until(r, r->synced >= 2);
  assert_string_equal(seen(r, "/m/stays")->value, "1");
  assert_string_equal(seen(r, "/m/changes")->value, "2");
  assert_string_equal(seen(r, "/m/comes")->value, "1");
  assert_string_equal(seen(r, "/m/goes")->value, "");
  assert_int_equal(r->puts, 5);
  assert_int_equal(r->dels, 1);
  assert_int_equal(compact(r, 2).code, ERR_COMPACTED);
  storec_mirror_free(m);
}

static void l_granted(void *arg, uint64_t id) {
  struct rig *r = arg;
  r->lease = id;
  r->granted++;
}
static void l_lost(void *arg) {
  struct rig *r = arg;
  r->lease_lost++;
}

static void test_lease(void **state) {
  struct rig *r = *state;
  static const struct storec_lease_ops ops = {l_granted, l_lost};
  static const char *const prefixes[] = {"/l/"};
  struct err err;
  struct storec_mirror *m = storec_mirror_new(r->c, prefixes, 1, &mirror_ops, r, &err);
  struct storec_lease *l = storec_lease_new(r->c, 1000 * NS_PER_MS, &ops, r, &err);
  until(r, r->granted == 1 && r->synced);
  struct storec_txn *txn = storec_txn_new();
  storec_put(txn, "/l/held", "x", 1, r->lease);
  assert_true(commit(r, txn).succeeded);
  /* Kept alive well past its time, also over a restart of the store. */
  int64_t end = loop_now(r->loop) + 1200 * NS_PER_MS;
  until(r, loop_now(r->loop) > end);
  stop_store(r);
  start_store(r);
  end = loop_now(r->loop) + 1100 * NS_PER_MS;
  until(r, loop_now(r->loop) > end && r->synced >= 2);
  assert_int_equal(r->lease_lost, 0);
  assert_string_equal(seen(r, "/l/held")->value, "x");
  /* Given up: its keys go. */
  storec_lease_free(l);
  until(r, !seen(r, "/l/held")->value[0]);
  /* A lease nobody keeps alive ends by itself. */
  Store__Call call = STORE__CALL__INIT;
  Store__LeaseGrant g = STORE__LEASE_GRANT__INIT;
  struct outcome o = {0};
  PB_SET(&g, ttl_ms, 100);
  PB_SET(&g, id, 77);
  call.body_case = STORE__CALL__BODY_LEASE_GRANT;
  call.lease_grant = &g;
  storec_call(r->c, &call, WAIT, on_reply, &o);
  until(r, o.done);
  assert_int_equal(o.code, ERR_NONE);
  txn = storec_txn_new();
  storec_put(txn, "/l/brief", "x", 1, 77);
  assert_true(commit(r, txn).succeeded);
  until(r, seen(r, "/l/brief")->value[0]);
  until(r, !seen(r, "/l/brief")->value[0]);
  txn = storec_txn_new();
  storec_put(txn, "/l/brief", "x", 1, 77);
  assert_int_equal(commit(r, txn).code, ERR_NOT_FOUND);
  storec_mirror_free(m);
}

static void test_roles(void **state) {
  struct rig *r = *state;
  struct err err;
  struct bus_config config = {.keys = &r->scheduler_keys};
  struct bus *bus = bus_new(r->loop, &config, &err);
  struct bus_address address = {r->endpoint, r->store_keys.public_key};
  struct storec *admin = r->c;
  r->c = storec_new(bus, r->loop, &address, 1, &err);
  assert_non_null(r->c);
  assert_int_equal(put(r, "/instances/p/n/1", "x").code, ERR_NONE);
  assert_int_equal(put(r, "/services/p/n", "x").code, ERR_DENIED);
  assert_int_equal(compact(r, 1).code, ERR_DENIED);
  storec_free(r->c);
  bus_free(bus);
  r->c = admin;
}

/* More than the snapshot's measure of entries, restarts, and a map that is thrown away: the state is the same. */
static void test_snapshots(void **state) {
  struct rig *r = *state;
  struct err err;
  for (unsigned i = 0; i < 150; i++) {
    char key[16];
    snprintf(key, sizeof key, "/s/%u", i % 20);
    assert_true(put(r, key, "value").succeeded);
  }
  uint64_t revision = kv_state(store_kv(r->store))->revision;
  stop_store(r);
  char path[128];
  snprintf(path, sizeof path, "%s/mark", r->dir);
  assert_int_equal(unlink(path), 0);
  snprintf(path, sizeof path, "%s/kv", r->dir);
  assert_int_equal(kv_discard(path, &err), 0);
  start_store(r);
  assert_int_equal(kv_state(store_kv(r->store))->revision, revision);
  assert_int_equal(kv_state(store_kv(r->store))->keys, 20);
  assert_true(put(r, "/s/0", "again").succeeded);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_txn, setup, teardown),
      cmocka_unit_test_setup_teardown(test_mirror, setup, teardown),
      cmocka_unit_test_setup_teardown(test_mirror_after_compaction, setup, teardown),
      cmocka_unit_test_setup_teardown(test_lease, setup, teardown),
      cmocka_unit_test_setup_teardown(test_roles, setup, teardown),
      cmocka_unit_test_setup_teardown(test_snapshots, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
