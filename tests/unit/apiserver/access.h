/* Who asks, from where, and what is written of it: what the tests of access share, over a world. */
#ifndef ORCA_TESTS_UNIT_APISERVER_ACCESS_H
#define ORCA_TESTS_UNIT_APISERVER_ACCESS_H

#include "tests/unit/apiserver/world.h"

/* A request for the status, from an address; the caller unrefs it. */
static inline struct api_request *knock(struct world *w, const char *token, uint8_t address) {
  struct api_request *r = api_request_new(&w->api, "GET", "/api/v1/status");
  char header[API_TOKEN_MAX + 32];
  snprintf(header, sizeof header, "Bearer %s", token);
  r->from.key[15] = address;
  snprintf(r->from.text, sizeof r->from.text, "10.0.0.%u", address);
  if (api_admit(&w->api, r, header))
    api_dispatch(&w->api, r);
  return r;
}

static inline int status_of(struct world *w, const char *token, uint8_t address) {
  struct api_request *r = knock(w, token, address);
  int status = r->status;
  assert_true(status != 429 || r->retry_after > 0);
  api_request_unref(r);
  return status;
}

static inline void run_for(struct world *w, int64_t ms) {
  struct err err;
  int64_t end = loop_now(w->loop) + ms * NS_PER_MS;
  while (loop_now(w->loop) < end)
    assert_int_equal(loop_once(w->loop, 10 * NS_PER_MS, &err), 0);
}

/* For a commit that must succeed. */
static inline void committed(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  (void)arg;
  (void)revision;
  assert_true(succeeded);
  assert_null(err);
}

/* ---- the audit log ---- */

static inline size_t audit_count(struct world *w) {
  return w->api.cache.tables[API_AUDIT].count;
}

/* The caller frees it. */
static inline Model__AuditEntry *audit_at(struct world *w, size_t i) {
  const struct api_object *o = w->api.cache.tables[API_AUDIT].list[i].value;
  Model__AuditEntry *e = (Model__AuditEntry *)(void *)pb_unpack(&model__audit_entry__descriptor, o->bytes, o->len, NULL);
  assert_non_null(e);
  return e;
}

/* ---- a clock that is set ---- */

struct two_clocks {
  int64_t mono, wall;
};

static inline int64_t mono_of(void *arg) {
  return ((struct two_clocks *)arg)->mono;
}

static inline int64_t wall_of(void *arg) {
  return ((struct two_clocks *)arg)->wall;
}

static inline void pass(void *arg, int64_t until) {
  struct two_clocks *c = arg;
  int64_t step = until - c->mono < 10 * NS_PER_MS ? until - c->mono : 10 * NS_PER_MS;
  c->mono += step;
  c->wall += step;
}

static struct two_clocks clocks;

/* As world_setup(), over that clock. */
static inline int clock_setup(void **state) {
  clocks = (struct two_clocks){.mono = 1000 * NS_PER_SEC, .wall = T0 * NS_PER_MS};
  *state = world_new_at(&(struct loop_clock){.mono = mono_of, .wall = wall_of, .sleep = pass, .arg = &clocks});
  return 0;
}

static inline void set_back(struct world *w, int64_t by) {
  struct err err;
  clocks.wall -= by;
  clocks.mono += NS_PER_MS;
  assert_int_equal(loop_once(w->loop, 0, &err), 0);
}

#endif
