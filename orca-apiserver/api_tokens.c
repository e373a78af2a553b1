/* GET, POST, DELETE /tokens: a token's text is in the answer to the POST that made it, and nowhere else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/tokens.h"

#define EXPIRES_MAX_MS (INT64_C(3650) * 24 * 3600 * 1000)

static const Model__Token *own(const struct api_request *r) {
  return api_auth_token(&r->api->cache, &r->who);
}

static void token_json(struct api_request *r, const Model__Token *t, const char *key, struct api_json *json) {
  int64_t used = api_token_last_used(&r->api->uses, PB_STR(t->id));
  api_json_object(json, key);
  api_json_str(json, "name", PB_STR(t->name));
  api_json_str(json, "role", PB_STR(t->role));
  api_json_array(json, "projects");
  for (size_t i = 0; i < t->n_projects; i++)
    api_json_str(json, NULL, t->projects[i]);
  api_json_array_end(json);
  api_json_time(json, "created", t->created_ms);
  api_json_str(json, "created_by", PB_STR(t->created_by));
  api_json_time(json, "expires", t->expires_ms);
  api_json_bool(json, "expired", t->expires_ms && t->expires_ms <= api_now_ms(r->api));
  api_json_time(json, "last_used", used > t->last_used_ms ? used : t->last_used_ms);
  api_json_bool(json, "declared", t->declared);
  api_json_bool(json, "yours", strcmp(PB_STR(t->id), r->who.token_id) == 0);
  api_json_object_end(json);
}

void api_get_tokens(struct api_request *r) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&r->api->cache, API_TOKENS, &count);
  const Model__Token *who = own(r);
  struct api_json json = api_reply_json(r, 200);
  api_json_array(&json, "tokens");
  for (size_t i = 0; i < count; i++)
    if (api_token_sees(who, API_MSG(&all[i], Model__Token)))
      token_json(r, API_MSG(&all[i], Model__Token), NULL, &json);
  api_json_array_end(&json);
  api_reply_end(r);
}

/* NULL with ERR_NOT_FOUND also for one that the asking token may not see. */
static const Model__Token *find(struct api_request *r, uint64_t *mod, struct err *err) {
  const Model__Token *t = api_token_by_name(&r->api->cache, r->param, mod);
  api_audit_target(r, t && t->n_projects == 1 ? t->projects[0] : "", "token %s", r->param);
  if (t && api_token_sees(own(r), t))
    return t;
  err_set(err, ERR_NOT_FOUND, "token not found: %s", r->param);
  return NULL;
}

void api_get_token(struct api_request *r) {
  uint64_t mod;
  struct err err;
  const Model__Token *t = find(r, &mod, &err);
  if (!t) {
    api_fail(r, &err);
    return;
  }
  struct api_json json = api_reply_json(r, 200);
  token_json(r, t, "token", &json);
  api_reply_end(r);
}

/* ---- making one ---- */

struct making {
  Model__Token token; /* its texts are ours */
  uint8_t hash[32];
  char text[API_TOKEN_TEXT_MAX];
};

static void making_free(void *ctx) {
  struct making *m = ctx;
  free(m->token.name);
  free(m->token.role);
  free(m->token.created_by);
  for (size_t i = 0; i < m->token.n_projects; i++)
    free(m->token.projects[i]);
  free(m->token.projects);
  crypto_wipe(m, sizeof *m);
  free(m);
}

static void fault(struct spec_faults *faults, const char *path, const char *message) {
  spec_fault_add(faults, "", 0, 0, path, "%s", message);
}

static void read_projects(const json_t *value, struct making *m, struct spec_faults *faults) {
  size_t i, count = json_array_size(value);
  json_t *one;
  if (!json_is_array(value) || count > API_TOKEN_PROJECTS_MAX) {
    fault(faults, "projects", "must be a list of at most 64 names of projects");
    return;
  }
  m->token.projects = calloc(count + 1, sizeof(char *));
  json_array_foreach(value, i, one) {
    const char *name = json_string_value(one);
    if (!name || !spec_name_valid(name))
      fault(faults, "projects", "must be names of projects");
    else if (m->token.projects && (m->token.projects[m->token.n_projects] = strdup(name)))
      m->token.n_projects++;
  }
}

static void read_expires(struct api_request *r, const json_t *value, struct making *m, struct spec_faults *faults) {
  const char *text = json_string_value(value);
  int64_t now = api_now_ms(r->api), at = 0;
  uint64_t age;
  if (json_is_null(value))
    return;
  if (text && spec_parse_duration(text, &age, NULL) == 0)
    at = age < EXPIRES_MAX_MS ? now + (int64_t)age : INT64_MAX;
  else if (!text || api_time_parse(text, &at) < 0)
    at = 0;
  if (at <= now)
    fault(faults, "expires", "must be a time to come (2030-01-02T03:04:05Z), or how long from now (720h)");
  else if (at > now + EXPIRES_MAX_MS)
    fault(faults, "expires", "must be within ten years");
  else
    PB_SET(&m->token, expires_ms, at);
}

static void read_body(struct api_request *r, struct making *m, struct spec_faults *faults) {
  const char *key;
  json_t *value;
  json_object_foreach(r->json, key, value) {
    const char *text = json_string_value(value);
    if (strcmp(key, "name") == 0) {
      if (!text || !spec_name_valid(text))
        fault(faults, key, "must be a name: lower-case letters, digits and -, at most 63");
      else
        m->token.name = strdup(text);
    } else if (strcmp(key, "role") == 0) {
      if (!text || api_role_from_text(text) == API_ROLE_NONE)
        fault(faults, key, "must be admin, deployer or viewer");
      else
        m->token.role = strdup(text);
    } else if (strcmp(key, "projects") == 0) {
      read_projects(value, m, faults);
    } else if (strcmp(key, "expires") == 0) {
      read_expires(r, value, m, faults);
    } else {
      fault(faults, pb_utf8_valid(key, strlen(key)) ? key : "?", "unknown key: name, role, projects and expires are known");
    }
  }
  if (!faults->count && !m->token.name)
    fault(faults, "name", "is missing");
  if (!faults->count && !m->token.role)
    fault(faults, "role", "is missing");
}

/* Those that have been expired for long make room. */
static void drop_expired(const struct api_cache *cache, int64_t now_ms, struct storec_txn *txn) {
  size_t count, dropped = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  for (size_t i = 0; i < count && dropped < 50; i++) {
    if (!api_token_is_over(API_MSG(&all[i], Model__Token), now_ms))
      continue;
    storec_delete(txn, all[i].key);
    dropped++;
  }
}

static void scope_text(const Model__Token *t, char out[200]) {
  size_t used = (size_t)snprintf(out, 200, "%s of %s", t->role, t->n_projects ? "" : "all projects");
  for (size_t i = 0; i < t->n_projects && used < 180; i++)
    used += (size_t)snprintf(out + used, 200 - used, "%s%s", i ? ", " : "", t->projects[i]);
}

static int build_new(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct making *m = w->ctx;
  int64_t now = api_now_ms(w->api);
  char key[KEY_MAX], scope[200];
  if (api_token_check_new(&w->api->cache, own(w->request), &m->token, now, err) < 0)
    return -1;
  drop_expired(&w->api->cache, now, txn);
  PB_SET(&m->token, created_ms, now);
  key_named(key, KEY_TOKENS, m->token.name);
  storec_if_mod_revision(txn, key, 0);
  storec_put_message(txn, key, &m->token.base, 0);
  scope_text(&m->token, scope);
  api_service_event(w->api, txn, w->request, "token.created", m->token.n_projects == 1 ? m->token.projects[0] : "", "", "token %s: %s", m->token.name,
                    scope);
  return 0;
}

static void answer_new(struct api_write *w) {
  struct making *m = w->ctx;
  struct api_json json = api_reply_json(w->request, 200);
  api_json_str(&json, "value", m->text);
  token_json(w->request, &m->token, "token", &json);
  api_reply_end(w->request);
}

void api_post_token(struct api_request *r) {
  struct making *m = calloc(1, sizeof *m);
  struct spec_faults faults = {0};
  struct err err;
  if (!m) {
    api_fail_with(r, ERR_MEMORY, "no memory for a token");
    return;
  }
  model__token__init(&m->token);
  read_body(r, m, &faults);
  if (m->token.name)
    api_audit_target(r, m->token.n_projects == 1 ? m->token.projects[0] : "", "token %s", m->token.name);
  m->token.created_by = strdup(r->who.name);
  if (faults.count) {
    api_fail_faults(r, ERR_INVALID, &faults);
  } else if (!m->token.created_by) {
    api_fail_with(r, ERR_MEMORY, "no memory for a token");
  } else if (api_token_make_text(m->text, &err) < 0) {
    api_fail(r, &err);
  } else {
    crypto_sha256(m->text, strlen(m->text), m->hash);
    m->token.id = m->token.name;
    m->token.has_hash = 1;
    m->token.hash = (ProtobufCBinaryData){.len = sizeof m->hash, .data = m->hash};
    api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build_new, .answer = answer_new, .free_ctx = making_free, .ctx = m});
    m = NULL;
  }
  if (m)
    making_free(m);
  spec_faults_free(&faults);
}

/* ---- removing one ---- */

static int build_removal(struct api_write *w, struct storec_txn *txn, struct err *err) {
  uint64_t mod;
  char key[KEY_MAX];
  const Model__Token *t = find(w->request, &mod, err);
  if (!t || api_token_check_removal(&w->api->cache, t, txn, err) < 0)
    return -1;
  key_named(key, KEY_TOKENS, t->id);
  storec_if_mod_revision(txn, key, mod);
  storec_delete(txn, key);
  api_service_event(w->api, txn, w->request, "token.removed", t->n_projects == 1 ? t->projects[0] : "", "", "token %s", t->name);
  return 0;
}

static void answer_removal(struct api_write *w) {
  struct api_json json = api_reply_json(w->request, 200);
  api_json_str(&json, "removed", w->request->param);
  api_reply_end(w->request);
}

void api_delete_token(struct api_request *r) {
  api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build_removal, .answer = answer_removal});
}
