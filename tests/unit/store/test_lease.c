#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orca-store/lease.h"

static void test_ends_when_it_is_not_kept_alive(void **state) {
  (void)state;
  struct lease_clock *c = lease_clock_new();
  assert_int_equal(lease_clock_add(c, 7, 100, 0), 0);
  assert_int_equal(lease_clock_deadline(c), 100);
  assert_int_equal(lease_clock_expired(c, 99), 0);
  assert_true(lease_clock_keep_alive(c, 7, 99));
  assert_int_equal(lease_clock_expired(c, 198), 0);
  assert_int_equal(lease_clock_left(c, 7, 198, NULL), 1);
  assert_int_equal(lease_clock_expired(c, 199), 7);
  assert_int_equal(lease_clock_expired(c, 500), 0); /* told once */
  assert_false(lease_clock_keep_alive(c, 7, 500));  /* its end is on its way */
  lease_clock_retry(c, 7, 600);
  assert_int_equal(lease_clock_expired(c, 599), 0);
  assert_int_equal(lease_clock_expired(c, 600), 7);
  lease_clock_remove(c, 7);
  assert_int_equal(lease_clock_count(c), 0);
  assert_int_equal(lease_clock_left(c, 7, 600, NULL), -1);
  lease_clock_free(c);
}

/* Against an array, over many leases that come, are kept alive and go. */
static void test_many(void **state) {
  (void)state;
  enum { N = 300 };
  struct lease_clock *c = lease_clock_new();
  int64_t end[N + 1] = {0}, ttl[N + 1] = {0}, now = 0;
  uint64_t rng = 12345;
  for (unsigned i = 0; i < 50000; i++) {
    rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407u;
    uint64_t id = 1 + (rng >> 33) % N, what = (rng >> 20) % 10;
    now += (int64_t)((rng >> 50) % 5);
    for (uint64_t gone; (gone = lease_clock_expired(c, now)) != 0;) {
      assert_true(ttl[gone] && end[gone] <= now);
      lease_clock_remove(c, gone);
      ttl[gone] = 0;
    }
    for (unsigned k = 1; k <= N; k++)
      assert_true(!ttl[k] || end[k] > now);
    if (what < 4 && !ttl[id]) {
      ttl[id] = 1 + (int64_t)((rng >> 40) % 200);
      end[id] = now + ttl[id];
      assert_int_equal(lease_clock_add(c, id, ttl[id], now), 0);
    } else if (what < 9) {
      assert_int_equal(lease_clock_keep_alive(c, id, now), ttl[id] != 0);
      if (ttl[id])
        end[id] = now + ttl[id];
    } else {
      lease_clock_remove(c, id);
      ttl[id] = 0;
    }
  }
  lease_clock_reset(c);
  assert_int_equal(lease_clock_count(c), 0);
  assert_int_equal(lease_clock_deadline(c), INT64_MAX);
  lease_clock_free(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends_when_it_is_not_kept_alive), cmocka_unit_test(test_many)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
