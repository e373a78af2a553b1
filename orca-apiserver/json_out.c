#include "orca-apiserver/json_out.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void text(struct buf *out, const char *s) {
  static const char hex[] = "0123456789abcdef";
  buf_add_byte(out, '"');
  const char *plain = s;
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
      continue;
    buf_add(out, plain, (size_t)(s - plain));
    plain = s + 1;
    if (c == '"' || c == '\\') {
      const char escaped[2] = {'\\', (char)c};
      buf_add(out, escaped, 2);
    } else if (c == '\n') {
      buf_add(out, "\\n", 2);
    } else if (c == '\t') {
      buf_add(out, "\\t", 2);
    } else {
      const char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
      buf_add(out, escaped, 6);
    }
  }
  buf_add(out, plain, (size_t)(s - plain));
  buf_add_byte(out, '"');
}

static void begin(struct api_json *j, const char *key) {
  if (j->comma)
    buf_add_byte(j->out, ',');
  j->comma = true;
  if (key) {
    text(j->out, key);
    buf_add_byte(j->out, ':');
  }
}

static void open_with(struct api_json *j, const char *key, uint8_t c) {
  begin(j, key);
  buf_add_byte(j->out, c);
  j->comma = false;
}

static void close_with(struct api_json *j, uint8_t c) {
  buf_add_byte(j->out, c);
  j->comma = true;
}

void api_json_object(struct api_json *j, const char *key) {
  open_with(j, key, '{');
}
void api_json_object_end(struct api_json *j) {
  close_with(j, '}');
}
void api_json_array(struct api_json *j, const char *key) {
  open_with(j, key, '[');
}
void api_json_array_end(struct api_json *j) {
  close_with(j, ']');
}

void api_json_null(struct api_json *j, const char *key) {
  begin(j, key);
  buf_add(j->out, "null", 4);
}

void api_json_str(struct api_json *j, const char *key, const char *value) {
  if (!value) {
    api_json_null(j, key);
    return;
  }
  begin(j, key);
  text(j->out, value);
}

void api_json_u64(struct api_json *j, const char *key, uint64_t value) {
  char digits[24];
  begin(j, key);
  buf_add(j->out, digits, (size_t)snprintf(digits, sizeof digits, "%" PRIu64, value));
}

void api_json_i64(struct api_json *j, const char *key, int64_t value) {
  char digits[24];
  begin(j, key);
  buf_add(j->out, digits, (size_t)snprintf(digits, sizeof digits, "%" PRId64, value));
}

void api_json_milli(struct api_json *j, const char *key, uint64_t thousandths) {
  begin(j, key);
  buf_printf(j->out, "%" PRIu64 ".%03u", thousandths / 1000, (unsigned)(thousandths % 1000));
}

void api_json_bool(struct api_json *j, const char *key, bool value) {
  begin(j, key);
  buf_add_str(j->out, value ? "true" : "false");
}

void api_json_time(struct api_json *j, const char *key, int64_t unix_ms) {
  char out[32];
  if (!unix_ms) {
    api_json_null(j, key);
    return;
  }
  api_time_text(unix_ms, out);
  api_json_str(j, key, out);
}

void api_json_raw(struct api_json *j, const char *key, const char *json) {
  begin(j, key);
  buf_add_str(j->out, json);
}

void api_text_copy(char *to, size_t size, const char *from) {
  size_t len = strnlen(from, size - 1);
  if (from[len]) /* cut short: not inside of a character */
    while (len && ((unsigned char)from[len] & 0xc0) == 0x80)
      len--;
  memcpy(to, from, len);
  to[len] = 0;
}

/* Years beyond what gmtime_r() and RFC 3339 can say come only from nonsense: they are held at its ends. */
void api_time_text(int64_t unix_ms, char out[32]) {
  int64_t secs = unix_ms / 1000;
  int64_t ms = unix_ms % 1000;
  if (ms < 0) {
    ms += 1000;
    secs--;
  }
  if (secs < INT64_C(-62135596800))
    secs = INT64_C(-62135596800);
  if (secs > INT64_C(253402300799))
    secs = INT64_C(253402300799);
  time_t t = (time_t)secs;
  struct tm tm;
  gmtime_r(&t, &tm);
  size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
  snprintf(out + n, 32 - n, ".%03dZ", (int)ms);
}

static int digits(const char **p, int count, int low, int high) {
  int v = 0;
  for (int i = 0; i < count; i++, (*p)++) {
    if (**p < '0' || **p > '9')
      return -1;
    v = v * 10 + (**p - '0');
  }
  return v < low || v > high ? -1 : v;
}

int api_time_parse(const char *s, int64_t *ret_ms) {
  struct tm tm = {0};
  int year = digits(&s, 4, 1, 9999);
  if (year < 0 || *s++ != '-' || (tm.tm_mon = digits(&s, 2, 1, 12)) < 0 || *s++ != '-' || (tm.tm_mday = digits(&s, 2, 1, 31)) < 0)
    return -1;
  if ((*s != 'T' && *s != 't' && *s != ' ') || (s++, tm.tm_hour = digits(&s, 2, 0, 23)) < 0 || *s++ != ':' ||
      (tm.tm_min = digits(&s, 2, 0, 59)) < 0 || *s++ != ':' || (tm.tm_sec = digits(&s, 2, 0, 60)) < 0)
    return -1;
  int64_t ms = 0;
  if (*s == '.') {
    int64_t unit = 100;
    if (*++s < '0' || *s > '9')
      return -1;
    for (; *s >= '0' && *s <= '9'; s++, unit /= 10)
      ms += (*s - '0') * unit;
  }
  int64_t offset = 0;
  if (*s == '+' || *s == '-' || *s == ' ') { /* a + that a query string turned into a space */
    int sign = *s++ == '-' ? -1 : 1;
    int hours = digits(&s, 2, 0, 23);
    if (hours < 0 || *s++ != ':')
      return -1;
    int minutes = digits(&s, 2, 0, 59);
    if (minutes < 0)
      return -1;
    offset = sign * (hours * 60 + minutes) * INT64_C(60);
  } else if (*s == 'Z' || *s == 'z') {
    s++;
  } else {
    return -1;
  }
  if (*s)
    return -1;
  tm.tm_year = year - 1900;
  tm.tm_mon -= 1;
  *ret_ms = ((int64_t)timegm(&tm) - offset) * 1000 + ms;
  return 0;
}
