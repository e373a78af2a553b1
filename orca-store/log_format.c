#include "orca-store/log_format.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "common/crypto/crypto.h"

#define SECTOR 512

static const uint8_t magic[8] = {'o', 'r', 'c', 'a', 'l', 'o', 'g', '\n'};

static void put32(uint8_t *p, uint32_t v) {
  v = htole32(v);
  memcpy(p, &v, sizeof v);
}
static void put64(uint8_t *p, uint64_t v) {
  v = htole64(v);
  memcpy(p, &v, sizeof v);
}
static uint32_t get32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return le32toh(v);
}
static uint64_t get64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return le64toh(v);
}

bool dlog_is_zero(const uint8_t *data, size_t len) {
  return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

static uint32_t header_crc(uint64_t number, uint64_t offset, const uint8_t *header) {
  uint8_t place[16];
  put64(place, number);
  put64(place + 8, offset);
  return crypto_crc32c(crypto_crc32c(0, place, sizeof place), header + 4, DLOG_RECORD_HEADER - 4);
}

size_t dlog_put_record(uint8_t *out, uint64_t number, uint64_t offset, const struct dlog_record *rec) {
  uint8_t hard[DLOG_HARD_PAYLOAD];
  const uint8_t *data = rec->data;
  uint32_t len = rec->len;
  if (rec->type == DLOG_HARD) {
    put64(hard, rec->vote);
    put64(hard + 8, rec->last_term);
    put64(hard + 16, rec->prev_end);
    data = hard;
    len = sizeof hard;
  }
  size_t size = dlog_record_size(len), padded = size - DLOG_RECORD_OVERHEAD;
  memset(out, 0, DLOG_RECORD_HEADER);
  put32(out + 4, len);
  out[8] = (uint8_t)rec->type;
  out[9] = rec->type == DLOG_ENTRY ? (uint8_t)rec->entry_type : 0;
  put64(out + 16, rec->index);
  put64(out + 24, rec->term);
  put64(out + 32, rec->synced);
  uint32_t crc = header_crc(number, offset, out);
  put32(out, crc);
  if (len > 0)
    memcpy(out + DLOG_RECORD_HEADER, data, len);
  memset(out + DLOG_RECORD_HEADER + len, 0, padded - len);
  put32(out + DLOG_RECORD_HEADER + padded, crypto_crc32c(crc, out + DLOG_RECORD_HEADER, padded));
  put32(out + DLOG_RECORD_HEADER + padded + 4, DLOG_END);
  return size;
}

/* Was one of the sectors' shares of these bytes, which lie at offset, never written? */
static bool has_unwritten_share(const uint8_t *bytes, uint64_t offset, size_t len) {
  for (size_t at = 0; at < len;) {
    size_t share = SECTOR - (offset + at) % SECTOR;
    if (share > len - at)
      share = len - at;
    if (dlog_is_zero(bytes + at, share))
      return true;
    at += share;
  }
  return false;
}

enum dlog_seen dlog_get_record(const uint8_t *bytes, size_t size, uint64_t begin, uint64_t number, uint64_t offset, struct dlog_record *rec,
                               const char **text) {
  if (offset - begin + DLOG_RECORD_OVERHEAD > size)
    return DLOG_SEEN_END;
  const uint8_t *at = bytes + (offset - begin);
  if (dlog_is_zero(at, DLOG_RECORD_HEADER))
    return DLOG_SEEN_END;
  uint32_t crc = get32(at);
  if (crc != header_crc(number, offset, at)) {
    *text = "record header checksum does not match";
    /* bytes 36..39 are part of a segment number: never all zeros once they were written */
    return has_unwritten_share(at, offset, DLOG_RECORD_HEADER) || dlog_is_zero(at + 36, 4) ? DLOG_SEEN_TORN : DLOG_SEEN_DAMAGED;
  }
  uint32_t len = get32(at + 4);
  size_t total = dlog_record_size(len), padded = total - DLOG_RECORD_OVERHEAD;
  if (total > size - (offset - begin)) {
    *text = "record goes on behind the end of the file";
    return DLOG_SEEN_TORN;
  }
  const uint8_t *end = at + DLOG_RECORD_HEADER + padded;
  if (get32(end) != crypto_crc32c(crc, at + DLOG_RECORD_HEADER, padded) || get32(end + 4) != DLOG_END) {
    *text = "payload checksum does not match";
    /* the very last byte is never 0 once it was written */
    return end[7] == 0 || has_unwritten_share(at, offset, total) ? DLOG_SEEN_TORN : DLOG_SEEN_DAMAGED;
  }
  struct dlog_record out = {
      .type = at[8], .index = get64(at + 16), .term = get64(at + 24), .synced = get64(at + 32), .data = at + DLOG_RECORD_HEADER, .len = len};
  /* Behind two checksums that hold, what makes no sense was written so. */
  *text = "record makes no sense, though its checksums hold";
  switch (out.type) {
  case DLOG_HARD:
    if (len != DLOG_HARD_PAYLOAD)
      return DLOG_SEEN_DAMAGED;
    out.vote = get64(out.data);
    out.last_term = get64(out.data + 8);
    out.prev_end = get64(out.data + 16);
    break;
  case DLOG_ENTRY:
    out.entry_type = at[9];
    if (at[9] < RAFT_ENTRY_NOOP || at[9] > RAFT_ENTRY_MEMBERS || out.index == 0 || out.term == 0)
      return DLOG_SEEN_DAMAGED;
    break;
  case DLOG_RESET:
    if (len != 0)
      return DLOG_SEEN_DAMAGED;
    break;
  default:
    return DLOG_SEEN_DAMAGED;
  }
  *rec = out;
  return DLOG_SEEN_RECORD;
}

bool dlog_find_record(const uint8_t *seg, size_t size, uint64_t number, uint64_t *offset, struct dlog_record *rec) {
  const char *text;
  for (uint64_t at = *offset + 8; at + DLOG_RECORD_OVERHEAD <= size; at += 8) {
    if (get32(seg + at) == 0 && get32(seg + at + 36) == 0)
      continue;
    if (dlog_get_record(seg, size, 0, number, at, rec, &text) == DLOG_SEEN_RECORD) {
      *offset = at;
      return true;
    }
  }
  return false;
}

void dlog_put_header(uint8_t out[DLOG_HEADER], uint64_t number, const uint8_t cluster_id[DLOG_CLUSTER_ID]) {
  memset(out, 0, DLOG_HEADER);
  memcpy(out, magic, sizeof magic);
  put32(out + 8, DLOG_FORMAT);
  put32(out + 12, DLOG_HEADER);
  memcpy(out + 16, cluster_id, DLOG_CLUSTER_ID);
  put64(out + 32, number);
  put32(out + 60, crypto_crc32c(0, out, 60));
}

int dlog_check_header(const uint8_t *seg, size_t size, uint64_t number, const uint8_t *cluster_id, struct err *err) {
  if (size < DLOG_HEADER || memcmp(seg, magic, sizeof magic) != 0)
    return err_set(err, ERR_CORRUPT, "no segment header");
  if (get32(seg + 60) != crypto_crc32c(0, seg, 60))
    return err_set(err, ERR_CORRUPT, "segment header checksum does not match");
  uint32_t version = get32(seg + 8);
  if (version > DLOG_FORMAT)
    return err_set(err, ERR_UNSUPPORTED, "written by a newer orca-store: log format %u, this one knows up to %d", version, DLOG_FORMAT);
  if (version == 0 || get32(seg + 12) != DLOG_HEADER)
    return err_set(err, ERR_CORRUPT, "segment header makes no sense");
  if (get64(seg + 32) != number)
    return err_set(err, ERR_CORRUPT, "this is segment %llu under another's name", (unsigned long long)get64(seg + 32));
  if (cluster_id && memcmp(seg + 16, cluster_id, DLOG_CLUSTER_ID) != 0)
    return err_set(err, ERR_INVALID, "this log belongs to another cluster");
  return 0;
}

void dlog_put_hint(uint8_t out[DLOG_HINT_BYTES], uint64_t position) {
  memset(out, 0, DLOG_HINT_BYTES);
  put64(out, position);
  put32(out + 8, crypto_crc32c(0, out, 8));
}

uint64_t dlog_get_hint(const uint8_t in[DLOG_HINT_BYTES]) {
  return get32(in + 8) == crypto_crc32c(0, in, 8) ? get64(in) : 0;
}

void dlog_name(char out[DLOG_NAME_MAX], uint64_t number) {
  snprintf(out, DLOG_NAME_MAX, "%016llx.log", (unsigned long long)number);
}

bool dlog_parse_name(const char *name, uint64_t *ret) {
  uint64_t v = 0;
  if (strlen(name) != 20 || strcmp(name + 16, ".log") != 0)
    return false;
  for (size_t i = 0; i < 16; i++) {
    const char *digits = "0123456789abcdef", *d = strchr(digits, name[i]);
    if (!d)
      return false;
    v = v << 4 | (uint64_t)(d - digits);
  }
  *ret = v;
  return v > 0 && v <= UINT32_MAX;
}
