/* Time zones, against the C library's own reading of the same files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "common/cron/cron.h"
#include "common/cron/zone.h"

static void same_as_libc(const char *name) {
  struct err err;
  struct zone *zone = zone_load(name, &err);
  if (!zone)
    fail_msg("%s: %s", name, err.msg);
  setenv("TZ", name, 1);
  tzset();
  uint64_t random = 88172645463325252u;
  for (int i = 0; i < 20000; i++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    /* 1900 to 2400, and every hour of some years around the file's end */
    time_t at = i < 10000 ? (time_t)(random % 15778800000u) - 2208988800 : 2114380800 + (time_t)(i - 10000) * 3600 * 7;
    struct tm tm;
    assert_non_null(localtime_r(&at, &tm));
    if (zone_offset(zone, at) != tm.tm_gmtoff)
      fail_msg("%s at %lld: %d, libc says %ld", name, (long long)at, zone_offset(zone, at), tm.tm_gmtoff);
  }
  zone_free(zone);
}

static void the_same_as_the_c_library(void **state) {
  (void)state;
  struct err err;
  struct zone *there = zone_load("Europe/Berlin", &err);
  if (!there)
    skip(); /* a machine without tzdata */
  zone_free(there);
  static const char *const names[] = {"UTC",          "Europe/Berlin",    "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe",
                                      "Asia/Kolkata", "Pacific/Auckland", "America/St_Johns", "Africa/Casablanca", "Etc/GMT+5"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    same_as_libc(names[i]);
}

static void names(void **state) {
  (void)state;
  struct err err;
  static const char *const bad[] = {"", "/etc/passwd", "../x", "Europe/../Berlin", "Europe//Berlin", "Europe/", ".", "a b", "x\n", "Euro;pe"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_false(zone_name_valid(bad[i]));
    assert_false(zone_exists(bad[i]));
    assert_null(zone_load(bad[i], &err));
  }
  assert_true(zone_name_valid("America/Argentina/Buenos_Aires"));
  assert_true(zone_exists("UTC"));
  assert_null(zone_load("Mars/Olympus", &err));
}

static void damaged_files(void **state) {
  (void)state;
  struct err err;
  uint8_t file[200];
  memset(file, 0xff, sizeof file);
  static const uint8_t magic[5] = {'T', 'Z', 'i', 'f', '2'};
  memcpy(file, magic, sizeof magic);
  for (size_t len = 0; len <= sizeof file; len++)
    assert_null(zone_parse(file, len, &err));
  memset(file + 5, 0, sizeof file - 5);
  for (size_t len = 0; len <= sizeof file; len++)
    assert_null(zone_parse(file, len, &err));
}

/* A file of one type and no changes, with this rule behind it. */
static struct zone *by_rule(const char *rule) {
  uint8_t file[600] = {0};
  struct err err;
  size_t len = 0;
  for (int part = 0; part < 2; part++) {
    memcpy(file + len, (const uint8_t[]){'T', 'Z', 'i', 'f', '2'}, 5);
    file[len + 39] = 1;
    file[len + 43] = 1;
    len += 44 + 6 + 1;
  }
  len += (size_t)snprintf((char *)file + len, sizeof file - len, "\n%s\n", rule);
  return zone_parse(file, len, &err);
}

static void rules(void **state) {
  (void)state;
  static const struct {
    const char *rule;
    int64_t at;
    int32_t offset;
  } good[] = {
      {"UTC0", 0, 0},
      {"<+0330>-3:30", 0, 12600},
      {"AAA+4:30:15", 0, -16215},
      {"AAA-25:59", 0, 93540},
      {"AAA0BBB,J60/0,J61/0", 68169600, 0},            /* 1972-02-29: the leap day has no number */
      {"AAA0BBB,J60/0,J61/0", 68256000, 3600},         /* 1972-03-01 */
      {"AAA0BBB,59/0,60/0", 68169600, 3600},           /* here it has */
      {"AAA0BBB-2,M1.5.6/0,M12.1.0/0", 2678400, 7200}, /* 1970-02-01: since the last Saturday of January */
      {"AAA3BBB,M10.1.0/0,M3.1.0/0", 2678400, -7200},  /* south: summer around the new year */
      {"AAA3BBB,M10.1.0/0,M3.1.0/0", 15552000, -10800},
      {"AAA0BBB-1,M3.5.0/-1,M10.5.0/167", 31536000, 0},
  };
  static const char *const bad[] = {"AA0",
                                    "AAA",
                                    "<AAA0",
                                    "AAA26",
                                    "AAA-26",
                                    "AAA0BB",
                                    "AAA0BBB",
                                    "AAA0BBB,J0,J1",
                                    "AAA0BBB,J1",
                                    "AAA0BBB,J366,1",
                                    "AAA0BBB,366,1",
                                    "AAA0BBB,M0.1.0,1",
                                    "AAA0BBB,M13.1.0,1",
                                    "AAA0BBB,M1.0.0,1",
                                    "AAA0BBB,M1.6.0,1",
                                    "AAA0BBB,M1.1.7,1",
                                    "AAA0BBB,1/168,2",
                                    "AAA0BBB,1,2x",
                                    "AAA0BBB26,1,2",
                                    "AAA0:60",
                                    "AAA0BBB,1/,2",
                                    "AAA0BBB1:,1,2"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    struct zone *zone = by_rule(good[i].rule);
    if (!zone)
      fail_msg("%s", good[i].rule);
    if (zone_offset(zone, good[i].at) != good[i].offset)
      fail_msg("%s at %lld: %d", good[i].rule, (long long)good[i].at, zone_offset(zone, good[i].at));
    zone_free(zone);
  }
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    if (by_rule(bad[i]))
      fail_msg("%s", bad[i]);
}

/* What cron makes of it: in the gap at its end, in the repeated hour once. */
static void cron_by_a_zone(void **state) {
  (void)state;
  struct err err;
  struct zone *berlin = zone_load("Europe/Berlin", &err);
  if (!berlin)
    skip();
  struct cron cron;
  int64_t at;
  assert_int_equal(cron_parse("0 30 2 * * *", &cron, &err), 0);
  /* 2026-03-29 has no 02:30 */
  assert_true(cron_next(&cron, 1774742400, zone_offset, berlin, &at));
  assert_int_equal(at, 1774746000); /* 03:00 summer time = 01:00 UTC */
  /* 2026-10-25 has two */
  assert_true(cron_next(&cron, 1792879200, zone_offset, berlin, &at));
  assert_int_equal(at, 1792888200); /* 00:30 UTC, the first */
  assert_true(cron_next(&cron, at, zone_offset, berlin, &at));
  assert_int_equal(at, 1792978200); /* the next day, 01:30 UTC */
  zone_free(berlin);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_same_as_the_c_library),
      cmocka_unit_test(names),
      cmocka_unit_test(damaged_files),
      cmocka_unit_test(rules),
      cmocka_unit_test(cron_by_a_zone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
