#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orca-proxy/drain.h"

static uint32_t slot(struct drain *d, const char *name, uint64_t *incarnation) {
  uint64_t ignored;
  return drain_slot(d, name, "10.0.0.1", 80, incarnation ? incarnation : &ignored);
}

static void test_a_version_is_acknowledged_by_all_workers(void **state) {
  (void)state;
  struct drain *d = drain_new(3);
  slot(d, "a", NULL);
  drain_publish(d, 1, 100);
  drain_switched(d, 0, 1, NULL, 0);
  drain_switched(d, 1, 1, NULL, 0);
  assert_int_equal(drain_version(d), 0);
  drain_publish(d, 2, 101);
  drain_switched(d, 2, 2, NULL, 0);
  assert_int_equal(drain_version(d), 100);
  drain_switched(d, 0, 2, NULL, 0);
  drain_switched(d, 1, 2, NULL, 0);
  assert_int_equal(drain_version(d), 101);
  drain_free(d);
}

static void test_an_endpoint_drains_until_its_requests_end(void **state) {
  (void)state;
  struct drain *d = drain_new(2);
  const char *names[4];
  uint64_t first, second;
  uint32_t a = slot(d, "a", &first);
  drain_publish(d, 1, 1);
  drain_switched(d, 0, 1, NULL, 0);
  drain_switched(d, 1, 1, NULL, 0);
  assert_int_equal(drain_list(d, names, 4), 0);
  drain_publish(d, 2, 2); /* without it */
  assert_int_equal(drain_list(d, names, 4), 1);
  assert_string_equal(names[0], "a");
  drain_switched(d, 0, 2, &a, 1);
  drain_switched(d, 1, 2, NULL, 0);
  assert_int_equal(drain_version(d), 2);
  assert_int_equal(drain_list(d, names, 4), 1);
  drain_idle(d, 0, a);
  assert_int_equal(drain_list(d, names, 4), 0);
  assert_int_equal(slot(d, "b", &second), a); /* the number is given anew, as another incarnation */
  assert_int_not_equal(first, second);
  drain_free(d);
}

static void test_an_endpoint_that_comes_back_keeps_its_slot(void **state) {
  (void)state;
  struct drain *d = drain_new(1);
  uint64_t first, second;
  uint32_t a = slot(d, "a", &first);
  drain_publish(d, 1, 1);
  drain_publish(d, 2, 2);
  assert_int_equal(slot(d, "a", &second), a);
  assert_int_equal(first, second);
  drain_publish(d, 3, 3);
  drain_switched(d, 0, 3, &a, 1); /* busy, but in the table: no matter */
  assert_int_equal(drain_list(d, NULL, 0), 0);
  assert_int_equal(slot(d, "a", &second), a);
  drain_free(d);
}

/* Random histories against a model: nothing is let go of while a worker may still use it, and everything is in the end. */
static void test_random_histories(void **state) {
  (void)state;
  enum { WORKERS = 3, NAMES = 6, STEPS = 400 };
  for (unsigned seed = 1; seed <= 50; seed++) {
    srand(seed);
    struct drain *d = drain_new(WORKERS);
    uint64_t seq = 0, at[WORKERS] = {0};
    bool tables[STEPS + 1][NAMES] = {0};
    uint32_t slots[NAMES];
    bool busy[WORKERS][NAMES] = {0};
    for (int step = 0; step < STEPS; step++) {
      int what = rand() % 3, worker = rand() % WORKERS;
      if (what == 0 || seq == 0) {
        seq++;
        for (int n = 0; n < NAMES; n++) {
          char name[16];
          snprintf(name, sizeof name, "n%d", n);
          if ((tables[seq][n] = rand() % 2))
            slots[n] = slot(d, name, NULL);
        }
        drain_publish(d, seq, seq);
      } else if (what == 1 && at[worker] < seq) {
        uint32_t list[NAMES];
        size_t count = 0;
        for (int n = 0; n < NAMES; n++) {
          if (at[worker] && tables[at[worker]][n] && rand() % 2)
            busy[worker][n] = true;
          if (busy[worker][n] && !tables[seq][n])
            list[count++] = slots[n];
        }
        at[worker] = seq;
        drain_switched(d, (unsigned)worker, seq, list, count);
      } else if (at[worker]) {
        int n = rand() % NAMES;
        bool was = busy[worker][n];
        busy[worker][n] = false;
        if (was && !tables[at[worker]][n])
          drain_idle(d, (unsigned)worker, slots[n]);
      }
      const char *names[NAMES];
      size_t count = drain_list(d, names, NAMES);
      for (int n = 0; seq && n < NAMES; n++) {
        bool used = false, listed = false;
        for (int k = 0; k < WORKERS; k++)
          used |= !tables[seq][n] && (busy[k][n] || (at[k] && at[k] < seq && tables[at[k]][n]));
        for (size_t i = 0; i < count; i++)
          listed |= names[i][1] == '0' + n;
        assert_true(!used || listed);
        assert_false(listed && tables[seq][n]);
      }
    }
    seq++;
    drain_publish(d, seq, seq);
    for (unsigned k = 0; k < WORKERS; k++)
      drain_switched(d, k, seq, NULL, 0);
    assert_int_equal(drain_list(d, NULL, 0), 0);
    assert_int_equal(drain_version(d), seq);
    drain_free(d);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_version_is_acknowledged_by_all_workers),
                                     cmocka_unit_test(test_an_endpoint_drains_until_its_requests_end),
                                     cmocka_unit_test(test_an_endpoint_that_comes_back_keeps_its_slot), cmocka_unit_test(test_random_histories)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
