#include "common/cron/cron.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DAY 86400
#define YEARS_AHEAD 9 /* a 29th of February may be eight years away: 2096 to 2104 */

struct field {
  const char *name;
  unsigned low, high;
  const char *const *words; /* of low, low + 1 … */
};

static const char *const month_words[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC", NULL};
static const char *const day_words[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL};
static const struct field fields[6] = {{"second", 0, 59, NULL},       {"minute", 0, 59, NULL},       {"hour", 0, 23, NULL},
                                       {"day of month", 1, 31, NULL}, {"month", 1, 12, month_words}, {"day of week", 0, 7, day_words}};

static bool number(const char **s, unsigned *ret) {
  const char *c = *s;
  unsigned v = 0;
  while (*c >= '0' && *c <= '9' && c - *s < 4)
    v = v * 10 + (unsigned)(*c++ - '0');
  if (c == *s)
    return false;
  *s = c;
  *ret = v;
  return true;
}

static bool value(const struct field *f, const char **s, unsigned *ret) {
  for (unsigned i = 0; f->words && f->words[i]; i++) {
    if (strncasecmp(*s, f->words[i], 3) == 0) {
      *s += 3;
      *ret = f->low + i;
      return true;
    }
  }
  return number(s, ret) && *ret >= f->low && *ret <= f->high;
}

static bool item(const struct field *f, const char **s, uint64_t *bits, bool *any) {
  unsigned from = f->low, to = f->high, step = 1;
  bool star = **s == '*' || **s == '?', range = star;
  if (star) {
    (*s)++;
  } else {
    if (!value(f, s, &from))
      return false;
    to = from;
    if (**s == '-') {
      (*s)++;
      range = true;
      if (!value(f, s, &to) || to < from)
        return false;
    }
  }
  if (**s == '/') {
    (*s)++;
    if (!number(s, &step) || step == 0)
      return false;
    if (!range) /* "3/10": from 3 on */
      to = f->high;
  } else if (star) {
    *any = true;
  }
  for (unsigned v = from; v <= to; v += step)
    *bits |= UINT64_C(1) << v;
  return true;
}

static int field(const struct field *f, const char *text, size_t len, uint64_t *ret, bool *ret_any, struct err *err) {
  char copy[256];
  *ret = 0;
  *ret_any = false;
  if (len < sizeof copy) {
    memcpy(copy, text, len);
    copy[len] = 0;
    for (const char *s = copy; item(f, &s, ret, ret_any); s++) {
      if (*s == 0)
        return 0;
      if (*s != ',')
        break;
    }
  }
  return err_set(err, ERR_INVALID, "the %s `%.*s` is not one of %u to %u, *, a range, a step or a list", f->name, (int)(len < 60 ? len : 60), text,
                 f->low, f->name[0] == 'd' && f->low == 0 ? 6 : f->high);
}

static const char *macro(const char *text) {
  static const char *const names[][2] = {{"@hourly", "0 0 * * * *"},  {"@daily", "0 0 0 * * *"},   {"@midnight", "0 0 0 * * *"},
                                         {"@weekly", "0 0 0 * * 0"},  {"@monthly", "0 0 0 1 * *"}, {"@yearly", "0 0 0 1 1 *"},
                                         {"@annually", "0 0 0 1 1 *"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(text, names[i][0]) == 0)
      return names[i][1];
  return text;
}

int cron_parse(const char *text, struct cron *ret, struct err *err) {
  const char *at[6];
  size_t len[6];
  unsigned count = 0;
  for (const char *s = macro(text);;) {
    s += strspn(s, " \t");
    if (!*s)
      break;
    if (count == 6)
      return err_set(err, ERR_INVALID, "a cron expression has six fields (seconds first), or five");
    at[count] = s;
    len[count] = strcspn(s, " \t");
    s += len[count++];
  }
  if (count < 5)
    return err_set(err, ERR_INVALID, "a cron expression has six fields (seconds first), or five");
  uint64_t bits[6] = {1};
  bool any[6] = {false};
  for (unsigned i = 0; i < count; i++) {
    unsigned n = i + (6 - count);
    if (field(&fields[n], at[i], len[i], &bits[n], &any[n], err) < 0)
      return -1;
  }
  *ret = (struct cron){.seconds = bits[0],
                       .minutes = bits[1],
                       .hours = (uint32_t)bits[2],
                       .days = (uint32_t)bits[3],
                       .months = (uint32_t)bits[4],
                       .weekdays = (uint8_t)((bits[5] & 0x7f) | (bits[5] >> 7 & 1)),
                       .any_day = any[3],
                       .any_weekday = any[5]};
  return 0;
}

/* ---- the calendar: days since 1970-01-01, proleptic Gregorian ---- */

struct date {
  int64_t year;
  unsigned month, day;
};

static int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

static int64_t days_of(int64_t year, unsigned month, unsigned day) {
  year -= month <= 2; /* years that begin in March, so that the leap day is their last */
  int64_t era = floor_div(year, 400), of_era = year - era * 400;
  int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static struct date date_of(int64_t days) {
  days += 719468;
  int64_t era = floor_div(days, 146097), of_era = days - era * 146097;
  int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  int64_t of_year = of_era - (365 * year + year / 4 - year / 100), part = (5 * of_year + 2) / 153;
  unsigned month = (unsigned)(part < 10 ? part + 3 : part - 9);
  return (struct date){year + era * 400 + (month <= 2), month, (unsigned)(of_year - (153 * part + 2) / 5 + 1)};
}

static bool day_matches(const struct cron *c, int64_t days, const struct date *d) {
  unsigned weekday = (unsigned)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
  bool by_day = c->days >> d->day & 1, by_weekday = c->weekdays >> weekday & 1;
  if (!(c->months >> d->month & 1))
    return false;
  return c->any_day || c->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

static int lowest(uint64_t bits, unsigned from) {
  bits = from < 64 ? bits >> from << from : 0;
  return bits ? __builtin_ctzll(bits) : -1;
}

/* The first time of day at or after `from` (seconds), or -1. */
static int time_in_day(const struct cron *c, int from) {
  int h = from / 3600, m = from / 60 % 60, s = from % 60;
  int hour = lowest(c->hours, (unsigned)h);
  if (hour > h)
    m = s = 0;
  while (hour >= 0) {
    int minute = lowest(c->minutes, (unsigned)m);
    if (minute > m)
      s = 0;
    int second = minute >= 0 ? lowest(c->seconds, (unsigned)s) : -1;
    if (minute >= 0 && second < 0) {
      minute = lowest(c->minutes, (unsigned)minute + 1);
      second = minute >= 0 ? lowest(c->seconds, 0) : -1;
    }
    if (second >= 0)
      return hour * 3600 + minute * 60 + second;
    hour = lowest(c->hours, (unsigned)hour + 1);
    m = s = 0;
  }
  return -1;
}

/* By a clock that is never put forward or back: the first match at or after `from`. */
static bool next_by_clock(const struct cron *c, int64_t from, int64_t *ret) {
  int64_t days = floor_div(from, DAY);
  int start = (int)(from - days * DAY);
  struct date d = date_of(days);
  for (int64_t last = d.year + YEARS_AHEAD; d.year <= last; d = date_of(days), start = 0) {
    if (!(c->months >> d.month & 1)) {
      days = d.month == 12 ? days_of(d.year + 1, 1, 1) : days_of(d.year, d.month + 1, 1);
      continue;
    }
    int at = day_matches(c, days, &d) ? time_in_day(c, start) : -1;
    if (at >= 0) {
      *ret = days * DAY + at;
      return true;
    }
    days++;
  }
  return false;
}

/* ---- clocks that are put forward and back ---- */

static int32_t utc(void *arg, int64_t at) {
  (void)arg;
  (void)at;
  return 0;
}

/* The first moment in (low, high] with the offset that holds at high; there is one change between them. */
static int64_t change(cron_offset_fn *offset, void *arg, int64_t low, int64_t high) {
  int32_t after = offset(arg, high);
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    if (offset(arg, middle) == after)
      high = middle;
    else
      low = middle;
  }
  return high;
}

/* When clocks show this: the first time they do; the end of the gap when they never do. */
static int64_t moment_of(cron_offset_fn *offset, void *arg, int64_t clock) {
  int32_t before = offset(arg, clock - DAY), after = offset(arg, clock + DAY);
  int64_t early = clock - before, late = clock - after;
  bool early_ok = offset(arg, early) == before, late_ok = offset(arg, late) == after;
  if (early_ok && late_ok)
    return early < late ? early : late;
  if (early_ok || late_ok)
    return early_ok ? early : late;
  return late < early ? change(offset, arg, late, early) : change(offset, arg, early, late);
}

bool cron_next(const struct cron *cron, int64_t after, cron_offset_fn *offset, void *arg, int64_t *ret) {
  const uint32_t every_hour = (1u << 24) - 1;
  if (!offset)
    offset = utc;
  if (cron->hours == every_hour) {
    int64_t at = after + 1;
    for (int changes = 0; changes < 2 * (YEARS_AHEAD + 1) * 12; changes++) {
      int32_t here = offset(arg, at);
      int64_t clock;
      if (!next_by_clock(cron, at + here, &clock))
        return false;
      int64_t found = clock - here;
      if (offset(arg, found) == here) {
        *ret = found;
        return true;
      }
      at = change(offset, arg, at, found);
    }
    return false;
  }
  for (int64_t clock = after + offset(arg, after);; clock++) {
    if (!next_by_clock(cron, clock, &clock))
      return false;
    int64_t found = moment_of(offset, arg, clock);
    if (found > after) {
      *ret = found;
      return true;
    }
  }
}
