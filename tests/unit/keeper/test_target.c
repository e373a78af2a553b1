/* Probes and targets as state machines: what is tried when, what it means, and that no sequence of results breaks an invariant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-keeper/target.h"

#define T0 (1000 * NS_PER_SEC)
#define SEED UINT64_C(0x1234567)

static const struct keeper_probe_rules plain = {
    .interval = 10 * NS_PER_SEC, .timeout = 3 * NS_PER_SEC, .failure_threshold = 3, .success_threshold = 1};

/* Tries at next_at, as long as the results say; each try takes `takes`. Returns the time of the last result. */
static int64_t play(struct keeper_probe *p, const char *results, int64_t takes, bool *changed) {
  int64_t now = 0;
  for (; *results; results++) {
    now = p->next_at;
    assert_true(keeper_probe_step(p, KEEPER_PROBE_TIME, now).try_now);
    now += takes;
    struct keeper_probe_step step = keeper_probe_step(p, *results == '+' ? KEEPER_PROBE_SUCCESS : KEEPER_PROBE_FAILURE, now);
    *changed = step.changed;
  }
  return now;
}

static void test_ready_at_once(void **state) {
  (void)state;
  struct keeper_probe p;
  bool changed;
  keeper_probe_begin(&p, KEEPER_READINESS, &plain, T0, SEED, T0);
  assert_int_equal(play(&p, "+", NS_PER_MS, &changed) - T0, 21 * NS_PER_MS);
  assert_true(changed);
  assert_int_equal(p.opinion, KEEPER_PASSES);
  /* From then on, by its interval. */
  int64_t first = p.next_at;
  assert_true(first > T0 && first <= T0 + 20 * NS_PER_SEC);
  play(&p, "+", NS_PER_MS, &changed);
  assert_int_equal(p.next_at - first, plain.interval);
  assert_false(changed);
}

static void test_early_tries(void **state) {
  (void)state;
  struct keeper_probe p;
  static const int64_t due[] = {20, 50, 100, 200, 500, 1000, 2000, 4000, 8000};
  keeper_probe_begin(&p, KEEPER_READINESS, &plain, T0, SEED, T0);
  for (size_t i = 0; i < sizeof due / sizeof *due; i++) {
    assert_int_equal(p.next_at - T0, due[i] * NS_PER_MS);
    assert_true(keeper_probe_step(&p, KEEPER_PROBE_TIME, p.next_at).try_now);
    keeper_probe_step(&p, KEEPER_PROBE_FAILURE, T0 + due[i] * NS_PER_MS + 1);
    assert_int_equal(p.opinion, KEEPER_UNDECIDED);
    assert_int_equal(p.failures, 1);
  }
}

static void test_slow_starter_keeps_its_patience(void **state) {
  (void)state;
  /* Whatever its phase: not failed before threshold - 1 intervals, failed within one more than threshold. */
  for (uint64_t seed = 0; seed < 200; seed++) {
    struct keeper_probe p;
    keeper_probe_begin(&p, KEEPER_STARTUP, &plain, T0, seed * UINT64_C(0x9E3779B97F4A7C15), T0);
    int64_t now = T0;
    while (p.opinion == KEEPER_UNDECIDED) {
      now = p.next_at;
      assert_true(keeper_probe_step(&p, KEEPER_PROBE_TIME, now).try_now);
      keeper_probe_step(&p, KEEPER_PROBE_FAILURE, now);
    }
    assert_int_equal(p.opinion, KEEPER_FAILS);
    assert_true(now - T0 >= 2 * plain.interval);
    assert_true(now - T0 <= 4 * plain.interval);
  }
}

static void test_initial_delay(void **state) {
  (void)state;
  struct keeper_probe_rules rules = plain;
  rules.initial_delay = 5 * NS_PER_SEC;
  struct keeper_probe p;
  keeper_probe_begin(&p, KEEPER_READINESS, &rules, T0, SEED, T0);
  assert_int_equal(p.next_at - T0, 5 * NS_PER_SEC);
  assert_false(keeper_probe_step(&p, KEEPER_PROBE_TIME, T0 + 4 * NS_PER_SEC).try_now);
  keeper_probe_begin(&p, KEEPER_LIVENESS, &rules, T0, SEED, T0);
  assert_true(p.next_at >= T0 + 5 * NS_PER_SEC && p.next_at < T0 + 15 * NS_PER_SEC);
}

static void test_thresholds(void **state) {
  (void)state;
  struct keeper_probe_rules rules = plain;
  rules.success_threshold = 2;
  struct keeper_probe p;
  bool changed;
  keeper_probe_begin(&p, KEEPER_READINESS, &rules, T0, SEED, T0);
  play(&p, "+", 0, &changed);
  assert_int_equal(p.opinion, KEEPER_UNDECIDED);
  play(&p, "-+", 0, &changed);
  assert_int_equal(p.opinion, KEEPER_UNDECIDED);
  play(&p, "+", 0, &changed);
  assert_int_equal(p.opinion, KEEPER_PASSES);
  play(&p, "--", 0, &changed);
  assert_int_equal(p.opinion, KEEPER_PASSES);
  play(&p, "-", 0, &changed);
  assert_true(changed);
  assert_int_equal(p.opinion, KEEPER_FAILS);
  play(&p, "+", 0, &changed);
  assert_int_equal(p.opinion, KEEPER_FAILS);
  play(&p, "+", 0, &changed);
  assert_int_equal(p.opinion, KEEPER_PASSES);
}

static void test_spread(void **state) {
  (void)state;
  /* 1,000 liveness probes of containers that started together: no tenth of the interval gets more than twice its share. */
  unsigned buckets[10] = {0};
  for (uint64_t i = 0; i < 1000; i++) {
    struct keeper_probe p;
    keeper_probe_begin(&p, KEEPER_LIVENESS, &plain, T0, i * UINT64_C(0xD1B54A32D192ED03), T0);
    buckets[(p.next_at - T0) / NS_PER_SEC]++;
  }
  for (int i = 0; i < 10; i++)
    assert_in_range(buckets[i], 50, 200);
}

static void test_slow_answers_do_not_pile_up(void **state) {
  (void)state;
  struct keeper_probe_rules rules = plain;
  rules.interval = NS_PER_SEC;
  rules.timeout = 30 * NS_PER_SEC;
  struct keeper_probe p;
  keeper_probe_begin(&p, KEEPER_LIVENESS, &rules, T0, SEED, T0);
  int64_t at = p.next_at;
  assert_true(keeper_probe_step(&p, KEEPER_PROBE_TIME, at).try_now);
  assert_false(keeper_probe_step(&p, KEEPER_PROBE_TIME, at + 10 * NS_PER_SEC).try_now);
  keeper_probe_step(&p, KEEPER_PROBE_FAILURE, at + 30 * NS_PER_SEC);
  assert_true(p.next_at > at + 30 * NS_PER_SEC);
  assert_true(p.next_at <= at + 31 * NS_PER_SEC);
}

/* ---- targets ---- */

static const struct keeper_probe_rules *const all_three[KEEPER_PROBE_KINDS] = {&plain, &plain, &plain};

static struct keeper_target_step try_and(struct keeper_target *t, enum keeper_probe_kind kind, bool success, int64_t *now) {
  struct keeper_target_step step;
  do {
    int64_t next = INT64_MAX;
    for (int k = 0; k < KEEPER_PROBE_KINDS; k++)
      if (t->active[k] && t->probes[k].next_at < next)
        next = t->probes[k].next_at;
    assert_true(next < INT64_MAX);
    *now = next;
    step = keeper_target_time(t, next);
    for (int k = 0; k < KEEPER_PROBE_KINDS; k++)
      if ((step.tries & 1u << k) && k != (int)kind)
        keeper_target_result(t, (enum keeper_probe_kind)k, true, "", next);
  } while (!(step.tries & 1u << kind));
  return keeper_target_result(t, kind, success, "http 503 from /", *now);
}

static void test_startup_holds_the_others_back(void **state) {
  (void)state;
  struct keeper_target t;
  int64_t now = T0;
  keeper_target_begin(&t, all_three, T0, true, SEED, T0);
  assert_true(t.active[KEEPER_STARTUP]);
  assert_false(t.active[KEEPER_READINESS] || t.active[KEEPER_LIVENESS]);
  struct keeper_target_step step = try_and(&t, KEEPER_STARTUP, true, &now);
  assert_true(step.changed && t.verdict.started && !t.verdict.ready && t.verdict.live);
  assert_true(t.active[KEEPER_READINESS] && t.active[KEEPER_LIVENESS]);
  assert_int_equal(t.probes[KEEPER_STARTUP].state, KEEPER_PROBE_OVER);
  step = try_and(&t, KEEPER_READINESS, true, &now);
  assert_true(step.changed && t.verdict.ready && t.verdict.known);
  assert_string_equal(t.verdict.reason, "");
}

static void test_liveness_ends_it(void **state) {
  (void)state;
  const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS] = {NULL, NULL, &plain};
  struct keeper_target t;
  int64_t now = T0;
  struct keeper_target_step step = keeper_target_begin(&t, rules, T0, true, SEED, T0);
  assert_true(step.changed && t.verdict.started && t.verdict.ready && t.verdict.live); /* no readiness probe: ready as it runs */
  assert_false(try_and(&t, KEEPER_LIVENESS, false, &now).changed);
  assert_false(try_and(&t, KEEPER_LIVENESS, false, &now).changed);
  step = try_and(&t, KEEPER_LIVENESS, false, &now);
  assert_true(step.changed && !t.verdict.live && !t.verdict.ready);
  assert_string_equal(t.verdict.reason, "liveness: http 503 from /");
  assert_true(step.next_at == KEEPER_NEVER);
  assert_int_equal(keeper_target_time(&t, now + 100 * NS_PER_SEC).tries, 0);
}

static void test_failed_startup_restarts(void **state) {
  (void)state;
  const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS] = {&plain, NULL, NULL};
  struct keeper_target t;
  int64_t now = T0;
  keeper_target_begin(&t, rules, T0, true, SEED, T0);
  while (t.verdict.live)
    try_and(&t, KEEPER_STARTUP, false, &now);
  assert_false(t.verdict.started);
  assert_true(now - T0 >= 2 * plain.interval);
}

static void test_old_container_is_not_judged_in_haste(void **state) {
  (void)state;
  const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS] = {NULL, &plain, &plain};
  struct keeper_target t;
  int64_t now = T0;
  struct keeper_target_step step = keeper_target_begin(&t, rules, T0 - 3600 * NS_PER_SEC, true, SEED, T0);
  assert_false(step.changed || t.verdict.known);
  step = try_and(&t, KEEPER_READINESS, false, &now);
  assert_false(step.changed || t.verdict.known); /* one failure is not three */
  step = try_and(&t, KEEPER_READINESS, true, &now);
  assert_true(step.changed && t.verdict.known && t.verdict.ready);
  keeper_target_begin(&t, rules, T0 - 3600 * NS_PER_SEC, true, SEED, T0);
  assert_true(t.probes[KEEPER_READINESS].next_at <= T0 + 600 * NS_PER_MS);
}

static void test_a_list_of_all_says_nothing_of_age(void **state) {
  (void)state;
  /* A second old, but told in a list of all there is: another keeper may have called it ready. */
  const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS] = {NULL, &plain, NULL};
  struct keeper_target t;
  assert_false(keeper_target_begin(&t, rules, T0 - NS_PER_SEC, false, SEED, T0).changed);
  assert_false(t.verdict.known);
}

static void test_not_ready_is_told_with_its_reason(void **state) {
  (void)state;
  const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS] = {NULL, &plain, NULL};
  struct keeper_target t;
  int64_t now = T0;
  keeper_target_begin(&t, rules, T0, true, SEED, T0);
  unsigned told = 0;
  for (int i = 0; i < 20; i++)
    told += try_and(&t, KEEPER_READINESS, false, &now).changed;
  assert_int_equal(told, 1);
  assert_string_equal(t.verdict.reason, "readiness: http 503 from /");
}

static void test_a_reason_is_cut_between_characters(void **state) {
  (void)state;
  const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS] = {NULL, &plain, NULL};
  struct keeper_target t;
  char reason[99 * 3 + 1]; /* of three bytes each: no cut at 220 is between two */
  keeper_target_begin(&t, rules, T0, true, SEED, T0);
  for (size_t i = 0; i < 99; i++)
    snprintf(reason + 3 * i, sizeof reason - 3 * i, "\xe2\x82\xac");
  for (int i = 0; i < 20; i++) {
    int64_t now = t.probes[KEEPER_READINESS].next_at;
    assert_true(keeper_target_time(&t, now).tries);
    keeper_target_result(&t, KEEPER_READINESS, false, reason, now);
  }
  assert_int_equal(strlen(t.verdict.reason), strlen("readiness: ") + 219);
  assert_true(pb_utf8_valid(t.verdict.reason, strlen(t.verdict.reason)));
}

/* ---- random sequences ---- */

static uint64_t rng;
static uint64_t rnd(uint64_t below) {
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return (rng >> 11) % below;
}

static void one_sequence(uint64_t seed) {
  rng = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
  struct keeper_probe_rules rules[KEEPER_PROBE_KINDS];
  const struct keeper_probe_rules *given[KEEPER_PROBE_KINDS] = {NULL};
  for (int k = 0; k < KEEPER_PROBE_KINDS; k++) {
    rules[k] = (struct keeper_probe_rules){.interval = (int64_t)(1 + rnd(30)) * NS_PER_SEC,
                                           .timeout = (int64_t)(1 + rnd(40)) * NS_PER_SEC,
                                           .initial_delay = (int64_t)rnd(3) * NS_PER_SEC * (int64_t)rnd(20),
                                           .failure_threshold = 1 + (uint32_t)rnd(4),
                                           .success_threshold = 1 + (uint32_t)rnd(3)};
    if (rnd(3))
      given[k] = &rules[k];
  }
  struct keeper_target t;
  int64_t now = T0, started = T0 - (int64_t)(rnd(4) ? rnd(3) : rnd(5000)) * NS_PER_SEC, due[KEEPER_PROBE_KINDS] = {0};
  bool trying[KEEPER_PROBE_KINDS] = {false};
  unsigned failures_in_row[KEEPER_PROBE_KINDS] = {0};
  struct keeper_target_step step = keeper_target_begin(&t, given, started, true, rnd(UINT64_MAX), now);
  struct keeper_verdict before = t.verdict;
  unsigned tries = 0;
  for (int i = 0; i < 300; i++) {
    /* The next thing: a result that is due, or time. */
    int next = -1;
    for (int k = 0; k < KEEPER_PROBE_KINDS; k++)
      if (trying[k] && (next < 0 || due[k] < due[next]))
        next = k;
    if (next < 0 && step.next_at == KEEPER_NEVER) {
      assert_true(!t.verdict.live || (!t.active[KEEPER_READINESS] && !t.active[KEEPER_LIVENESS])); /* nothing is left to probe */
      break;
    }
    if (next >= 0 && due[next] <= step.next_at) {
      now = due[next] > now ? due[next] : now;
      bool ok = rnd(100) < 70;
      trying[next] = false;
      failures_in_row[next] = ok ? 0 : failures_in_row[next] + 1;
      step = keeper_target_result(&t, (enum keeper_probe_kind)next, ok, "why", now);
    } else {
      assert_true(step.next_at >= now);
      now = step.next_at;
      step = keeper_target_time(&t, now);
      assert_true(step.tries || !t.verdict.live);
    }
    for (int k = 0; k < KEEPER_PROBE_KINDS; k++) {
      if (!(step.tries & 1u << k))
        continue;
      assert_true(t.active[k] && !trying[k]);
      assert_true(now >= started + rules[k].initial_delay); /* never before its delay */
      assert_true(k == KEEPER_STARTUP || t.verdict.started);
      trying[k] = true;
      due[k] = now + (int64_t)rnd((uint64_t)rules[k].timeout);
      tries++;
    }
    const struct keeper_verdict *v = &t.verdict;
    assert_false(v->ready && (!v->started || !v->live));
    assert_false(before.known && !v->known);
    assert_false(!before.live && v->live);
    assert_false(before.started && !v->started);
    if (before.live && !v->live) {
      bool reason = false;
      for (int k = 0; k < KEEPER_PROBE_KINDS; k++)
        reason |= k != KEEPER_READINESS && given[k] && failures_in_row[k] >= rules[k].failure_threshold;
      assert_true(reason); /* never killed for less than its threshold */
    }
    bool differs = v->known && (!before.known || v->started != before.started || v->ready != before.ready || v->live != before.live);
    assert_true(!differs || step.changed);
    before = *v;
    if (!v->live)
      memset(trying, 0, sizeof trying); /* the shell drops them */
  }
  assert_true(tries <= 300);
}

static void test_random_sequences(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 5000; seed++)
    one_sequence(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ready_at_once),
      cmocka_unit_test(test_early_tries),
      cmocka_unit_test(test_slow_starter_keeps_its_patience),
      cmocka_unit_test(test_initial_delay),
      cmocka_unit_test(test_thresholds),
      cmocka_unit_test(test_spread),
      cmocka_unit_test(test_slow_answers_do_not_pile_up),
      cmocka_unit_test(test_startup_holds_the_others_back),
      cmocka_unit_test(test_liveness_ends_it),
      cmocka_unit_test(test_failed_startup_restarts),
      cmocka_unit_test(test_old_container_is_not_judged_in_haste),
      cmocka_unit_test(test_a_list_of_all_says_nothing_of_age),
      cmocka_unit_test(test_not_ready_is_told_with_its_reason),
      cmocka_unit_test(test_a_reason_is_cut_between_characters),
      cmocka_unit_test(test_random_sequences),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
