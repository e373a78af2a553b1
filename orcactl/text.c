#include "orcactl/text.h"

#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#include "common/bus/pb.h"

static bool ascii_only;

static const char *locale_named(void) {
  static const char *const variables[] = {"LC_ALL", "LC_CTYPE", "LANG"};
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
    const char *value = getenv(variables[i]);
    if (value && *value)
      return value;
  }
  return "";
}

void text_init(void) {
  const char *locale = locale_named();
  ascii_only = *locale && !strcasestr(locale, "utf-8") && !strcasestr(locale, "utf8");
  setlocale(LC_CTYPE, "C.UTF-8");
}

const char *text_mark(const char *mark, const char *ascii) {
  return ascii_only ? ascii : mark;
}

/* One character; *p moves on. What is malformed counts as one byte, U+FFFD. */
static uint32_t next_char(const char **p) {
  const unsigned char *s = (const unsigned char *)*p;
  unsigned len = *s < 0x80 ? 1 : *s >= 0xf0 ? 4 : *s >= 0xe0 ? 3 : 2;
  for (unsigned i = 1; i < len; i++)
    if ((s[i] & 0xc0) != 0x80) {
      *p += 1;
      return 0xfffd;
    }
  if (!pb_utf8_valid(*p, len)) {
    *p += 1;
    return 0xfffd;
  }
  *p += len;
  if (len == 1)
    return s[0];
  if (len == 2)
    return (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
  if (len == 3)
    return (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
  return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

/* ECMA-48: behind ESC. CSI ends with a byte from @ to ~, strings (OSC, DCS, APC, PM, SOS) with BEL or ESC \. */
static const char *skip_escape(const char *s) {
  if (*s == '[') {
    for (s++; *s && !(*s >= '@' && *s <= '~'); s++)
      ;
    return *s ? s + 1 : s;
  }
  if (*s && strchr("]PX^_", *s)) {
    for (s++; *s && *s != '\a'; s++)
      if (s[0] == '\033' && s[1] == '\\')
        return s + 2;
    return *s ? s + 1 : s;
  }
  while (*s >= ' ' && *s <= '/')
    s++;
  return *s && (unsigned char)*s < 0x80 ? s + 1 : s;
}

static bool is_hidden(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200b || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xe0000 && c <= 0xe007f);
}

static void clean(const char *s, bool lines, struct buf *to) {
  while (*s) {
    const char *at = s;
    uint32_t c = next_char(&s);
    if (c == 0x1b)
      s = skip_escape(s);
    else if (lines && (c == '\n' || c == '\t'))
      buf_add_byte(to, (uint8_t)c);
    else if (c == '\n' || c == '\r' || c == '\t')
      buf_add_byte(to, ' ');
    else if (c == 0xfffd)
      buf_add_str(to, "\xef\xbf\xbd");
    else if (!is_hidden(c))
      buf_add(to, at, (size_t)(s - at));
  }
}

void text_clean(const char *s, struct buf *to) {
  clean(s, false, to);
}

void text_clean_lines(const char *s, struct buf *to) {
  clean(s, true, to);
}

char *text_cleaned(const char *s) {
  struct buf b = BUF_INIT((size_t)64 << 20);
  text_clean(s, &b);
  size_t len;
  char *text = (char *)buf_take(&b, &len);
  buf_free(&b);
  return text ? text : strdup("");
}

static unsigned columns_of(uint32_t c) {
  int w = wcwidth((wchar_t)c);
  return w < 0 ? 1 : (unsigned)w;
}

unsigned text_width(const char *s) {
  unsigned width = 0;
  while (*s)
    width += columns_of(next_char(&s));
  return width;
}

void text_cut(const char *s, unsigned columns, struct buf *to) {
  if (text_width(s) <= columns) {
    buf_add_str(to, s);
    return;
  }
  unsigned used = 0;
  while (*s && columns) {
    const char *at = s;
    unsigned w = columns_of(next_char(&s));
    if (used + w > columns - 1)
      break;
    used += w;
    buf_add(to, at, (size_t)(s - at));
  }
  if (columns)
    buf_add_str(to, text_mark("…", "~"));
}

void text_wrap(const char *s, unsigned used, unsigned indent, unsigned columns, struct buf *to) {
  bool fresh = true; /* nothing of s is in this line yet */
  while (*(s += strspn(s, " \n"))) {
    size_t len = strcspn(s, " \n");
    char *word = strndup(s, len);
    unsigned width = word ? text_width(word) : 0;
    free(word);
    if (!fresh && used + 1 + width > columns) {
      buf_printf(to, "\n%*s", (int)indent, "");
      used = indent;
      fresh = true;
    }
    buf_add_str(to, fresh ? "" : " ");
    buf_add(to, s, len);
    used += width + !fresh;
    fresh = false;
    s += len;
  }
}

void text_bytes(uint64_t bytes, char out[16]) {
  static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  double v = (double)bytes;
  size_t unit = 0;
  while (v >= 1000 && unit + 1 < sizeof units / sizeof *units) {
    v /= 1024;
    unit++;
  }
  snprintf(out, 16, unit && v < 10 ? "%.1f%s" : "%.0f%s", v, units[unit]);
}

void text_age(int64_t seconds, char out[16]) {
  if (seconds < 0)
    seconds = 0;
  if (seconds > INT64_C(86400) * 99999)
    seconds = INT64_C(86400) * 99999;
  if (seconds < 60)
    snprintf(out, 16, "%" PRId64 "s", seconds);
  else if (seconds < 3600)
    snprintf(out, 16, "%" PRId64 "m", seconds / 60);
  else if (seconds < 48 * 3600)
    snprintf(out, 16, "%" PRId64 "h", seconds / 3600);
  else
    snprintf(out, 16, "%" PRId64 "d", seconds / 86400);
}

int64_t text_time(const char *s) {
  struct tm tm = {0};
  if (!s)
    return -1;
  const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
  if (!end || (*end != 'Z' && *end != '.'))
    return -1;
  return timegm(&tm);
}
