/* A cache with things in it, and an API over it whose transactions are applied to it at once: what the tests of the apiserver stand on. */
#ifndef ORCA_TESTS_UNIT_APISERVER_WORLD_H
#define ORCA_TESTS_UNIT_APISERVER_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/storec/storec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"

#define T0 INT64_C(1700000000000)

struct world {
  struct loop *loop;
  struct api api;
  struct node_config config;
  uint64_t revision;
  unsigned refuse; /* so many commits to come find that somebody was faster */
  unsigned commits;
};

static inline void put(struct world *w, const char *key, const ProtobufCMessage *msg) {
  struct err err;
  assert_int_equal(api_cache_put_message(&w->api.cache, key, msg, ++w->revision, &err), 0);
  w->api.cache.revision = w->revision;
}

static inline bool compares_hold(struct world *w, const Store__TxnRequest *t) {
  for (size_t i = 0; i < t->n_compare; i++) {
    char key[KEY_MAX];
    snprintf(key, sizeof key, "%.*s", (int)t->compare[i]->key.len, (char *)t->compare[i]->key.data);
    uint64_t mod = 0;
    for (int k = 0; k < API_KIND_COUNT; k++) {
      const struct api_object *o = api_cache_object(&w->api.cache, (enum api_kind)k, key);
      mod = o ? o->mod : mod;
    }
    if (mod != t->compare[i]->mod_revision)
      return false;
  }
  return true;
}

static inline void world_commit(void *arg, struct storec_txn *txn, storec_txn_fn *done, void *done_arg) {
  struct world *w = arg;
  const Store__TxnRequest *t = storec_txn_request(txn);
  bool ok = !w->refuse && compares_hold(w, t);
  w->commits++;
  if (w->refuse)
    w->refuse--;
  if (ok)
    w->revision++;
  for (size_t i = 0; ok && i < t->n_success; i++) {
    const Store__Op *op = t->success[i];
    const ProtobufCBinaryData *k = op->op_case == STORE__OP__OP_PUT ? &op->put->key : &op->delete_range->key;
    char key[KEY_MAX];
    struct err err;
    snprintf(key, sizeof key, "%.*s", (int)k->len, (char *)k->data);
    if (op->op_case == STORE__OP__OP_PUT)
      assert_int_equal(api_cache_put(&w->api.cache, key, op->put->value.data, op->put->value.len, w->revision, &err), 0);
    else
      api_cache_del(&w->api.cache, key);
  }
  w->api.cache.revision = w->revision;
  uint64_t revision = w->revision;
  storec_txn_free(txn);
  done(done_arg, ok, revision, NULL);
}

/* clock: NULL for the machine's. */
static inline struct world *world_new_at(const struct loop_clock *clock) {
  struct world *w = calloc(1, sizeof *w);
  struct err err;
  static char name[] = "n1", address[] = "127.0.0.1", id[] = "testcluster";
  w->loop = loop_new(clock, &err);
  assert_non_null(w->loop);
  w->config = (struct node_config){.name = name, .address = address, .cluster_id = id};
  api_init(&w->api, w->loop, &w->config);
  w->api.commit = world_commit;
  w->api.commit_arg = w;
  w->api.synced = w->api.in_touch = true;
  return w;
}

static inline struct world *world_new(void) {
  return world_new_at(NULL);
}

static inline void world_free(struct world *w) {
  api_fini(&w->api);
  loop_free(w->loop);
  free(w);
}

static inline int world_setup(void **state) {
  *state = world_new();
  return 0;
}
static inline int world_teardown(void **state) {
  world_free(*state);
  return 0;
}

/* ---- things ---- */

#define TEXT(s) ((char *)(uintptr_t)(const void *)(s))

static inline void put_token(struct world *w, const char *id, const char *text, const char *role, const char *project, int64_t expires) {
  uint8_t hash[32];
  char key[KEY_MAX], *projects[1] = {TEXT(project)};
  crypto_sha256(text, strlen(text), hash);
  Model__Token t = MODEL__TOKEN__INIT;
  t.id = TEXT(id);
  t.name = TEXT(id);
  t.role = TEXT(role);
  t.has_hash = 1;
  t.hash = (ProtobufCBinaryData){.len = 32, .data = hash};
  t.projects = projects;
  t.n_projects = project ? 1 : 0;
  PB_SET(&t, expires_ms, expires);
  key_named(key, KEY_TOKENS, id);
  put(w, key, &t.base);
}

static inline void put_service(struct world *w, const char *project, const char *name, uint64_t revision, uint32_t replicas) {
  char key[KEY_MAX];
  Model__Service s = MODEL__SERVICE__INIT;
  s.project = TEXT(project);
  s.name = TEXT(name);
  PB_SET(&s, revision, revision);
  PB_SET(&s, last_revision, revision);
  PB_SET(&s, generation, 1);
  PB_SET(&s, replicas, replicas);
  PB_SET(&s, spec_replicas, replicas);
  key_service(key, KEY_SERVICES, project, name);
  put(w, key, &s.base);
}

/* The revision of that number, of the spec's service or job. */
static inline void put_spec(struct world *w, uint64_t number, Model__ServiceSpec *spec) {
  char key[KEY_MAX];
  Model__Revision r = MODEL__REVISION__INIT;
  r.project = spec->project;
  r.name = spec->name;
  r.spec = spec;
  PB_SET(&r, number, number);
  key_numbered(key, KEY_REVISIONS, spec->project, spec->name, number);
  put(w, key, &r.base);
}

/* With one run that has ended. Its revision has the rules it needs, and no schedule. */
static inline void put_job(struct world *w, const char *project, const char *name, uint64_t revision, const char *image) {
  char key[KEY_MAX];
  Model__Job job = MODEL__JOB__INIT;
  job.project = TEXT(project);
  job.name = TEXT(name);
  PB_SET(&job, revision, revision);
  PB_SET(&job, last_revision, revision);
  PB_SET(&job, requested, 1);
  PB_SET(&job, created_ms, 1);
  key_service(key, KEY_JOBS, project, name);
  put(w, key, &job.base);
  Model__JobRules rules = MODEL__JOB_RULES__INIT;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  spec.project = TEXT(project);
  spec.name = TEXT(name);
  spec.image = TEXT(image);
  spec.job = &rules;
  put_spec(w, revision, &spec);
  Model__JobState state = MODEL__JOB_STATE__INIT;
  PB_SET(&state, handled, 1);
  PB_SET(&state, created_ms, 1);
  key_service(key, KEY_JOB_STATE, project, name);
  put(w, key, &state.base);
  Model__JobRun run = MODEL__JOB_RUN__INIT;
  run.project = TEXT(project);
  run.name = TEXT(name);
  PB_SET(&run, number, 1);
  PB_SET(&run, revision, revision);
  PB_SET(&run, request, 1);
  PB_SET(&run, state, MODEL__RUN_STATE__RUN_SUCCEEDED);
  PB_SET(&run, exit_code, 0);
  key_numbered(key, KEY_JOB_RUNS, project, name, 1);
  put(w, key, &run.base);
}

static inline void put_revision(struct world *w, const char *project, const char *name, uint64_t number, const char *image, const char *domain) {
  char *domains[1] = {TEXT(domain)};
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  spec.project = TEXT(project);
  spec.name = TEXT(name);
  spec.image = TEXT(image);
  spec.domains = domains;
  spec.n_domains = domain ? 1 : 0;
  PB_SET(&spec, port, 8080);
  put_spec(w, number, &spec);
}

static inline void put_instance(struct world *w, const char *project, const char *name, uint64_t number, uint64_t revision, const char *node,
                                Model__Desired desired) {
  char key[KEY_MAX];
  Model__Instance i = MODEL__INSTANCE__INIT;
  i.project = TEXT(project);
  i.service = TEXT(name);
  i.node = TEXT(node);
  PB_SET(&i, number, number);
  PB_SET(&i, revision, revision);
  PB_SET(&i, generation, 1);
  PB_SET(&i, epoch, 1);
  PB_SET(&i, desired, desired);
  key_numbered(key, KEY_INSTANCES, project, name, number);
  put(w, key, &i.base);
}

static inline void put_status(struct world *w, const char *project, const char *name, uint64_t number, const char *node, Model__Phase phase,
                              bool ready) {
  char key[KEY_MAX];
  Model__InstanceStatus s = MODEL__INSTANCE_STATUS__INIT;
  s.project = TEXT(project);
  s.service = TEXT(name);
  s.node = TEXT(node);
  s.address = TEXT("10.1.0.2");
  PB_SET(&s, number, number);
  PB_SET(&s, epoch, 1);
  PB_SET(&s, phase, phase);
  PB_SET(&s, ready, ready);
  key_numbered(key, KEY_INSTANCE_STATUS, project, name, number);
  put(w, key, &s.base);
}

static inline void put_rollout(struct world *w, const char *project, const char *name, Model__RolloutState state, uint64_t revision,
                               uint64_t stable) {
  char key[KEY_MAX];
  Model__Rollout r = MODEL__ROLLOUT__INIT;
  r.project = TEXT(project);
  r.service = TEXT(name);
  r.reason = TEXT("it was not ready in time");
  PB_SET(&r, state, state);
  PB_SET(&r, revision, revision);
  PB_SET(&r, generation, 1);
  PB_SET(&r, stable_revision, stable);
  key_service(key, KEY_ROLLOUTS, project, name);
  put(w, key, &r.base);
}

/* One request, as http.c would hand it over; the caller unrefs it. */
static inline struct api_request *ask(struct world *w, const char *method, const char *path, const char *token, const char *body,
                                      const char *query_key, const char *query_value) {
  struct api_request *r = api_request_new(&w->api, method, path);
  char authorization[API_TOKEN_MAX + 32];
  assert_non_null(r);
  snprintf(authorization, sizeof authorization, "Bearer %s", token ? token : "");
  if (query_key)
    assert_int_equal(api_request_add_query(r, query_key, query_value), 0);
  if (body)
    buf_add_str(&r->body, body);
  if (api_admit(&w->api, r, token ? authorization : NULL))
    api_dispatch(&w->api, r);
  return r;
}

/* The caller decrefs it. */
static inline json_t *answer_of(struct api_request *r) {
  json_error_t fault;
  json_t *json = json_loadb((const char *)r->out.data, r->out.len, JSON_REJECT_DUPLICATES, &fault);
  if (!json)
    fail_msg("not JSON: %s: %s", fault.text, buf_str(&r->out));
  return json;
}

/* A request that is answered at once with that status; the caller decrefs what it says. */
static inline json_t *answer_to(struct world *w, const char *method, const char *path, const char *token, const char *body, const char *query_key,
                                const char *query_value, int status) {
  struct api_request *r = ask(w, method, path, token, body, query_key, query_value);
  if (!r->answered || r->status != status)
    fail_msg("%s %s: %d, not %d: %s", method, path, r->status, status, buf_str(&r->out));
  json_t *json = answer_of(r);
  api_request_unref(r);
  return json;
}

#endif
