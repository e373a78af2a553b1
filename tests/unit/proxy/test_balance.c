#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "orca-proxy/balance.h"
#include "orca-proxy/page.h"
#include "orca-proxy/wheel.h"

static struct balance_endpoint *get(void *arg, size_t i) {
  return (struct balance_endpoint *)arg + i;
}

static void test_least_outstanding_then_turns(void **state) {
  (void)state;
  struct balance_endpoint e[3] = {{.outstanding = 2}, {.outstanding = 1}, {.outstanding = 2}};
  for (uint32_t turn = 0; turn < 9; turn++)
    assert_int_equal(balance_pick(get, e, 3, turn, NULL, 0, 0), 1);
  e[1].outstanding = 2;
  int seen[3] = {0};
  for (uint32_t turn = 0; turn < 9; turn++)
    seen[balance_pick(get, e, 3, turn, NULL, 0, 0)]++;
  assert_true(seen[0] == 3 && seen[1] == 3 && seen[2] == 3);
  int32_t tried[] = {0, 2};
  assert_int_equal(balance_pick(get, e, 3, 7, tried, 2, 0), 1);
  int32_t all[] = {2, 1, 0};
  assert_int_equal(balance_pick(get, e, 3, 7, all, 3, 0), -1);
  assert_int_equal(balance_pick(get, e, 0, 7, NULL, 0, 0), -1);
}

static void test_ejection_grows_and_ends(void **state) {
  (void)state;
  struct balance_endpoint e[2] = {0};
  int64_t now = 1000;
  balance_failed(e, now);
  balance_failed(e, now);
  assert_int_equal(e->ejected_until, 0);
  balance_failed(e, now);
  assert_int_equal(e->ejected_until, now + BALANCE_EJECT_MS);
  for (uint32_t turn = 0; turn < 4; turn++)
    assert_int_equal(balance_pick(get, e, 2, turn, NULL, 0, now), 1);
  int64_t last = BALANCE_EJECT_MS;
  for (int i = 0; i < 10; i++) { /* on probation one failure is enough */
    now = e->ejected_until;
    assert_true(balance_pick(get, e, 1, 0, NULL, 0, now) == 0);
    balance_failed(e, now);
    int64_t time = e->ejected_until - now;
    assert_true(time == last * 2 || time == BALANCE_EJECT_MAX_MS);
    last = time;
  }
  balance_answered(e);
  assert_true(e->ejected_until == 0 && e->ejections == 0);
}

static void test_the_last_is_never_ejected(void **state) {
  (void)state;
  struct balance_endpoint e[3] = {{.ejected_until = 300}, {.ejected_until = 200}, {.ejected_until = 400}};
  assert_int_equal(balance_pick(get, e, 3, 0, NULL, 0, 100), 1);
}

static void test_many_endpoints_are_sampled(void **state) {
  (void)state;
  static struct balance_endpoint e[1000];
  bool seen[1000] = {false};
  for (uint32_t turn = 0; turn < 1000; turn++) {
    int i = balance_pick(get, e, 1000, turn, NULL, 0, 0);
    assert_true(i >= 0);
    seen[i] = true;
  }
  for (int i = 0; i < 1000; i++)
    assert_true(seen[i]);
}

static void test_what_may_be_tried_again(void **state) {
  (void)state;
  assert_true(balance_may_retry(FAILED_TO_CONNECT, 1, false, true, false));
  assert_false(balance_may_retry(FAILED_TO_CONNECT, BALANCE_ATTEMPTS, true, true, false));
  assert_true(balance_may_retry(FAILED_UNANSWERED, 1, true, true, true));
  assert_false(balance_may_retry(FAILED_UNANSWERED, 1, false, true, true));
  assert_true(balance_may_retry(FAILED_UNANSWERED, 1, false, true, false));
  assert_false(balance_may_retry(FAILED_UNANSWERED, 1, true, false, true));
  assert_false(balance_may_retry(FAILED_ANSWER, 1, true, true, true));
}

/* Against a plain list: every timer fires once, never early, at most a slot late. */
static void test_wheel(void **state) {
  (void)state;
  enum { TIMERS = 200 };
  for (unsigned seed = 1; seed <= 10; seed++) {
    srand(seed);
    struct wheel *w = malloc(sizeof *w);
    struct wheel_timer t[TIMERS];
    int64_t want[TIMERS], now = 100000 + rand() % 1000;
    memset(t, 0, sizeof t);
    wheel_init(w, now);
    for (int i = 0; i < TIMERS; i++)
      wheel_set(w, &t[i], want[i] = now + rand() % 200000);
    for (int steps = 0; steps < 4000; steps++) {
      int i = rand() % TIMERS;
      if (rand() % 4 == 0 && want[i])
        wheel_set(w, &t[i], want[i] = now + 1 + rand() % 100000);
      else if (rand() % 50 == 0) {
        wheel_remove(w, &t[i]);
        want[i] = 0;
      } else if (rand() % 50 == 0) {
        wheel_clear(&t[i]);
        want[i] = 0;
      }
      int64_t first = INT64_MAX;
      for (int k = 0; k < TIMERS; k++)
        if (want[k] && want[k] < first)
          first = want[k];
      int wait = wheel_wait(w, now);
      assert_true(first == INT64_MAX || (wait >= 0 && now + wait <= (first > now ? first : now) + 2 * (1 << WHEEL_SHIFT)));
      now += rand() % 300;
      for (struct wheel_timer *due; (due = wheel_due(w, now));) {
        int k = (int)(due - t);
        assert_true(want[k] && want[k] <= now);
        want[k] = 0;
      }
      for (int k = 0; k < TIMERS; k++)
        assert_true(!want[k] || want[k] + 2 * (1 << WHEEL_SHIFT) > now);
    }
    free(w);
  }
}

static void test_pages(void **state) {
  (void)state;
  uint8_t out[PAGE_MAX + 1];
  char long_detail[600];
  memset(long_detail, '<', sizeof long_detail);
  long_detail[sizeof long_detail - 1] = 0;
  static const struct {
    const char *accept, *type;
  } cases[] = {{"application/json", "application/json"},
               {"text/html, */*", "text/html"},
               {"*/*", "text/plain"},
               {"application/problem+json;q=1", "application/json"},
               {"", "text/plain"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t n = page_write(out, 502, long_detail, "n\"1", (struct span){(const uint8_t *)cases[i].accept, strlen(cases[i].accept)}, false, true);
    assert_true(n > 0 && n < PAGE_MAX);
    out[n] = 0;
    assert_non_null(strstr((const char *)out, cases[i].type));
    const char *body = strstr((const char *)out, "\r\n\r\n") + 4, *length = strstr((const char *)out, "Content-Length: ");
    assert_int_equal(strtoul(length + 16, NULL, 10), strlen(body));
    assert_true(strcmp(cases[i].type, "text/html") != 0 || !strstr(body, "<<"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_least_outstanding_then_turns),
                                     cmocka_unit_test(test_ejection_grows_and_ends),
                                     cmocka_unit_test(test_the_last_is_never_ejected),
                                     cmocka_unit_test(test_many_endpoints_are_sampled),
                                     cmocka_unit_test(test_what_may_be_tried_again),
                                     cmocka_unit_test(test_wheel),
                                     cmocka_unit_test(test_pages)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
