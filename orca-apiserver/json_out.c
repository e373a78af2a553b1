#include "orca-apiserver/json_out.h"

#include <string.h>
#include <time.h>

#include "common/bus/pb.h"

/* What a JSON text can't hold as it is; NUL, which ends it, is among them. */
static const bool is_special[256] = {[0 ... 0x1f] = true, ['"'] = true, ['\\'] = true, [0x7f] = true};

static size_t plain_length(const char *s) {
  size_t n = 0;
  while (!is_special[(unsigned char)s[n]])
    n++;
  return n;
}

static void text_with_escapes(struct buf *out, const char *s) {
  static const char hex[] = "0123456789abcdef";
  buf_add_byte(out, '"');
  for (const char *plain = s;; plain = ++s) {
    s += plain_length(s);
    buf_add(out, plain, (size_t)(s - plain));
    unsigned char c = (unsigned char)*s;
    if (!c)
      break;
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
  buf_add_byte(out, '"');
}

/* A whole answer is many short pieces: each is written in one go where it has nothing to escape. */
static void quoted(struct buf *out, const char *before, const char *s, const char *after) {
  size_t len = plain_length(s), before_len = strlen(before), after_len = strlen(after), all = before_len + len + after_len;
  if (s[len]) {
    buf_add(out, before, before_len - 1);
    text_with_escapes(out, s);
    buf_add(out, after + 1, after_len - 1);
    return;
  }
  if (buf_reserve(out, all) < 0)
    return;
  uint8_t *to = out->data + out->len;
  to = mempcpy(mempcpy(to, before, before_len), s, len);
  memcpy(to, after, after_len + 1);
  out->len += all;
}

static void text(struct buf *out, const char *s) {
  quoted(out, "\"", s, "\"");
}

static void begin(struct api_json *j, const char *key) {
  if (key)
    quoted(j->out, j->comma ? ",\"" : "\"", key, "\":");
  else if (j->comma)
    buf_add_byte(j->out, ',');
  j->comma = true;
}

/* Decimal, with zeroes in front up to `least` digits, ending at `end`: where it begins. */
static char *decimal(char *end, uint64_t value, int least) {
  for (; value || least > 0; value /= 10, least--)
    *--end = (char)('0' + value % 10);
  return end;
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
  char room[24], *end = room + sizeof room, *at = decimal(end, value, 1);
  begin(j, key);
  buf_add(j->out, at, (size_t)(end - at));
}

void api_json_i64(struct api_json *j, const char *key, int64_t value) {
  char room[24], *end = room + sizeof room, *at = decimal(end, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 1);
  if (value < 0)
    *--at = '-';
  begin(j, key);
  buf_add(j->out, at, (size_t)(end - at));
}

void api_json_milli(struct api_json *j, const char *key, uint64_t thousandths) {
  char room[32], *end = room + sizeof room, *at = decimal(end, thousandths % 1000, 3);
  *--at = '.';
  at = decimal(at, thousandths / 1000, 1);
  begin(j, key);
  buf_add(j->out, at, (size_t)(end - at));
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
  pb_make_utf8(to);
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
  memcpy(out, "0000-00-00T00:00:00.000Z", sizeof "0000-00-00T00:00:00.000Z");
  decimal(out + 4, (uint64_t)tm.tm_year + 1900, 4);
  decimal(out + 7, (uint64_t)tm.tm_mon + 1, 2);
  decimal(out + 10, (uint64_t)tm.tm_mday, 2);
  decimal(out + 13, (uint64_t)tm.tm_hour, 2);
  decimal(out + 16, (uint64_t)tm.tm_min, 2);
  decimal(out + 19, (uint64_t)tm.tm_sec, 2);
  decimal(out + 23, (uint64_t)ms, 3);
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
