/* The step of a job: what becomes of its runs; and over months of virtual time, with crashes, lost transactions, clocks that are set and put
 * forward and back, against a model that knows which ticks there were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/cron/zone.h"
#include "orca-scheduler/job_core.h"
#include "tests/unit/scheduler/xorshift.h"

#define MAX 64u
#define T0 INT64_C(1772323200000) /* 2026-03-01 00:00 UTC */

struct bench {
  struct job_input in;
  struct job_state state;
  struct job_run runs[MAX + JOB_NEW_RUNS];
  size_t run_count;
  struct job_instance instances[MAX];
  size_t instance_count;
  int64_t now, wall;
  struct job_output out;
};

static void init(struct bench *b, const char *schedule) {
  struct err err;
  memset(b, 0, sizeof *b);
  b->now = b->wall = T0;
  b->in = (struct job_input){.exists = true, .revision = 1, .created_ms = T0, .changed_ms = T0, .revision_known = true, .rules = {.history = 20}};
  if (schedule) {
    b->in.rules.scheduled = true;
    assert_int_equal(cron_parse(schedule, &b->in.rules.cron, &err), 0);
  }
}

/* One step, and what the store would hold after it. */
static void step(struct bench *b) {
  job_step(&b->in, &b->state, b->runs, &b->run_count, b->instances, b->instance_count, b->now, b->wall, &b->out);
  assert_true(b->run_count <= MAX + JOB_NEW_RUNS);
  size_t kept = 0;
  for (size_t i = 0; i < b->instance_count; i++) {
    if (b->instances[i].drop)
      continue;
    if (b->instances[i].stop) {
      b->instances[i].stopped = true;
      b->instances[i].since_ms = b->now;
    }
    b->instances[kept++] = b->instances[i];
  }
  b->instance_count = kept;
  kept = 0;
  for (size_t i = 0; i < b->run_count; i++) {
    if (b->runs[i].create) {
      assert_true(b->instance_count < MAX);
      b->instances[b->instance_count++] =
          (struct job_instance){.number = b->runs[i].instance, .placed = true, .node_exists = true, .since_ms = b->now};
    }
    if (!b->runs[i].forget)
      b->runs[kept++] = b->runs[i];
  }
  b->run_count = kept;
}

static void settle(struct bench *b) {
  for (int i = 0; i < 8; i++)
    step(b);
  for (size_t i = 0; i < b->run_count; i++)
    assert_false(b->runs[i].changed || b->runs[i].create);
  assert_false(b->out.state_changed);
}

static struct job_instance *instance(struct bench *b, uint64_t number) {
  for (size_t i = 0; i < b->instance_count; i++)
    if (b->instances[i].number == number)
      return &b->instances[i];
  return NULL;
}

static void starts(struct bench *b, uint64_t number) {
  struct job_instance *i = instance(b, number);
  assert_non_null(i);
  i->reported = i->running = true;
  i->started_ms = b->now;
}

static void ends(struct bench *b, uint64_t number, int code) {
  struct job_instance *i = instance(b, number);
  assert_non_null(i);
  i->reported = i->ended = i->told = true;
  i->running = false;
  i->exit_code = code;
}

static bool told(const struct bench *b, enum job_event_kind kind) {
  for (size_t i = 0; i < b->out.event_count; i++)
    if (b->out.events[i].kind == kind)
      return true;
  return false;
}

static void one_that_was_asked_for(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  settle(&b);
  assert_int_equal(b.run_count, 0);
  b.in.requested = 1;
  step(&b);
  assert_int_equal(b.run_count, 1);
  assert_int_equal(b.runs[0].number, 1);
  assert_int_equal(b.runs[0].request, 1);
  assert_int_equal(b.runs[0].attempts, 1);
  assert_int_equal(b.instance_count, 1);
  settle(&b);
  starts(&b, 1);
  step(&b);
  assert_true(told(&b, JOB_STARTED));
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_RUNNING);
  ends(&b, 1, 0);
  step(&b);
  assert_true(told(&b, JOB_SUCCEEDED));
  assert_true(b.runs[0].exit_known);
  assert_true(b.instances[0].stopped);
  b.instances[0].reported = false; /* the agent has removed it */
  settle(&b);
  assert_int_equal(b.instance_count, 0);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_SUCCEEDED);
  assert_int_equal(b.state.ended[MODEL__RUN_STATE__RUN_SUCCEEDED], 1);
  assert_int_equal(b.state.last_success_ms, T0);
}

static void its_last_lines_are_waited_for_but_not_for_ever(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 1;
  step(&b);
  ends(&b, 1, 0);
  b.instances[0].told = false;
  step(&b);
  assert_false(b.instances[0].stopped);
  assert_int_equal(b.out.next_ms, b.now + JOB_LAST_LINES_MS);
  b.now = b.out.next_ms;
  step(&b);
  assert_true(b.instances[0].stopped);
}

static void attempts_and_their_backoff(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 1;
  b.in.rules.retries = 2;
  step(&b);
  int64_t waits[] = {1000, 2000};
  for (int k = 0; k < 2; k++) {
    ends(&b, (uint64_t)k + 1, 3);
    step(&b);
    assert_true(told(&b, JOB_RETRIED));
    assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_PENDING);
    assert_int_equal(b.runs[0].next_try_ms, b.now + waits[k]);
    b.instances[0].reported = false;
    settle(&b);
    assert_int_equal(b.out.next_ms, b.now + waits[k]);
    b.now += waits[k] - 1;
    settle(&b);
    assert_int_equal(b.instance_count, 0);
    b.now++;
    step(&b);
    assert_int_equal(b.runs[0].attempts, k + 2);
    assert_int_equal(b.runs[0].instance, k + 2);
  }
  ends(&b, 3, 3);
  step(&b);
  assert_true(told(&b, JOB_FAILED));
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_FAILED);
  assert_int_equal(b.runs[0].exit_code, 3);
}

static void a_lost_node_costs_an_attempt(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 1;
  b.in.rules.retries = 1;
  step(&b);
  starts(&b, 1);
  step(&b);
  b.instances[0].unreachable_ms = b.now;
  settle(&b); /* for a while that means nothing */
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_RUNNING);
  assert_int_equal(b.out.next_ms, b.now + JOB_NODE_LOST_MS);
  b.now += JOB_NODE_LOST_MS;
  step(&b);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_PENDING);
  assert_string_equal(b.runs[0].reason, "its node cannot be reached");
  b.now += 1000;
  step(&b); /* what may still run there is not waited for */
  assert_int_equal(b.runs[0].instance, 2);
  instance(&b, 2)->lost = true;
  step(&b);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_FAILED);
}

static void too_long(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 1;
  b.in.rules.timeout_ms = 5000;
  b.in.rules.retries = 1;
  step(&b);
  starts(&b, 1);
  step(&b);
  assert_int_equal(b.out.next_ms, T0 + 5000);
  b.now += 5000;
  step(&b);
  assert_true(told(&b, JOB_RETRIED));
  assert_true(b.instances[0].stopped);
  b.now += 1000;
  step(&b); /* it still runs: the next attempt waits for its end */
  assert_int_equal(b.instance_count, 1);
  b.instances[0].running = false;
  b.instances[0].ended = true;
  step(&b);
  assert_int_equal(b.runs[0].attempts, 2);
  b.now += 5000;
  step(&b);
  assert_true(told(&b, JOB_TIMED_OUT));
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_TIMED_OUT);
}

static void what_cannot_be_made(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 1;
  step(&b);
  b.instances[0].reported = b.instances[0].cannot_start = true;
  b.instances[0].tries = 2;
  char detail[256]; /* as long as an agent's can be: the cause stands at its end */
  memset(detail, 'x', sizeof detail - 1);
  memcpy(detail + sizeof detail - 15, " no such image", 15);
  b.instances[0].detail = detail;
  settle(&b);
  b.instances[0].tries = 3;
  step(&b);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_FAILED);
  assert_memory_equal(b.runs[0].reason, "cannot be started: xx", 21);
  assert_non_null(strstr(b.runs[0].reason, "x no such image"));
  assert_false(b.runs[0].exit_known);
}

static void overlaps(void **state) {
  (void)state;
  struct bench b;
  init(&b, "* * * * * *");
  step(&b);
  b.now = b.wall = T0 + 1000;
  step(&b);
  starts(&b, 1);
  b.now = b.wall = T0 + 2000;
  step(&b);
  assert_true(told(&b, JOB_SKIPPED));
  b.in.requested = 1;
  step(&b);
  assert_int_equal(b.runs[2].state, MODEL__RUN_STATE__RUN_PENDING);
  assert_string_equal(b.runs[2].reason, "waits for run 1 to end");
  assert_int_equal(b.instance_count, 1);
  b.in.rules.overlap = MODEL__OVERLAP__OVERLAP_REPLACE;
  b.now = b.wall = T0 + 3000;
  step(&b);
  assert_true(told(&b, JOB_STOPPED));
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_STOPPED);
  assert_int_equal(b.runs[2].state, MODEL__RUN_STATE__RUN_STOPPED);
  assert_int_equal(b.instance_count, 1); /* the fourth waits until the first is gone */
  b.instances[0].ended = true;
  step(&b);
  assert_int_equal(b.runs[3].instance, 2);
  b.in.rules.overlap = MODEL__OVERLAP__OVERLAP_ALLOW;
  b.now = b.wall = T0 + 4000;
  step(&b);
  assert_int_equal(b.runs[4].instance, 3);
}

static void history_is_bounded(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.rules.history = 3;
  for (uint64_t n = 1; n <= 10; n++) {
    b.in.requested = n;
    step(&b);
    ends(&b, n, 0);
    step(&b);
    instance(&b, n)->reported = false;
    settle(&b);
  }
  assert_int_equal(b.run_count, 3);
  assert_int_equal(b.runs[0].number, 8);
}

/* Ticks that are skipped in a row push no other run out, and are told once. */
static void skipped_in_a_row(void **state) {
  (void)state;
  struct bench b;
  init(&b, "* * * * * *");
  b.in.rules.history = 2;
  step(&b);
  unsigned told_times = 0;
  for (int n = 1; n <= 30; n++) {
    b.now = b.wall = T0 + n * INT64_C(1000);
    step(&b);
    told_times += told(&b, JOB_SKIPPED);
    if (n == 1)
      ends(&b, 1, 0);
    if (n == 2)
      starts(&b, 2);
  }
  assert_int_equal(told_times, 1);
  settle(&b);
  assert_int_equal(b.run_count, 4);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_SUCCEEDED);
  assert_int_equal(b.runs[1].state, MODEL__RUN_STATE__RUN_RUNNING);
  assert_int_equal(b.state.ended[MODEL__RUN_STATE__RUN_SKIPPED], 28); /* those that are forgotten are counted too */
}

static void stopped_removed_and_again(void **state) {
  (void)state;
  struct bench b;
  init(&b, "0 * * * * *");
  step(&b);
  b.now = b.wall = T0 + 60000;
  step(&b);
  starts(&b, 1);
  b.in.suspended = true;
  step(&b);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_STOPPED);
  assert_int_equal(b.state.next_tick_ms, 0);
  b.instances[0].running = b.instances[0].reported = false;
  settle(&b);
  b.now = b.wall = T0 + 600000;
  settle(&b);
  b.in.suspended = false;
  b.in.changed_ms = b.wall;
  step(&b); /* what would have been meanwhile is not made up for */
  assert_int_equal(b.run_count, 1);
  assert_int_equal(b.state.next_tick_ms, T0 + 660000);
  /* Another job of that name: what was asked of the first counts for nothing. */
  b.state.handled = 5;
  b.in.created_ms = b.in.changed_ms = b.wall = b.now = T0 + 630000;
  b.in.requested = 1;
  step(&b);
  assert_int_equal(b.state.handled, 1);
  assert_int_equal(b.runs[1].number, 2);
  assert_int_equal(b.state.ended[MODEL__RUN_STATE__RUN_STOPPED], 0);
  b.in = (struct job_input){0};
  step(&b);
  assert_int_equal(b.run_count, 1); /* the other's instance was never reported, and went */
  step(&b);
  assert_int_equal(b.instance_count, 0);
  step(&b);
  assert_true(b.out.forget);
  assert_false(b.out.state_changed); /* it goes: it is not written in the same transaction */
}

/* `job rm` takes the history with it, also when the next of that name comes before the scheduler has seen that. */
static void another_job_has_no_history(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 2;
  b.in.rules.overlap = MODEL__OVERLAP__OVERLAP_ALLOW;
  step(&b);
  starts(&b, 1);
  starts(&b, 2);
  ends(&b, 1, 0);
  step(&b);
  b.instances[0].reported = false;
  settle(&b);
  assert_int_equal(b.run_count, 2);
  assert_int_equal(b.instance_count, 1);
  b.in.created_ms = b.in.changed_ms = ++b.now;
  b.in.requested = 1;
  step(&b);
  assert_int_equal(b.run_count, 2); /* the second's instance is still there, and the new one */
  assert_int_equal(b.runs[0].number, 2);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_STOPPED);
  assert_int_equal(b.runs[1].number, 3);
  assert_int_equal(b.state.first_number, 3);
  step(&b);
  b.instances[0].reported = b.instances[0].running = false;
  step(&b);
  assert_int_equal(b.run_count, 1);
  assert_int_equal(b.runs[0].number, 3);
  assert_int_equal(b.runs[0].state, MODEL__RUN_STATE__RUN_PENDING);
}

/* ---- months, against a model ---- */

static uint64_t seed;

static uint64_t random_below(uint64_t n) {
  return xorshift64(&seed) % n;
}

/* What runs of an instance: taken out of the store's reach, as containers are. */
static void world_moves(struct bench *b, bool *ran_twice) {
  unsigned running = 0;
  for (size_t i = 0; i < b->instance_count; i++) {
    struct job_instance *x = &b->instances[i];
    if (x->stopped) {
      if (random_below(2)) {
        x->running = x->reported = false;
        x->ended = true;
      }
    } else if (!x->reported) {
      if (random_below(2)) {
        x->reported = x->running = true;
        x->started_ms = b->now;
      }
    } else if (x->running && random_below(3) == 0) {
      x->running = false;
      x->ended = x->told = true;
      x->exit_code = random_below(4) == 0;
    }
    running += x->running;
  }
  *ran_twice |= running > 1;
}

/* Every tick that the model knows is in exactly one run, or in a gap in which nobody was there, which ends in exactly one run. */
static void months(const char *schedule, const char *zone_name, uint64_t first_seed) {
  struct err err;
  struct zone *zone = strcmp(zone_name, "UTC") == 0 ? NULL : zone_load(zone_name, &err);
  if (strcmp(zone_name, "UTC") != 0 && !zone)
    skip();
  seed = first_seed;
  struct bench b;
  init(&b, schedule);
  b.in.rules.offset = zone ? zone_offset : NULL;
  b.in.rules.offset_arg = zone;
  b.in.rules.retries = 1;
  b.in.rules.history = 5;
  int64_t end = T0 + INT64_C(270) * 86400000, last_seen = 0;
  uint64_t last_number = 0, taken = 0, model_taken = 0;
  int64_t model_next; /* of the model: the first tick that nobody has taken */
  bool doubled = false;
  assert_true(cron_next(&b.in.rules.cron, T0 / 1000, b.in.rules.offset, zone, &model_next));
  while (b.wall < end) {
    struct bench before = b;
    step(&b);
    if (random_below(7) == 0) { /* the transaction was not stored, or the one who made it died before: it begins from the store again */
      int64_t now = b.now, wall = b.wall;
      b = before;
      b.now = now;
      b.wall = wall;
      continue;
    }
    for (size_t i = 0; i < b.run_count; i++) {
      if (b.runs[i].number <= last_number)
        continue;
      assert_int_equal(b.runs[i].number, last_number + 1);
      last_number = b.runs[i].number;
      taken++;
      assert_true(b.runs[i].scheduled_ms > last_seen); /* none twice, none out of order */
      assert_int_equal(b.runs[i].scheduled_ms, model_next * 1000);
      last_seen = b.runs[i].scheduled_ms;
      model_taken++;
      /* All that are due by now are made up for by this one. */
      assert_true(model_next * 1000 <= b.wall);
      assert_true(cron_next(&b.in.rules.cron, b.wall / 1000, b.in.rules.offset, zone, &model_next));
    }
    if (model_next * 1000 <= b.wall)
      fail_msg("%s %s: the tick at %lld was due at %lld and not taken (seed %llu)", schedule, zone_name, (long long)model_next,
               (long long)b.wall / 1000, (unsigned long long)first_seed);
    world_moves(&b, &doubled);
    /* On to the next moment, in one of the ways in which time goes on. */
    int64_t by = b.out.next_ms == JOB_NEVER ? 60000 : b.out.next_ms - b.now, by_tick = b.out.next_wall_ms - b.wall;
    by = by < by_tick ? by : by_tick;
    if (random_below(20) == 0)
      by = (int64_t)random_below(UINT64_C(9) * 86400000); /* nobody was there */
    else if (by > 1000 && random_below(3) == 0)
      by = (int64_t)random_below((uint64_t)by) + 1; /* something else woke it */
    by = by < 1 ? 1 : by;
    b.now += by;
    b.wall += by;
    if (random_below(50) == 0)
      b.wall += (int64_t)random_below(7200000); /* somebody sets the clock */
    if (random_below(50) == 0) {
      int64_t back = (int64_t)random_below((uint64_t)JOB_CLOCK_BACK / 2);
      if (b.wall - back > last_seen - JOB_CLOCK_BACK / 2)
        b.wall -= back;
    }
    if (b.wall < T0)
      b.wall = T0;
  }
  assert_true(taken == model_taken && taken > 20);
  assert_false(doubled);
  zone_free(zone);
}

static void months_of_ticks(void **state) {
  (void)state;
  const char *more = getenv("ORCA_SEEDS");
  uint64_t seeds = more ? strtoull(more, NULL, 10) : 3;
  for (uint64_t n = 1; n <= seeds; n++) {
    months("0 30 2 * * *", "Europe/Berlin", n * 7919);
    months("0 15 1,2,3 * * *", "America/New_York", n * 104729);
    months("0 0 */6 * * *", "UTC", n * 1299709);
    months("0 0 12 * * MON-FRI", "Australia/Lord_Howe", n * 15485863);
  }
}

/* A clock that was wrong by far and is put right does not keep a job from running until that time has come. */
static void a_clock_that_was_a_year_ahead(void **state) {
  (void)state;
  struct bench b;
  init(&b, "0 0 * * * *");
  step(&b);
  b.wall += INT64_C(365) * 86400000;
  step(&b);
  assert_int_equal(b.run_count, 1);
  ends(&b, 1, 0);
  b.wall = T0 + 1800000;
  step(&b);
  step(&b);
  assert_int_equal(b.run_count, 1);
  assert_int_equal(b.state.next_tick_ms, T0 + 3600000);
  b.wall = T0 + 3600000;
  step(&b);
  assert_int_equal(b.run_count, 2);
}

/* The same while it had no tick yet: a job that came, or was changed, by that clock. */
static void a_job_from_a_year_ahead(void **state) {
  (void)state;
  struct bench b;
  init(&b, "0 0 * * * *");
  b.wall = b.in.changed_ms = b.in.created_ms = T0 + INT64_C(365) * 86400000;
  step(&b);
  assert_int_equal(b.state.next_tick_ms, b.wall + 3600000);
  b.wall = T0 + 1800000;
  step(&b);
  assert_int_equal(b.state.next_tick_ms, T0 + 3600000);
  settle(&b);
  b.wall = T0 + 3600000;
  step(&b);
  assert_int_equal(b.run_count, 1);
  settle(&b);
  assert_int_equal(b.state.next_tick_ms, T0 + 2 * 3600000);
}

/* What runs out of time, or waits, since a time that has not come yet: as if that were now. */
static void times_of_a_clock_that_was_ahead(void **state) {
  (void)state;
  struct bench b;
  init(&b, NULL);
  b.in.requested = 1;
  b.in.rules.retries = 1;
  step(&b);
  b.now += INT64_C(365) * 86400000;
  ends(&b, 1, 3);
  step(&b);
  b.instances[0].reported = false;
  settle(&b);
  b.now -= INT64_C(365) * 86400000;
  step(&b);
  assert_int_equal(b.runs[0].attempts, 2);
  b.now += INT64_C(365) * 86400000;
  ends(&b, 2, 0);
  b.instances[0].told = false;
  step(&b);
  assert_false(b.instances[0].stopped);
  b.now -= INT64_C(365) * 86400000;
  step(&b);
  assert_true(b.instances[0].stopped);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_that_was_asked_for),
      cmocka_unit_test(its_last_lines_are_waited_for_but_not_for_ever),
      cmocka_unit_test(attempts_and_their_backoff),
      cmocka_unit_test(a_lost_node_costs_an_attempt),
      cmocka_unit_test(too_long),
      cmocka_unit_test(what_cannot_be_made),
      cmocka_unit_test(overlaps),
      cmocka_unit_test(history_is_bounded),
      cmocka_unit_test(skipped_in_a_row),
      cmocka_unit_test(stopped_removed_and_again),
      cmocka_unit_test(another_job_has_no_history),
      cmocka_unit_test(months_of_ticks),
      cmocka_unit_test(a_clock_that_was_a_year_ahead),
      cmocka_unit_test(a_job_from_a_year_ahead),
      cmocka_unit_test(times_of_a_clock_that_was_ahead),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
