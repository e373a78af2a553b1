/* Cron: what parses, when it is next, and against a model that tries every second. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "common/cron/cron.h"

static int64_t at(const char *text) {
  struct tm tm = {0};
  assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
  return timegm(&tm);
}

/* Berlin in 2026: +1, +2 from 03-29 01:00 UTC to 10-25 01:00 UTC. */
static int32_t berlin(void *arg, int64_t when) {
  (void)arg;
  return when >= at("2026-03-29 01:00:00") && when < at("2026-10-25 01:00:00") ? 7200 : 3600;
}

static void next_is(const char *expression, const char *after, cron_offset_fn *zone, const char *next) {
  struct cron c;
  struct err err;
  int64_t found = 0;
  if (cron_parse(expression, &c, &err) < 0)
    fail_msg("%s: %s", expression, err.msg);
  bool any = cron_next(&c, at(after), zone, NULL, &found);
  if (!next) {
    assert_false(any);
    return;
  }
  char text[32];
  time_t t = found;
  struct tm tm;
  strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", gmtime_r(&t, &tm));
  if (!any || strcmp(text, next) != 0)
    fail_msg("%s after %s: %s, not %s", expression, after, text, next);
}

static void test_next(void **state) {
  (void)state;
  next_is("0 0 3 * * *", "2026-11-21 12:00:00", NULL, "2026-11-22 03:00:00");
  next_is("0 3 * * *", "2026-11-21 12:00:00", NULL, "2026-11-22 03:00:00");
  next_is("0 3 * * *", "2026-11-21 03:00:00", NULL, "2026-11-22 03:00:00");
  next_is("0 3 * * *", "2026-11-21 02:59:59", NULL, "2026-11-21 03:00:00");
  next_is("* * * * * *", "2026-11-21 12:00:00", NULL, "2026-11-21 12:00:01");
  next_is("*/15 * * * * *", "2026-12-31 23:59:50", NULL, "2027-01-01 00:00:00");
  next_is("0 0 */4 * * *", "2026-11-21 12:00:00", NULL, "2026-11-21 16:00:00");
  next_is("5/20 * * * *", "2026-11-21 12:26:00", NULL, "2026-11-21 12:45:00");
  next_is("30 10,40 9-17/4 * * *", "2026-11-21 09:40:30", NULL, "2026-11-21 13:10:30");
  next_is("0 0 9 * * MON-FRI", "2026-11-20 09:00:00", NULL, "2026-11-23 09:00:00"); /* a Friday */
  next_is("0 0 9 * * 7", "2026-11-21 12:00:00", NULL, "2026-11-22 09:00:00");
  next_is("0 0 9 * * 0", "2026-11-21 12:00:00", NULL, "2026-11-22 09:00:00");
  next_is("0 0 0 31 * *", "2026-11-21 12:00:00", NULL, "2026-12-31 00:00:00");
  next_is("0 0 0 29 feb *", "2026-11-21 12:00:00", NULL, "2028-02-29 00:00:00");
  next_is("0 0 0 29 2 ?", "2096-03-01 00:00:00", NULL, "2104-02-29 00:00:00");
  next_is("0 0 0 30 2 *", "2026-11-21 12:00:00", NULL, NULL);
  next_is("0 0 0 13 * FRI", "2026-11-21 12:00:00", NULL, "2026-11-27 00:00:00"); /* either kind of day */
  next_is("0 0 0 1 JAN-MAR/2 *", "2026-11-21 12:00:00", NULL, "2027-01-01 00:00:00");
  next_is("@hourly", "2026-11-21 12:00:00", NULL, "2026-11-21 13:00:00");
  next_is("@monthly", "2026-11-21 12:00:00", NULL, "2026-12-01 00:00:00");
  next_is("0 0 0 1 1 *", "1969-06-01 00:00:00", NULL, "1970-01-01 00:00:00");
  /* put forward: 02:00 to 03:00 are missing on 29 March */
  next_is("0 30 2 * * *", "2026-03-28 12:00:00", berlin, "2026-03-29 01:00:00");
  next_is("0 30 2 * * *", "2026-03-29 01:00:00", berlin, "2026-03-30 00:30:00");
  next_is("0 0 3 * * *", "2026-03-28 12:00:00", berlin, "2026-03-29 01:00:00");
  next_is("0 */30 * * * *", "2026-03-29 00:30:00", berlin, "2026-03-29 01:00:00");
  /* put back: 02:00 to 03:00 come twice on 25 October */
  next_is("0 30 2 * * *", "2026-10-24 12:00:00", berlin, "2026-10-25 00:30:00");
  next_is("0 30 2 * * *", "2026-10-25 00:30:00", berlin, "2026-10-26 01:30:00");
  next_is("0 0 3 * * *", "2026-10-25 00:30:00", berlin, "2026-10-25 02:00:00");
  next_is("0 */30 * * * *", "2026-10-25 00:30:00", berlin, "2026-10-25 01:00:00");
  next_is("0 */30 * * * *", "2026-10-25 01:00:00", berlin, "2026-10-25 01:30:00");
}

static void test_faults(void **state) {
  (void)state;
  static const char *const wrong[] = {"",
                                      "*",
                                      "* * * *",
                                      "* * * * * * *",
                                      "60 * * * * *",
                                      "* 60 * * * *",
                                      "* * 24 * * *",
                                      "0 0 0 0 * *",
                                      "0 0 0 32 * *",
                                      "0 0 0 * 13 *",
                                      "0 0 0 * 0 *",
                                      "0 0 0 * * 8",
                                      "*/0 * * * *",
                                      "5-1 * * * *",
                                      "a * * * *",
                                      "1, * * * *",
                                      ",1 * * * *",
                                      "1- * * * *",
                                      "-1 * * * *",
                                      "1/ * * * *",
                                      "** * * * *",
                                      "1.5 * * * *",
                                      "FEB * * * *",
                                      "@never",
                                      "99999 * * * *",
                                      "* * * MONDAY *",
                                      "1-2-3 * * * *",
                                      "*/1/2 * * * *"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct cron c;
    struct err err = {0};
    if (cron_parse(wrong[i], &c, &err) == 0)
      fail_msg("%s parses", wrong[i]);
    assert_int_equal(err.code, ERR_INVALID);
  }
}

static bool matches(const struct cron *c, int64_t clock) {
  time_t t = clock;
  struct tm tm;
  gmtime_r(&t, &tm);
  bool day = c->days >> tm.tm_mday & 1, weekday = c->weekdays >> tm.tm_wday & 1;
  return (c->seconds >> tm.tm_sec & 1) && (c->minutes >> tm.tm_min & 1) && (c->hours >> tm.tm_hour & 1) && (c->months >> (tm.tm_mon + 1) & 1) &&
         (c->any_day || c->any_weekday ? day && weekday : day || weekday);
}

static void test_model(void **state) {
  (void)state;
  uint64_t rng = 7;
  for (int round = 0; round < 60; round++) {
    struct cron c = {.any_day = round % 3 == 0, .any_weekday = round % 2 == 0};
    for (int i = 0; i < 4; i++) {
      rng = rng * 6364136223846793005u + 1442695040888963407u;
      c.seconds |= UINT64_C(1) << (rng >> 33) % 60;
      c.minutes |= UINT64_C(1) << (rng >> 40) % 60;
      c.hours |= 1u << (rng >> 48) % 24;
      c.days |= 1u << (1 + (rng >> 50) % 31);
      c.weekdays |= (uint8_t)(1u << (rng >> 52) % 7);
    }
    c.months = 0x1ffe;
    int64_t after = at("2026-11-21 12:00:00") + (int64_t)((rng >> 20) % 100000), found, tried = after + 1;
    assert_true(cron_next(&c, after, NULL, NULL, &found));
    while (tried < found && !matches(&c, tried) && tried < after + 200000)
      tried++;
    if (tried < after + 200000)
      assert_int_equal(tried, found);
    assert_true(matches(&c, found));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_next), cmocka_unit_test(test_faults), cmocka_unit_test(test_model)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
