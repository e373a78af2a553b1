#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "orca-store/proposals.h"

static void count(void *arg, const struct kv_result *result, const struct err *err) {
  unsigned *refused = arg;
  assert_null(result);
  assert_int_equal(err->code, ERR_NO_SPACE);
  ++*refused;
}

static struct proposal make(struct proposals *ps, uint64_t index, size_t len, size_t weight, unsigned *refused) {
  struct proposal p = {.data = malloc(len), .len = len, .weight = weight, .index = index, .done = count, .arg = refused};
  assert_non_null(p.data);
  if (weight) {
    ps->bytes += len;
    ps->weight += weight;
  }
  return p;
}

/* Around the end of the array and through its growing, in order. */
static void test_first_in_first_out(void **state) {
  (void)state;
  struct proposals ps = {0};
  unsigned refused = 0;
  uint64_t in = 0, out = 0;
  for (unsigned round = 0; round < 300; round++) {
    for (unsigned i = 0; i < 3 + round % 5; i++) {
      struct proposal p = make(&ps, in++, 1, 1, &refused);
      assert_int_equal(proposal_push(&ps.fresh, &p), 0);
    }
    for (size_t i = 0; i < ps.fresh.count; i++)
      assert_int_equal(proposal_at(&ps.fresh, i)->index, out + i);
    assert_null(proposal_at(&ps.fresh, ps.fresh.count));
    for (unsigned i = 0; i < 2 + round % 5 && ps.fresh.count; i++) {
      struct proposal p = proposal_pop(&ps.fresh);
      assert_int_equal(p.index, out++);
      proposals_drop(&ps, &p);
    }
    assert_int_equal(ps.fresh.count, in - out);
    assert_int_equal(ps.weight, in - out);
  }
  struct err err;
  err_set(&err, ERR_NO_SPACE, "full");
  proposals_refuse_all(&ps, &ps.fresh, &err);
  assert_int_equal(refused, in - out);
  assert_int_equal(ps.bytes, 0);
  assert_int_equal(ps.weight, 0);
  proposals_fini(&ps);
}

static void test_what_is_not_in_the_log_is_refused(void **state) {
  (void)state;
  struct proposals ps = {0};
  unsigned refused = 0;
  struct err err;
  for (uint64_t i = 1; i <= 100; i++) {
    struct proposal p = make(&ps, i, 10, i % 2, &refused); /* every other adds nothing, and is not counted */
    assert_int_equal(proposal_push(&ps.waiting, &p), 0);
  }
  assert_int_equal(ps.bytes, 500);
  err_set(&err, ERR_NO_SPACE, "full");
  proposals_refuse_behind(&ps, 40, &err);
  assert_int_equal(refused, 60);
  assert_int_equal(ps.waiting.count, 40);
  assert_int_equal(ps.bytes, 200);
  assert_int_equal(ps.weight, 20);
  for (size_t i = 0; i < 40; i++)
    assert_int_equal(proposal_at(&ps.waiting, i)->index, i + 1);
  proposals_refuse_behind(&ps, 0, &err);
  assert_int_equal(refused, 100);
  assert_int_equal(ps.bytes, 0);
  proposals_fini(&ps);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_in_first_out),
      cmocka_unit_test(test_what_is_not_in_the_log_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
