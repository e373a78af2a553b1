/* [[token]]: its text stays with whoever wrote it. orcactl fills in ${env.X}, hashes it and sends the hash. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"
#include "common/spec/spec_keys.h"
#include "common/spec/spec_set.h"

#define TEXT_MIN 32
#define TEXT_MAX 200
#define DISTINCT_MIN 12

/* Somebody chose it: what is short, or made of few characters, is found by trying. Nothing here quotes it. */
const char *spec_check_token_value(const char *text) {
  bool seen[256] = {false};
  size_t len = strlen(text), distinct = 0;
  for (const char *p = text; *p; p++) {
    if (*p <= ' ' || *p >= 0x7f)
      return "must be printable ASCII without spaces";
    distinct += !seen[(unsigned char)*p];
    seen[(unsigned char)*p] = true;
  }
  if (len < TEXT_MIN || distinct < DISTINCT_MIN)
    return "is too weak for a token: it takes at least 32 random characters (`openssl rand -hex 32` makes such)";
  return len > TEXT_MAX ? "must have at most 200 characters" : NULL;
}

static int digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

void spec_read_token_hash(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  Model__TokenDecl *token = target;
  const char *text = spec_read_string(r, key, value);
  if (!text)
    return;
  uint8_t *hash = malloc(32);
  if (!hash) {
    r->memory = true;
    return;
  }
  for (size_t i = 0; i < 32; i++)
    hash[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
  free(token->hash.data);
  token->has_hash = 1;
  token->hash = (ProtobufCBinaryData){.len = 32, .data = hash};
}

struct toml_value *spec_write_token_hash(struct toml_doc *doc, const struct spec_key *key, const ProtobufCMessage *msg, bool *absent) {
  const Model__TokenDecl *token = (const Model__TokenDecl *)msg;
  char hex[65];
  (void)key;
  *absent = !token->has_hash || token->hash.len != 32;
  if (*absent)
    return NULL;
  crypto_hex(token->hash.data, 32, hex);
  return toml_new_string(doc, hex, 64);
}

void spec_finish_token(struct spec_reader *r, const struct toml_value *table, void *target) {
  (void)target;
  if (!toml_get(table, "value") == !toml_get(table, "hash"))
    spec_fault(r, table, "`value` is needed, or `hash` in its place");
}

static int hash_one(Model__TokenDecl *token, struct err *err) {
  uint8_t hash[32];
  struct buf text = BUF_INIT(TEXT_MAX * 2);
  int rc = spec_unescape(token->value, &text, err);
  const char *weak = rc == 0 ? spec_check_token_value(buf_str(&text)) : NULL;
  if (weak)
    rc = err_set(err, ERR_UNPROCESSABLE, "%s", weak);
  uint8_t *data = rc == 0 ? malloc(sizeof hash) : NULL;
  if (rc == 0 && !data)
    rc = err_set(err, ERR_MEMORY, "out of memory");
  if (data) {
    crypto_sha256(buf_str(&text), text.len, hash);
    memcpy(data, hash, sizeof hash);
    free(token->hash.data);
    token->has_hash = 1;
    token->hash = (ProtobufCBinaryData){.len = sizeof hash, .data = data};
  }
  if (text.data)
    crypto_wipe(text.data, text.size);
  buf_free(&text);
  return rc;
}

void spec_hash_tokens(struct spec_reader *r, Model__ClusterSpec *cluster) {
  for (size_t i = 0; i < cluster->n_tokens; i++) {
    Model__TokenDecl *token = cluster->tokens[i];
    struct err err;
    size_t mark = spec_path_push(r, "token[%zu].value", i);
    if (token->value) {
      if (hash_one(token, &err) < 0)
        spec_fault_add(r->faults, r->file, 0, 0, buf_str(&r->path), "%s", err.msg);
      crypto_wipe(token->value, strlen(token->value));
      free(token->value);
      token->value = NULL;
    }
    spec_path_pop(r, mark);
  }
}
