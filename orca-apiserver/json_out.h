/* JSON written straight into a buffer: what the API answers with, without a tree in between.
 *
 * Pairs of open and close nest as JSON does; `key` is NULL inside arrays. Text must be UTF-8 (all that comes from the store
 * is checked); control characters are escaped, so that no answer carries a terminal escape.
 * Threads: one owner. */
#ifndef ORCA_APISERVER_JSON_OUT_H
#define ORCA_APISERVER_JSON_OUT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

struct api_json {
  struct buf *out; /* borrowed */
  bool comma;
};

void api_json_object(struct api_json *j, const char *key);
void api_json_object_end(struct api_json *j);
void api_json_array(struct api_json *j, const char *key);
void api_json_array_end(struct api_json *j);
void api_json_str(struct api_json *j, const char *key, const char *value); /* NULL: null */
void api_json_u64(struct api_json *j, const char *key, uint64_t value);
void api_json_i64(struct api_json *j, const char *key, int64_t value);
void api_json_milli(struct api_json *j, const char *key, uint64_t thousandths); /* 1500 → 1.5 */
void api_json_bool(struct api_json *j, const char *key, bool value);
void api_json_null(struct api_json *j, const char *key);
void api_json_time(struct api_json *j, const char *key, int64_t unix_ms); /* RFC 3339 UTC; null when 0 */
void api_json_raw(struct api_json *j, const char *key, const char *json); /* text that is JSON already */

void api_time_text(int64_t unix_ms, char out[32]);     /* "2026-01-02T03:04:05.678Z" */
int api_time_parse(const char *text, int64_t *ret_ms); /* RFC 3339 with Z or an offset; -1 when it is not */

/* A bounded copy that is UTF-8, whatever came: what is not would make the record or the answer that it stands in unreadable. */
void api_text_copy(char *to, size_t size, const char *from);

#endif
