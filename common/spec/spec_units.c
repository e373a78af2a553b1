#include "common/spec/spec_units.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct unit {
  const char *name;
  uint64_t size;
} durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {"d", 24 * 60 * 60 * 1000}},
  sizes[] = {{"", 1},
             {"B", 1},
             {"K", 1000},
             {"k", 1000},
             {"M", 1000 * 1000},
             {"G", 1000 * 1000 * 1000},
             {"T", UINT64_C(1000000000000)},
             {"Ki", 1 << 10},
             {"Mi", 1 << 20},
             {"Gi", 1 << 30},
             {"Ti", UINT64_C(1) << 40}};

static const struct unit *find(const struct unit *units, size_t count, const char *name, size_t len) {
  for (size_t i = 0; i < count; i++)
    if (strlen(units[i].name) == len && memcmp(units[i].name, name, len) == 0)
      return &units[i];
  return NULL;
}

static const char *digits(const char *s, uint64_t *ret, bool *overflow) {
  uint64_t v = 0;
  for (; *s >= '0' && *s <= '9'; s++)
    if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
      *overflow = true;
  *ret = v;
  return s;
}

int spec_parse_duration(const char *text, uint64_t *ret_ms, struct err *err) {
  uint64_t total = 0, last = UINT64_MAX;
  const char *s = text;
  bool overflow = false;
  do {
    uint64_t n;
    const char *unit = digits(s, &n, &overflow);
    size_t len = strspn(unit, "abcdefghijklmnopqrstuvwxyz");
    const struct unit *u = unit > s ? find(durations, sizeof durations / sizeof *durations, unit, len) : NULL;
    if (!u || u->size >= last) /* "1h30m", but not "30m1h" */
      return err_set(err, ERR_INVALID, "a duration is written like \"500ms\", \"30s\", \"5m\", \"2h\"");
    if (__builtin_mul_overflow(n, u->size, &n) || __builtin_add_overflow(total, n, &total))
      overflow = true;
    last = u->size;
    s = unit + len;
  } while (*s);
  if (overflow || total > INT64_MAX / 1000000)
    return err_set(err, ERR_INVALID, "the duration is too long");
  *ret_ms = total;
  return 0;
}

int spec_parse_size(const char *text, uint64_t *ret_bytes, struct err *err) {
  uint64_t whole, fraction = 0, scale = 1;
  bool overflow = false;
  const char *s = digits(text, &whole, &overflow);
  bool ok = s > text;
  if (ok && *s == '.') {
    const char *first = s + 1;
    s = digits(first, &fraction, &overflow);
    ok = s > first && s - first <= 6;
    for (const char *c = first; ok && c < s; c++)
      scale *= 10;
  }
  size_t len = strlen(s);
  if (len > 1 && s[len - 1] == 'B') /* "MiB", "MB" */
    len--;
  const struct unit *u = ok ? find(sizes, sizeof sizes / sizeof *sizes, s, len) : NULL;
  if (!u)
    return err_set(err, ERR_INVALID, "a size is written like \"512Mi\", \"1Gi\", \"512M\", or as a number of bytes");
  uint64_t bytes, part;
  if (overflow || __builtin_mul_overflow(whole, u->size, &bytes) || __builtin_mul_overflow(fraction, u->size, &part) ||
      __builtin_add_overflow(bytes, part / scale, &bytes) || bytes > INT64_MAX)
    return err_set(err, ERR_INVALID, "the size is too large");
  *ret_bytes = bytes;
  return 0;
}

void spec_print_duration(uint64_t ms, char out[32]) {
  const struct unit *best = &durations[0];
  for (size_t i = 0; i < 4; i++) /* up to hours: "48h" says as much as "2d" */
    if (ms && ms % durations[i].size == 0)
      best = &durations[i];
  if (!ms)
    best = &durations[1];
  snprintf(out, 32, "%llu%s", (unsigned long long)(ms / best->size), best->name);
}

void spec_print_size(uint64_t bytes, char out[32]) {
  static const char *const names[] = {"", "Ki", "Mi", "Gi", "Ti"};
  unsigned i = 0;
  while (i < 4 && bytes && bytes % 1024 == 0) {
    bytes /= 1024;
    i++;
  }
  snprintf(out, 32, "%llu%s", (unsigned long long)bytes, names[i]);
}

bool spec_name_valid(const char *name) {
  size_t len = strlen(name);
  if (len == 0 || len > 63 || name[0] == '-' || name[len - 1] == '-')
    return false;
  return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}
