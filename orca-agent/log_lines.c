#include "orca-agent/log_lines.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define FRAME 8u
#define TIME_LEN 30u
#define SECOND_LEN 19u
#define MESSAGE_MAX (LOG_LINES_BUFFER / 2) /* Docker's are 16 KiB and a little */
#define TRAILER_MAX 4096u

void log_lines_init(struct log_lines *l, uint8_t *buf) {
  *l = (struct log_lines){.buf = buf};
}

static bool bad(struct log_lines *l, const char *what) {
  snprintf(l->fault, sizeof l->fault, "%s", what);
  return false;
}

uint8_t *log_lines_room(struct log_lines *l, size_t *ret_room) {
  if (l->at) {
    memmove(l->buf, l->buf + l->at, l->have - l->at);
    l->have -= l->at;
    l->at = 0;
  }
  *ret_room = LOG_LINES_BUFFER - l->have;
  return l->buf + l->have;
}

static int hex(uint8_t c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 9112, 7.1, one byte of what is not data. */
static bool chunk_byte(struct log_lines *l, uint8_t c) {
  switch (l->state) {
  case LOG_CHUNK_SIZE: {
    int digit = hex(c);
    if (digit >= 0) {
      if (++l->digits > 8)
        return bad(l, "a chunk is too large");
      l->left = l->left << 4 | (uint64_t)digit;
      return true;
    }
    if (!l->digits)
      return bad(l, "a chunk has no size");
    if (c == '\n')
      break;
    if (c != '\r' && c != ';' && c != ' ')
      return bad(l, "a chunk's size is no number");
    l->state = LOG_CHUNK_EXTENSION;
    l->trailer = 0;
    return true;
  }
  case LOG_CHUNK_EXTENSION:
    if (c == '\n')
      break;
    return ++l->trailer < TRAILER_MAX || bad(l, "a chunk's extension is too long");
  case LOG_CHUNK_DATA_END:
    if (c == '\r')
      return true;
    if (c != '\n')
      return bad(l, "a chunk is longer than it said");
    l->state = LOG_CHUNK_SIZE;
    l->left = 0;
    l->digits = 0;
    return true;
  case LOG_CHUNK_TRAILER: /* digits: of the line */
    if (c == '\n') {
      if (!l->digits)
        l->state = LOG_CHUNK_OVER;
      l->digits = 0;
    } else if (c != '\r') {
      l->digits++;
    }
    return ++l->trailer < TRAILER_MAX || bad(l, "its trailer is too long");
  case LOG_CHUNK_OVER:
  case LOG_CHUNK_DATA:
    return bad(l, "there is more behind its end");
  }
  l->state = l->left ? LOG_CHUNK_DATA : LOG_CHUNK_TRAILER;
  l->digits = l->trailer = 0;
  return true;
}

bool log_lines_received(struct log_lines *l, size_t len) {
  const uint8_t *from = l->buf + l->have, *end = from + len;
  while (from < end) {
    if (l->state != LOG_CHUNK_DATA) {
      if (!chunk_byte(l, *from++))
        return false;
      continue;
    }
    size_t take = (size_t)(end - from) < l->left ? (size_t)(end - from) : (size_t)l->left;
    memmove(l->buf + l->have, from, take);
    l->have += take;
    from += take;
    l->left -= take;
    if (!l->left)
      l->state = LOG_CHUNK_DATA_END;
  }
  return true;
}

static int two(const uint8_t *s) {
  return s[0] >= '0' && s[0] <= '9' && s[1] >= '0' && s[1] <= '9' ? (s[0] - '0') * 10 + s[1] - '0' : -1;
}

int64_t log_lines_time(struct log_lines *l, const uint8_t *s) {
  if (s[SECOND_LEN] != '.' || s[TIME_LEN - 1] != 'Z')
    return -1;
  int64_t ns = 0;
  for (unsigned i = SECOND_LEN + 1; i < TIME_LEN - 1; i++) {
    if (s[i] < '0' || s[i] > '9')
      return -1;
    ns = ns * 10 + s[i] - '0';
  }
  if (memcmp(s, l->second, SECOND_LEN) == 0)
    return l->second_ns + ns;
  int century = two(s), year = two(s + 2), month = two(s + 5), day = two(s + 8), hour = two(s + 11), minute = two(s + 14), second = two(s + 17);
  if (century < 19 || century > 21 || year < 0 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 60 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':')
    return -1;
  struct tm tm = {.tm_year = century * 100 + year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_sec = second};
  int64_t at = timegm(&tm);
  if (tm.tm_mon != month - 1 || at < 0) /* the 31st of a month that has none */
    return -1;
  memcpy(l->second, s, SECOND_LEN);
  l->second_ns = at * INT64_C(1000000000);
  return l->second_ns + ns;
}

int log_lines_next(struct log_lines *l, struct log_line *ret) {
  const uint8_t *head = l->buf + l->at;
  size_t have = l->have - l->at;
  if (have < FRAME)
    return 0;
  uint32_t len = (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
  if (head[0] < 1 || head[0] > 3 || head[1] || head[2] || head[3])
    return bad(l, "these are no frames") - 1;
  if (len > MESSAGE_MAX)
    return bad(l, "a message is too long") - 1;
  if (have - FRAME < len)
    return 0;
  const uint8_t *text = head + FRAME;
  if (head[0] == 3) {
    snprintf(l->fault, sizeof l->fault, "%.*s", (int)(len < sizeof l->fault - 1 ? len : sizeof l->fault - 1), (const char *)text);
    l->fault[strcspn(l->fault, "\r\n")] = 0;
    return -1;
  }
  if (len < TIME_LEN + 1 || text[TIME_LEN] != ' ' || (ret->ns = log_lines_time(l, text)) < 0)
    return bad(l, "a message has no time") - 1;
  ret->err = head[0] == 2;
  ret->text = text + TIME_LEN + 1;
  ret->len = len - TIME_LEN - 1;
  ret->partial = !ret->len || ret->text[ret->len - 1] != '\n';
  if (!ret->partial)
    ret->len--;
  l->at += FRAME + len;
  return 1;
}

bool log_lines_over(const struct log_lines *l) {
  return l->state == LOG_CHUNK_OVER && l->at == l->have;
}
