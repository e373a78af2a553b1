#include "orca-agent/secret_values.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/spec/ids.h"
#include "common/spec/spec.h"

static bool is_file(const Model__ServiceSpec *spec, const char *name) {
  for (size_t n = 0; n < spec->n_secret_files; n++)
    if (strcmp(spec->secret_files[n], name) == 0)
      return true;
  return false;
}

void secret_label_write(const Node__Secrets *secrets, const Model__ServiceSpec *spec, char out[AGENT_SECRETS_LABEL_MAX]) {
  size_t at = 0;
  out[0] = 0;
  for (size_t n = 0; n < secrets->n_secrets; n++) {
    const Node__SecretValue *s = secrets->secrets[n];
    bool global = PB_GET(s, global, 0), file = is_file(spec, PB_STR(s->name));
    char one[192];
    int len = snprintf(one, sizeof one, "%s%s:%" PRIu64 "%s%s%s", at ? " " : "", PB_STR(s->name), PB_GET(s, version, 0), global || file ? ":" : "",
                       global ? "g" : "", file ? "f" : "");
    if (len <= 0 || (size_t)len >= sizeof one || at + (size_t)len >= AGENT_SECRETS_LABEL_MAX)
      continue;
    memcpy(out + at, one, (size_t)len + 1);
    at += (size_t)len;
  }
}

static bool parse_entry(const char *text, size_t len, struct secret_label *ret) {
  const char *colon = memchr(text, ':', len), *end = text + len;
  if (!colon)
    return false;
  size_t name_len = (size_t)(colon - text);
  if (name_len >= sizeof ret->name || !spec_secret_name_valid(text, name_len))
    return false;
  *ret = (struct secret_label){0};
  memcpy(ret->name, text, name_len);
  const char *p = colon + 1;
  for (; p < end && *p >= '0' && *p <= '9' && ret->version < UINT64_MAX / 20; p++)
    ret->version = ret->version * 10 + (uint64_t)(*p - '0');
  if (p == colon + 1)
    return false;
  if (p == end)
    return true;
  if (*p++ != ':')
    return false;
  for (; p < end; p++) {
    if (*p != 'g' && *p != 'f')
      return false;
    ret->global |= *p == 'g';
    ret->file |= *p == 'f';
  }
  return true;
}

bool secret_label_next(const char **at, struct secret_label *ret) {
  while (**at) {
    const char *text = *at;
    size_t len = strcspn(text, " ");
    *at = text + len + (text[len] == ' ');
    if (parse_entry(text, len, ret))
      return true;
  }
  return false;
}

bool secret_label_has_files(const char *label) {
  struct secret_label one;
  while (secret_label_next(&label, &one))
    if (one.file)
      return true;
  return false;
}

const Node__SecretValue *secret_value_of(const Node__Secrets *secrets, const char *name) {
  for (size_t n = 0; secrets && n < secrets->n_secrets; n++)
    if (strcmp(PB_STR(secrets->secrets[n]->name), name) == 0)
      return secrets->secrets[n];
  return NULL;
}

static bool lookup(void *arg, const char *name, const uint8_t **value, size_t *len) {
  static const uint8_t empty[1];
  const Node__SecretValue *found = secret_value_of(arg, name);
  if (!found)
    return false;
  *value = found->value.len ? found->value.data : empty;
  *len = found->value.len;
  return true;
}

int secret_resolve(const char *value, const Node__Secrets *secrets, struct buf *to, struct err *err) {
  if (spec_resolve_secrets(value, lookup, (void *)(uintptr_t)secrets, to, err) < 0)
    return -1;
  return pb_utf8_valid(buf_str(to), to->len) ? 0
                                             : err_set(err, ERR_UNPROCESSABLE, "a secret in it is not UTF-8 text: it can only be in secret_files");
}

void secret_values_free(Node__Secrets *secrets) {
  if (!secrets)
    return;
  for (size_t n = 0; n < secrets->n_secrets; n++)
    if (secrets->secrets[n]->value.data)
      crypto_wipe(secrets->secrets[n]->value.data, secrets->secrets[n]->value.len);
  node__secrets__free_unpacked(secrets, NULL);
}
