#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "common/crypto/crypto.h"
#include "orca-store/kv_int.h"

/* Every record starts with the CRC32C of its table key and of all that follows: a record that wandered to another key is as wrong as one
 * with a flipped bit. */

void kv_be64(uint8_t out[8], uint64_t v) {
  v = htobe64(v);
  memcpy(out, &v, 8);
}

uint64_t kv_get_be64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return be64toh(v);
}

static void add_u64(struct buf *b, uint64_t v) {
  v = htole64(v);
  buf_add(b, &v, 8);
}

static void add_u32(struct buf *b, uint32_t v) {
  v = htole32(v);
  buf_add(b, &v, 4);
}

static uint64_t get_u64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return le64toh(v);
}

static uint32_t get_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return le32toh(v);
}

static int seal(struct buf *b, size_t start, const void *key, size_t key_len) {
  if (b->failed)
    return -1;
  uint32_t crc = htole32(crypto_crc32c(crypto_crc32c(0, key, key_len), b->data + start + 4, b->len - start - 4));
  memcpy(b->data + start, &crc, 4);
  return 0;
}

static bool sealed(const void *key, size_t key_len, const MDB_val *v, size_t least) {
  const uint8_t *p = v->mv_data;
  return v->mv_size >= 4 + least && get_u32(p) == crypto_crc32c(crypto_crc32c(0, key, key_len), p + 4, v->mv_size - 4);
}

/* crc, create, mod, version, lease, value */
int kv_record_encode(struct buf *to, const struct kv_slice *key, const struct kv_record *r) {
  size_t start = to->len;
  add_u32(to, 0);
  add_u64(to, r->create_revision);
  add_u64(to, r->mod_revision);
  add_u64(to, r->version);
  add_u64(to, r->lease);
  buf_add(to, r->value.data, r->value.len);
  return seal(to, start, key->data, key->len);
}

bool kv_record_decode(const struct kv_slice *key, const MDB_val *v, struct kv_record *ret) {
  if (!sealed(key->data, key->len, v, 32))
    return false;
  const uint8_t *p = v->mv_data;
  *ret = (struct kv_record){.create_revision = get_u64(p + 4),
                            .mod_revision = get_u64(p + 12),
                            .version = get_u64(p + 20),
                            .lease = get_u64(p + 28),
                            .value = {p + 36, v->mv_size - 36}};
  return true;
}

void kv_history_key(uint8_t out[12], uint64_t revision, uint32_t sub) {
  kv_be64(out, revision);
  sub = htobe32(sub);
  memcpy(out + 8, &sub, 4);
}

/* crc, flags, key length, value length, create, version, lease, key, value, then of the previous record: create, mod, version, lease, value.
 * Both values are here, so that history is cut by dropping its head, and a state of the past is the present with the first changes after it undone.
 */
enum { EVENT_DELETED = 1, EVENT_PREV = 2 };

int kv_event_encode(struct buf *to, uint64_t revision, uint32_t sub, const struct kv_event *e) {
  size_t start = to->len;
  add_u32(to, 0);
  add_u32(to, (e->deleted ? EVENT_DELETED : 0) | (e->has_prev ? EVENT_PREV : 0));
  add_u32(to, (uint32_t)e->key.len);
  add_u32(to, (uint32_t)e->now.value.len);
  add_u64(to, e->now.create_revision);
  add_u64(to, e->now.version);
  add_u64(to, e->now.lease);
  buf_add(to, e->key.data, e->key.len);
  buf_add(to, e->now.value.data, e->now.value.len);
  if (e->has_prev) {
    add_u64(to, e->prev.create_revision);
    add_u64(to, e->prev.mod_revision);
    add_u64(to, e->prev.version);
    add_u64(to, e->prev.lease);
    buf_add(to, e->prev.value.data, e->prev.value.len);
  }
  uint8_t key[12];
  kv_history_key(key, revision, sub);
  return seal(to, start, key, sizeof key);
}

bool kv_event_decode(const MDB_val *k, const MDB_val *v, uint64_t *revision, uint32_t *sub, struct kv_event *ret) {
  if (k->mv_size != 12 || !sealed(k->mv_data, 12, v, 36))
    return false;
  *revision = kv_get_be64(k->mv_data);
  uint32_t n;
  memcpy(&n, (const uint8_t *)k->mv_data + 8, 4);
  *sub = be32toh(n);
  const uint8_t *p = v->mv_data, *end = p + v->mv_size;
  uint32_t flags = get_u32(p + 4), key_len = get_u32(p + 8), value_len = get_u32(p + 12);
  *ret = (struct kv_event){.deleted = flags & EVENT_DELETED, .has_prev = flags & EVENT_PREV};
  ret->now = (struct kv_record){.create_revision = get_u64(p + 16), .mod_revision = *revision, .version = get_u64(p + 24), .lease = get_u64(p + 32)};
  p += 40;
  if (key_len > (size_t)(end - p) || value_len > (size_t)(end - p) - key_len)
    return false;
  ret->key = (struct kv_slice){p, key_len};
  p += key_len;
  ret->now.value = (struct kv_slice){p, value_len};
  p += value_len;
  if (!ret->has_prev)
    return p == end;
  if (end - p < 32)
    return false;
  ret->prev = (struct kv_record){.create_revision = get_u64(p),
                                 .mod_revision = get_u64(p + 8),
                                 .version = get_u64(p + 16),
                                 .lease = get_u64(p + 24),
                                 .value = {p + 32, (size_t)(end - p) - 32}};
  return true;
}

/* crc, time, id, packed reply */
int kv_saved_encode(struct buf *to, uint64_t seq, const struct kv_saved *s) {
  size_t start = to->len;
  add_u32(to, 0);
  add_u64(to, s->time_ms);
  buf_add(to, s->id, 16);
  buf_add(to, s->reply.data, s->reply.len);
  uint8_t key[8];
  kv_be64(key, seq);
  return seal(to, start, key, sizeof key);
}

bool kv_saved_decode(const MDB_val *k, const MDB_val *v, uint64_t *seq, struct kv_saved *ret) {
  if (k->mv_size != 8 || !sealed(k->mv_data, 8, v, 24))
    return false;
  const uint8_t *p = v->mv_data;
  *seq = kv_get_be64(k->mv_data);
  ret->time_ms = get_u64(p + 4);
  memcpy(ret->id, p + 12, 16);
  ret->reply = (struct kv_slice){p + 28, v->mv_size - 28};
  return true;
}

int kv_lease_encode(struct buf *to, uint64_t id, uint64_t ttl_ms) {
  size_t start = to->len;
  add_u32(to, 0);
  add_u64(to, ttl_ms);
  uint8_t key[8];
  kv_be64(key, id);
  return seal(to, start, key, sizeof key);
}

bool kv_lease_decode(const MDB_val *k, const MDB_val *v, uint64_t *id, uint64_t *ttl_ms) {
  if (k->mv_size != 8 || v->mv_size != 12 || !sealed(k->mv_data, 8, v, 8))
    return false;
  *id = kv_get_be64(k->mv_data);
  *ttl_ms = get_u64((const uint8_t *)v->mv_data + 4);
  return true;
}

int kv_corrupt(struct err *err, enum kv_table table, const MDB_val *key) {
  char text[65];
  size_t n = key->mv_size < 64 ? key->mv_size : 64;
  const uint8_t *p = key->mv_data;
  if (table == KV_KEYS) {
    for (size_t i = 0; i < n; i++)
      text[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
    text[n] = 0;
  } else {
    n = n < 20 ? n : 20;
    crypto_hex(p, n, text);
  }
  return err_set(err, ERR_CORRUPT, "the record of %s in table %s is damaged", text, kv_table_name(table));
}
