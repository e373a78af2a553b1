/* Secrets: set, import, list, forget, seal anew. Values come in and never go out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "common/spec/spec_units.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/secrets.h"

#define IMPORT_MAX 1000

/* ---- which scope ---- */

/* ?project=: "" is the global scope, which only those see who see every project. false: answered. */
static bool scope(struct api_request *r, char project[64]) {
  const char *asked = api_request_query(r, "project");
  project[0] = 0;
  if (!asked || !*asked) {
    if (!api_auth_is_limited(&r->api->cache, &r->who))
      return true;
    api_fail_with(r, ERR_NOT_FOUND, "this token sees only some projects: name one (-p PROJECT, in the API ?project=)");
    return false;
  }
  if (!spec_name_valid(asked))
    api_fail_with(r, ERR_INVALID, "project: not a name of a project");
  else if (!api_auth_sees(&r->api->cache, &r->who, asked))
    api_fail_with(r, ERR_NOT_FOUND, "project not found: %.64s", asked);
  else
    return snprintf(project, 64, "%s", asked) < 64;
  return false;
}

static bool name_is_good(struct api_request *r, const char *name) {
  if (spec_secret_name_valid(name, strlen(name)))
    return true;
  api_fail_with(r, ERR_INVALID, "a secret's name is a letter or _, then letters, digits, _ . - (%d at most)", SPEC_SECRET_NAME_MAX);
  return false;
}

/* ---- what is told ---- */

static void use(const struct api_cache *cache, const Model__Secret *secret, const char *project, const char *name, uint64_t number,
                struct api_json *json) {
  const Model__Revision *revision = api_cache_revision(cache, project, name, number);
  if (!revision || !revision->spec || !secrets_uses(revision->spec, secret->name) || secrets_find(cache, project, secret->name) != secret)
    return;
  char id[INSTANCE_ID_MAX];
  snprintf(id, sizeof id, "%s/%s", project, name);
  api_json_str(json, NULL, id);
}

static void used_by(const struct api_cache *cache, const Model__Secret *secret, struct api_json *json) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  api_json_array(json, "used_by");
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    use(cache, secret, PB_STR(s->project), PB_STR(s->name), s->revision, json);
  }
  all = api_cache_all(cache, API_JOBS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Job *job = API_MSG(&all[i], Model__Job);
    use(cache, secret, PB_STR(job->project), PB_STR(job->name), job->revision, json);
  }
  api_json_array_end(json);
}

static void fields(const struct api_cache *cache, const Model__Secret *secret, struct api_json *json) {
  api_json_str(json, "name", secret->name);
  api_json_str(json, "project", *PB_STR(secret->project) ? secret->project : NULL);
  api_json_u64(json, "version", secret->version);
  api_json_time(json, "updated", secret->updated_ms);
  api_json_str(json, "updated_by", PB_STR(secret->updated_by));
  used_by(cache, secret, json);
}

void api_get_secrets(struct api_request *r) {
  const struct api_cache *cache = &r->api->cache;
  const char *project = api_request_query(r, "project");
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SECRETS, &count);
  bool limited = api_auth_is_limited(cache, &r->who);
  struct api_json json = api_reply_json(r, 200);
  api_json_array(&json, "secrets");
  for (size_t i = 0; i < count; i++) {
    const Model__Secret *secret = API_MSG(&all[i], Model__Secret);
    const char *of = PB_STR(secret->project);
    if (!*PB_STR(secret->name) || (project && strcmp(project, of) != 0) || (*of ? !api_auth_sees(cache, &r->who, of) : limited))
      continue;
    api_json_object(&json, NULL);
    fields(cache, secret, &json);
    api_json_object_end(&json);
  }
  api_json_array_end(&json);
  api_reply_end(r);
}

void api_get_secret(struct api_request *r) {
  char project[64];
  if (!scope(r, project) || !name_is_good(r, r->param))
    return;
  const Model__Secret *secret = secrets_get(&r->api->cache, project, r->param, NULL);
  if (!secret) {
    api_fail_with(r, ERR_NOT_FOUND, "secret not found: %s", r->param);
    return;
  }
  struct api_json json = api_reply_json(r, 200);
  fields(&r->api->cache, secret, &json);
  api_reply_end(r);
}

/* ---- changes ---- */

struct value {
  char name[SPEC_SECRET_NAME_MAX + 1];
  uint8_t *data;
  size_t len;
  bool changed;
};
struct change {
  struct keyring *ring;
  bool remove;
  char project[64];
  struct value *values;
  size_t count;
};

static void change_free(void *arg) {
  struct change *c = arg;
  for (size_t i = 0; i < c->count; i++) {
    if (c->values[i].data)
      crypto_wipe(c->values[i].data, c->values[i].len);
    free(c->values[i].data);
  }
  c->ring->sealing--;
  free(c->values);
  free(c);
}

static struct change *change_new(struct api_request *r, const char *project, size_t size) {
  struct change *c = calloc(1, sizeof *c);
  struct value *values = calloc(size ? size : 1, sizeof *values);
  if (!c || !values) {
    free(c);
    free(values);
    api_fail_with(r, ERR_MEMORY, "no memory for a change");
    return NULL;
  }
  *c = (struct change){.ring = &r->api->keyring, .values = values};
  snprintf(c->project, sizeof c->project, "%s", project);
  c->ring->sealing++;
  return c;
}

static bool same_value(const struct keyring *ring, const Model__Secret *old, const struct value *v) {
  struct buf plain = BUF_INIT(SECRETS_VALUE_MAX);
  struct err err;
  bool same = secrets_open(ring, old, &plain, &err) == 0 && plain.len == v->len && crypto_equal(plain.data, v->data, v->len);
  if (plain.data)
    crypto_wipe(plain.data, plain.size);
  buf_free(&plain);
  return same;
}

static int check_room(const struct api_cache *cache, const struct change *c, struct err *err) {
  size_t count, bytes = 0, all_count = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_SECRETS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Secret *secret = API_MSG(&all[i], Model__Secret);
    bool replaced = false;
    for (size_t k = 0; k < c->count && !replaced; k++)
      replaced = strcmp(c->values[k].name, PB_STR(secret->name)) == 0 && strcmp(c->project, PB_STR(secret->project)) == 0;
    if (replaced || !*PB_STR(secret->name))
      continue;
    all_count++;
    bytes += secrets_cost(PB_STR(secret->project), secret->name, secret->sealed.len);
  }
  for (size_t k = 0; k < c->count; k++) {
    all_count++;
    bytes += secrets_cost(c->project, c->values[k].name, c->values[k].len);
  }
  if (all_count > SECRETS_COUNT_MAX)
    return err_set(err, ERR_TOO_LARGE, "there can be %u secrets, no more", SECRETS_COUNT_MAX);
  if (bytes > SECRETS_BYTES_MAX)
    return err_set(err, ERR_TOO_LARGE, "all secrets together can have %zu KiB, no more", SECRETS_BYTES_MAX >> 10);
  return 0;
}

static char *text(const char *s) {
  return (char *)(uintptr_t)s;
}

/* What is sealed belongs to the key that was current then. While there is a next one, a rotation of which nothing was heard any more may still land:
 * written anew, the record lets it find that it is late; it would leave what it has not seen under a key that is gone then. */
static void hold_current(struct storec_txn *txn, const struct keyring *ring, const struct keyring_key *key, uint64_t mod) {
  storec_if_mod_revision(txn, KEY_SECRETS_CURRENT, mod);
  if (mod && !ring->next.there)
    return;
  Model__Secret current = MODEL__SECRET__INIT;
  current.key_id = text(key->id);
  storec_put_message(txn, KEY_SECRETS_CURRENT, &current.base, 0);
}

static int put_one(struct api_write *w, const struct change *c, struct value *v, const struct keyring_key *key, struct storec_txn *txn,
                   struct err *err) {
  uint64_t mod;
  const Model__Secret *old = secrets_get(&w->api->cache, c->project, v->name, &mod);
  v->changed = false;
  if (old && same_value(c->ring, old, v))
    return 0;
  Model__Secret *secret = secrets_new(c->project, v->name, w->request->who.name);
  if (!secret)
    return err_set(err, ERR_MEMORY, "no memory for a secret");
  PB_SET(secret, version, old ? old->version + 1 : secrets_highest_seen(&w->api->cache, v->name) + 1);
  PB_SET(secret, updated_ms, api_now_ms(w->api));
  uint64_t version = secret->version;
  int rc = secrets_seal(key, secret, v->data, v->len, err);
  if (rc == 0) {
    char at[KEY_MAX];
    key_secret(at, c->project, v->name);
    storec_if_mod_revision(txn, at, mod);
    storec_put_message(txn, at, &secret->base, 0);
  }
  model__secret__free_unpacked(secret, NULL);
  if (rc < 0)
    return -1;
  v->changed = true;
  api_service_event(w->api, txn, w->request, "secret.set", c->project, "", "secret %s is at version %" PRIu64, v->name, version);
  return 0;
}

static int build_set(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct change *c = w->ctx;
  uint64_t mod;
  const char *current = secrets_current_key(&w->api->cache, &mod);
  const struct keyring_key *key = keyring_current(c->ring, current, err);
  if (!key)
    return -1;
  if (c->ring->rotating)
    return err_set(err, ERR_BUSY, "the key is being changed: try again in a moment");
  if (check_room(&w->api->cache, c, err) < 0)
    return -1;
  bool changed = false;
  for (size_t i = 0; i < c->count; i++) {
    if (put_one(w, c, &c->values[i], key, txn, err) < 0)
      return -1;
    changed = changed || c->values[i].changed;
  }
  hold_current(txn, c->ring, key, mod);
  return changed ? 0 : 1;
}

static int build_remove(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct change *c = w->ctx;
  uint64_t mod;
  char key[KEY_MAX];
  struct value *v = &c->values[0];
  if (!secrets_get(&w->api->cache, c->project, v->name, &mod))
    return err_set(err, ERR_NOT_FOUND, "secret not found: %s", v->name);
  key_secret(key, c->project, v->name);
  storec_if_mod_revision(txn, key, mod);
  storec_delete(txn, key);
  v->changed = true;
  api_service_event(w->api, txn, w->request, "secret.removed", c->project, "", "secret %s is forgotten", v->name);
  return 0;
}

static void names(const struct change *c, bool changed, struct api_json *json) {
  for (size_t i = 0; i < c->count; i++)
    if (c->values[i].changed == changed)
      api_json_str(json, NULL, c->values[i].name);
  api_json_array_end(json);
}

static void answer_change(struct api_write *w) {
  const struct change *c = w->ctx;
  struct api_json json = api_reply_json(w->request, 200);
  api_json_array(&json, "changed");
  names(c, true, &json);
  api_json_array(&json, "unchanged");
  names(c, false, &json);
  api_json_str(&json, "project", *c->project ? c->project : NULL);
  api_reply_end(w->request);
}

static void start(struct api_request *r, struct change *c) {
  api_write_start(&(struct api_write){
      .api = r->api, .request = r, .build = c->remove ? build_remove : build_set, .answer = answer_change, .free_ctx = change_free, .ctx = c});
}

static void target(struct api_request *r, const char *project, const char *name) {
  api_audit_target(r, project, "secret %s%s%s", project, *project ? "/" : "", name);
}

static int take(struct value *v, const char *name, const void *data, size_t len, struct err *err) {
  api_text_copy(v->name, sizeof v->name, name); /* checked: it fits */
  if (len > SECRETS_VALUE_MAX)
    return err_set(err, ERR_TOO_LARGE, "%s: a value has at most %zu KiB", v->name, SECRETS_VALUE_MAX >> 10);
  v->data = malloc(len ? len : 1);
  if (!v->data)
    return err_set(err, ERR_MEMORY, "no memory for a value");
  memcpy(v->data, data, len);
  v->len = len;
  return 0;
}

static int take_base64(struct value *v, const char *name, const char *base64, size_t len, struct err *err) {
  static const size_t most = CRYPTO_BASE64_LEN(SECRETS_VALUE_MAX);
  api_text_copy(v->name, sizeof v->name, name); /* checked: it fits */
  if (len > most)
    return err_set(err, ERR_TOO_LARGE, "%s: a value has at most %zu KiB", v->name, SECRETS_VALUE_MAX >> 10);
  v->data = malloc(len + 1);
  if (!v->data)
    return err_set(err, ERR_MEMORY, "no memory for a value");
  if (crypto_from_base64(base64, len, v->data, len, &v->len) < 0) {
    v->len = 0;
    return err_set(err, ERR_INVALID, "value_base64: not base64");
  }
  return v->len <= SECRETS_VALUE_MAX ? 0 : err_set(err, ERR_TOO_LARGE, "%s: a value has at most %zu KiB", v->name, SECRETS_VALUE_MAX >> 10);
}

void api_put_secret(struct api_request *r) {
  char project[64];
  if (!scope(r, project) || !name_is_good(r, r->param))
    return;
  target(r, project, r->param);
  const json_t *plain = json_object_get(r->json, "value"), *base64 = json_object_get(r->json, "value_base64");
  if (json_object_size(r->json) != 1 || !(json_is_string(plain) || json_is_string(base64))) {
    api_fail_with(r, ERR_INVALID, "want one of `value`, a string, and `value_base64`");
    return;
  }
  struct change *c = change_new(r, project, 1);
  if (!c)
    return;
  struct err err;
  c->count = 1;
  int rc = plain ? take(&c->values[0], r->param, json_string_value(plain), json_string_length(plain), &err)
                 : take_base64(&c->values[0], r->param, json_string_value(base64), json_string_length(base64), &err);
  if (rc == 0) {
    start(r, c);
    return;
  }
  api_fail(r, &err);
  change_free(c);
}

void api_post_secrets(struct api_request *r) {
  char project[64];
  const char *name;
  json_t *value, *all = json_object_get(r->json, "secrets");
  if (!scope(r, project))
    return;
  size_t count = json_object_size(all);
  api_audit_target(r, project, "%zu secrets of %s", count, *project ? project : "all");
  if (!json_is_object(all) || json_object_size(r->json) != 1) {
    api_fail_with(r, ERR_INVALID, "want `secrets`, an object of names and values, and nothing else");
    return;
  }
  if (!count || count > IMPORT_MAX) {
    api_fail_with(r, ERR_INVALID, "secrets: from 1 to %d at once", IMPORT_MAX);
    return;
  }
  struct change *c = change_new(r, project, count);
  if (!c)
    return;
  struct err err;
  int rc = 0;
  json_object_foreach(all, name, value) {
    if (!spec_secret_name_valid(name, strlen(name)))
      rc = err_set(&err, ERR_INVALID, "secrets: a name is a letter or _, then letters, digits, _ . - (%d at most)", SPEC_SECRET_NAME_MAX);
    else if (!json_is_string(value))
      rc = err_set(&err, ERR_INVALID, "secrets.%s: must be a string", name);
    else
      rc = take(&c->values[c->count++], name, json_string_value(value), json_string_length(value), &err);
    if (rc < 0)
      break;
  }
  if (rc == 0) {
    start(r, c);
    return;
  }
  api_fail(r, &err);
  change_free(c);
}

void api_delete_secret(struct api_request *r) {
  char project[64];
  if (!scope(r, project) || !name_is_good(r, r->param))
    return;
  target(r, project, r->param);
  struct change *c = change_new(r, project, 1);
  if (!c)
    return;
  c->remove = true;
  c->count = 1;
  snprintf(c->values[0].name, sizeof c->values[0].name, "%.*s", (int)sizeof c->values[0].name - 1, r->param);
  start(r, c);
}

/* ---- sealing anew (keyring.h has why it is like this) ---- */

struct rotation {
  struct keyring *ring;
  bool fenced, ours;
  uint64_t resealed;
  char id[KEYRING_ID_LEN + 1];
};

static void put_current(struct storec_txn *txn, const char *id, uint64_t mod) {
  Model__Secret current = MODEL__SECRET__INIT;
  current.key_id = text(id);
  storec_if_mod_revision(txn, KEY_SECRETS_CURRENT, mod);
  storec_put_message(txn, KEY_SECRETS_CURRENT, &current.base, 0);
}

static int reseal(const struct keyring *ring, const Model__Secret *old, const char *key, uint64_t mod, struct storec_txn *txn, struct err *err) {
  struct buf plain = BUF_INIT(SECRETS_VALUE_MAX);
  Model__Secret *secret = NULL;
  int rc = secrets_open(ring, old, &plain, err);
  if (rc == 0 && !(secret = (Model__Secret *)(void *)pb_clone(&old->base)))
    rc = err_set(err, ERR_MEMORY, "no memory for a secret");
  if (rc == 0)
    rc = secrets_seal(&ring->next, secret, plain.data, plain.len, err);
  if (rc == 0) {
    storec_if_mod_revision(txn, key, mod);
    storec_put_message(txn, key, &secret->base, 0);
  }
  if (plain.data)
    crypto_wipe(plain.data, plain.size);
  buf_free(&plain);
  if (secret)
    model__secret__free_unpacked(secret, NULL);
  return rc;
}

static int build_rotation(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct rotation *t = w->ctx;
  uint64_t mod;
  const char *current = secrets_current_key(&w->api->cache, &mod);
  const struct keyring_key *key = keyring_current(t->ring, current, err);
  if (!key)
    return -1;
  if (!t->ours && t->ring->rotating)
    return err_set(err, ERR_CONFLICT, "the key is being changed already");
  if (!t->ours && t->ring->sealing)
    return err_set(err, ERR_BUSY, "secrets are being changed: try again in a moment");
  t->ours = t->ring->rotating = true;
  if (!t->fenced) {
    put_current(txn, key->id, mod);
    t->fenced = true; /* or it conflicts, and what is built then is conditioned on what another wrote */
    return 2;
  }
  if (keyring_make_next(t->ring, err) < 0)
    return -1;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&w->api->cache, API_SECRETS, &count);
  t->resealed = 0;
  for (size_t i = 0; i < count; i++) {
    const Model__Secret *secret = API_MSG(&all[i], Model__Secret);
    if (!*PB_STR(secret->name))
      continue;
    if (reseal(t->ring, secret, all[i].key, ((const struct api_object *)all[i].value)->mod, txn, err) < 0)
      return -1;
    t->resealed++;
  }
  memcpy(t->id, t->ring->next.id, sizeof t->id);
  put_current(txn, t->id, mod);
  api_service_event(w->api, txn, w->request, "secret.key_rotated", "", "", "%" PRIu64 " secrets are sealed under key %s", t->resealed, t->id);
  return 0;
}

static void answer_rotation(struct api_write *w) {
  const struct rotation *t = w->ctx;
  struct err err;
  if (keyring_settle(t->ring, secrets_current_key(&w->api->cache, NULL), &err) < 0) { /* seen before: then there is nothing left to do */
    err_context(&err, "all secrets are sealed under the new key, whose file keeps the name master.key.next");
    api_fail(w->request, &err);
    return;
  }
  struct api_json json = api_reply_json(w->request, 200);
  api_json_u64(&json, "resealed", t->resealed);
  api_json_str(&json, "key_id", t->id);
  api_reply_end(w->request);
}

static void rotation_free(void *arg) {
  struct rotation *t = arg;
  if (t->ours)
    t->ring->rotating = false;
  free(t);
}

void api_post_rotate_key(struct api_request *r) {
  if (api_auth_is_limited(&r->api->cache, &r->who)) {
    api_fail_with(r, ERR_DENIED, "this token sees only some projects, and the key is of all");
    return;
  }
  api_audit_target(r, "", "master.key");
  struct rotation *t = calloc(1, sizeof *t);
  if (!t) {
    api_fail_with(r, ERR_MEMORY, "no memory for a change");
    return;
  }
  t->ring = &r->api->keyring;
  api_write_start(
      &(struct api_write){.api = r->api, .request = r, .build = build_rotation, .answer = answer_rotation, .free_ctx = rotation_free, .ctx = t});
}
