/* Cron expressions: six fields (seconds first), or five, then seconds are 0.
 *
 *   second minute hour day-of-month month day-of-week      "0 30 2 * * *", "0/5 * * * *", "0 0 9 * * MON-FRI"
 *
 * A field is * or ?, a number, a name (JAN, MON; 0 and 7 are Sunday), a range, either with /STEP, or a list of those. When both kinds of day
 * are restricted, either will do, as in cron(5). @hourly, @daily, @weekly, @monthly and @yearly stand for the usual expressions.
 * Threads: pure functions. Times are Unix seconds. */
#ifndef ORCA_COMMON_CRON_CRON_H
#define ORCA_COMMON_CRON_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct cron { /* a bit for each value */
  uint64_t seconds, minutes;
  uint32_t hours, days, months;
  uint8_t weekdays;
  bool any_day, any_weekday; /* written as * */
};

int cron_parse(const char *text, struct cron *ret, struct err *err);

/* Seconds east of UTC at this time; NULL stands for UTC. */
typedef int32_t cron_offset_fn(void *arg, int64_t at);

/* The first occurrence after `after`, by the clocks of the place that `offset` describes. When these clocks are put forward, what falls into the
 * gap happens at its end; when they are put back, what falls into the repeated hour happens once, the first time. An expression for every hour goes
 * by elapsed time instead: both hours count. false: it never happens (the 30th of February). */
bool cron_next(const struct cron *cron, int64_t after, cron_offset_fn *offset, void *arg, int64_t *ret);

#endif
