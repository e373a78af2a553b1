#include "common/cron/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 44u
#define DAY INT64_C(86400)
#define RULE_MAX 128u
#define OFFSET_MAX (26 * 3600) /* RFC 8536, 3.2 */

enum rule_kind { RULE_JULIAN, RULE_DAY, RULE_MONTH }; /* J1-365 without the leap day, 0-365 with it, Mm.w.d */

struct rule {
  enum rule_kind kind;
  unsigned month, week, day;
  int32_t time; /* of the day, by the clocks before the change */
};

struct zone {
  size_t count;
  int64_t *at;     /* changes, ascending */
  int32_t *offset; /* from then on */
  int32_t first;   /* before the first */
  bool has_rule;   /* for what comes after the last change */
  int32_t standard, summer;
  bool has_summer;
  struct rule begins, ends;
};

bool zone_name_valid(const char *name) {
  size_t len = strlen(name);
  if (!len || len > 100)
    return false;
  for (const char *s = name;; s++) {
    size_t n = strcspn(s, "/");
    if (!n || s[0] == '.' || strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-") != n)
      return false;
    s += n;
    if (!*s)
      return true;
  }
}

static bool is_utc(const char *name) {
  return strcmp(name, "UTC") == 0 || strcmp(name, "Etc/UTC") == 0;
}

/* -1 with errno. */
static int open_zone(const char *name) {
  char path[160];
  snprintf(path, sizeof path, ZONE_DIR "/%s", name);
  return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

bool zone_exists(const char *name) {
  struct stat st;
  if (!zone_name_valid(name))
    return false;
  if (is_utc(name))
    return true;
  if (stat(ZONE_DIR, &st) < 0)
    return true;
  struct err err;
  struct zone *zone = zone_load(name, &err);
  zone_free(zone);
  return zone != NULL;
}

/* ---- the rule at the end: "CET-1CEST,M3.5.0,M10.5.0/3" ---- */

static bool rule_number(const char **s, unsigned max, unsigned *ret) {
  unsigned v = 0;
  const char *c = *s;
  for (; *c >= '0' && *c <= '9' && c - *s < 4; c++)
    v = v * 10 + (unsigned)(*c - '0');
  if (c == *s || v > max)
    return false;
  *s = c;
  *ret = v;
  return true;
}

/* [+-]h[:m[:s]] */
static bool rule_time(const char **s, int32_t *ret) {
  int sign = **s == '-' ? -1 : 1;
  unsigned part[3] = {0};
  if (**s == '-' || **s == '+')
    (*s)++;
  for (int i = 0; i < 3; i++) {
    if (!rule_number(s, i ? 59 : 167, &part[i]))
      return false;
    if (**s != ':')
      break;
    (*s)++;
  }
  *ret = sign * (int32_t)(part[0] * 3600 + part[1] * 60 + part[2]);
  return true;
}

static bool rule_name(const char **s) {
  const char *c = *s;
  if (*c == '<') {
    c = strchr(c, '>');
    if (!c)
      return false;
    *s = c + 1;
    return true;
  }
  while ((*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z'))
    c++;
  bool ok = c - *s >= 3;
  *s = c;
  return ok;
}

static bool rule_date(const char **s, struct rule *ret) {
  *ret = (struct rule){.time = 7200};
  if (**s == 'M') {
    (*s)++;
    ret->kind = RULE_MONTH;
    if (!rule_number(s, 12, &ret->month) || !ret->month || *(*s)++ != '.' || !rule_number(s, 5, &ret->week) || !ret->week || *(*s)++ != '.' ||
        !rule_number(s, 6, &ret->day))
      return false;
  } else if (**s == 'J') {
    (*s)++;
    ret->kind = RULE_JULIAN;
    if (!rule_number(s, 365, &ret->day) || !ret->day)
      return false;
  } else {
    ret->kind = RULE_DAY;
    if (!rule_number(s, 365, &ret->day))
      return false;
  }
  if (**s != '/')
    return true;
  (*s)++;
  return rule_time(s, &ret->time);
}

static bool parse_rule(struct zone *z, const char *s) {
  int32_t west;
  if (!*s)
    return true; /* the last offset goes on for ever */
  if (!rule_name(&s) || !rule_time(&s, &west))
    return false;
  z->standard = -west;
  z->has_rule = true;
  if (!*s)
    return abs(z->standard) < OFFSET_MAX;
  if (!rule_name(&s))
    return false;
  z->has_summer = true;
  z->summer = z->standard + 3600;
  if (*s != ',') {
    if (!rule_time(&s, &west))
      return false;
    z->summer = -west;
  }
  if (*s++ != ',' || !rule_date(&s, &z->begins) || *s++ != ',' || !rule_date(&s, &z->ends))
    return false;
  return !*s && abs(z->standard) < OFFSET_MAX && abs(z->summer) < OFFSET_MAX;
}

static int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

static bool leap(int64_t year) {
  return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days from 1970-01-01 to the first of January. */
static int64_t days_before(int64_t year) {
  int64_t y = year - 1;
  return y * 365 + floor_div(y, 4) - floor_div(y, 100) + floor_div(y, 400) - 719162;
}

static int64_t rule_day(const struct rule *rule, int64_t year) {
  static const unsigned lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  int64_t day = days_before(year);
  if (rule->kind == RULE_JULIAN)
    return day + rule->day - 1 + (leap(year) && rule->day >= 60);
  if (rule->kind == RULE_DAY)
    return day + rule->day;
  for (unsigned m = 1; m < rule->month; m++)
    day += lengths[m - 1] + (m == 2 && leap(year));
  unsigned length = lengths[rule->month - 1] + (rule->month == 2 && leap(year));
  unsigned weekday = (unsigned)(((day + 4) % 7 + 7) % 7);
  unsigned first = (rule->day + 7 - weekday) % 7 + 7 * (rule->week - 1);
  while (first >= length)
    first -= 7;
  return day + first;
}

static int32_t by_rule(const struct zone *z, int64_t at) {
  if (!z->has_summer)
    return z->standard;
  int64_t days = floor_div(at + z->standard, DAY), year = 1970 + floor_div(days * 400, 146097);
  while (days_before(year + 1) <= days)
    year++;
  while (days_before(year) > days)
    year--;
  int64_t begins = rule_day(&z->begins, year) * DAY + z->begins.time - z->standard;
  int64_t ends = rule_day(&z->ends, year) * DAY + z->ends.time - z->summer;
  bool summer = begins < ends ? at >= begins && at < ends : at >= begins || at < ends;
  return summer ? z->summer : z->standard;
}

int32_t zone_offset(void *arg, int64_t at) {
  const struct zone *z = arg;
  if (!z)
    return 0;
  if (!z->count || at < z->at[0])
    return z->count || !z->has_rule ? z->first : by_rule(z, at);
  if (at >= z->at[z->count - 1])
    return z->has_rule ? by_rule(z, at) : z->offset[z->count - 1];
  size_t low = 0, high = z->count - 1; /* at[low] <= at < at[high] */
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (z->at[middle] <= at)
      low = middle;
    else
      high = middle;
  }
  return z->offset[low];
}

/* ---- TZif ---- */

static uint32_t be32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t be64(const uint8_t *p) {
  return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

struct head {
  size_t isut, isstd, leap, times, types, chars;
};

/* The length of what follows a header; SIZE_MAX when it is none. */
static size_t read_head(const uint8_t *p, size_t len, size_t word, struct head *ret) {
  if (len < HEADER || memcmp(p, "TZif", 4) != 0)
    return SIZE_MAX;
  *ret = (struct head){be32(p + 20), be32(p + 24), be32(p + 28), be32(p + 32), be32(p + 36), be32(p + 40)};
  const size_t counts[] = {ret->isut, ret->isstd, ret->leap, ret->times, ret->types, ret->chars};
  for (size_t i = 0; i < 6; i++)
    if (counts[i] > ZONE_FILE_MAX)
      return SIZE_MAX;
  size_t size = ret->times * (word + 1) + ret->types * 6 + ret->chars + ret->leap * (word + 4) + ret->isstd + ret->isut;
  return size <= len - HEADER ? size : SIZE_MAX;
}

static int read_changes(struct zone *z, const uint8_t *p, const struct head *h) {
  const uint8_t *which = p + h->times * 8, *types = which + h->times;
  z->at = calloc(h->times + 1, sizeof *z->at);
  z->offset = calloc(h->times + 1, sizeof *z->offset);
  if (!z->at || !z->offset || !h->types)
    return -1;
  z->first = (int32_t)be32(types);
  for (size_t i = 0; i < h->times; i++) {
    if (which[i] >= h->types)
      return -1;
    z->at[i] = be64(p + i * 8);
    z->offset[i] = (int32_t)be32(types + (size_t)which[i] * 6);
    if ((i && z->at[i] <= z->at[i - 1]) || z->offset[i] <= -OFFSET_MAX || z->offset[i] >= OFFSET_MAX)
      return -1;
    z->count++;
  }
  return z->first > -OFFSET_MAX && z->first < OFFSET_MAX ? 0 : -1;
}

struct zone *zone_parse(const uint8_t *data, size_t len, struct err *err) {
  struct head h;
  struct zone *z = NULL;
  /* A first part with 32 bits for old readers, then the same with 64, then the rule. */
  size_t first = len <= ZONE_FILE_MAX ? read_head(data, len, 4, &h) : SIZE_MAX;
  if (first == SIZE_MAX || data[4] < '2')
    goto bad;
  data += HEADER + first;
  len -= HEADER + first;
  size_t body = read_head(data, len, 8, &h);
  if (body == SIZE_MAX)
    goto bad;
  const uint8_t *rule = data + HEADER + body;
  size_t rest = len - HEADER - body;
  const uint8_t *end = rest > 1 && rule[0] == '\n' ? memchr(rule + 1, '\n', rest - 1) : NULL;
  char text[RULE_MAX];
  if (!end || (size_t)(end - rule) > sizeof text || memchr(rule, 0, (size_t)(end - rule)))
    goto bad;
  memcpy(text, rule + 1, (size_t)(end - rule) - 1);
  text[end - rule - 1] = 0;
  z = calloc(1, sizeof *z);
  if (z && read_changes(z, data + HEADER, &h) == 0 && parse_rule(z, text))
    return z;
bad:
  zone_free(z);
  err_set(err, ERR_INVALID, "not a time zone's file");
  return NULL;
}

struct zone *zone_load(const char *name, struct err *err) {
  static const uint8_t utc[] = "TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\1"
                               "\0\0\0\0\0\0\0"
                               "TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\1"
                               "\0\0\0\0\0\0\0"
                               "\nUTC0\n";
  if (!zone_name_valid(name)) {
    err_set(err, ERR_INVALID, "not a time zone's name");
    return NULL;
  }
  if (is_utc(name))
    return zone_parse(utc, sizeof utc - 1, err);
  int fd = open_zone(name);
  struct stat st;
  uint8_t *data = NULL;
  struct zone *zone = NULL;
  size_t len = 0;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
    err_set(err, ERR_NOT_FOUND, "there is no time zone %s", name);
  } else if (st.st_size <= 0 || st.st_size > (off_t)ZONE_FILE_MAX || !(data = malloc((size_t)st.st_size))) {
    err_set(err, ERR_INVALID, "%s: not a time zone's file", name);
  } else {
    ssize_t got;
    while (len < (size_t)st.st_size && ((got = read(fd, data + len, (size_t)st.st_size - len)) > 0 || (got < 0 && errno == EINTR)))
      len += got > 0 ? (size_t)got : 0;
    zone = zone_parse(data, len, err);
    if (!zone)
      err_context(err, "%s", name);
  }
  if (fd >= 0)
    close(fd);
  free(data);
  return zone;
}

void zone_free(struct zone *zone) {
  if (!zone)
    return;
  free(zone->at);
  free(zone->offset);
  free(zone);
}
