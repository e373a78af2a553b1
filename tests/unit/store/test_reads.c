#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orca-store/reads.h"

struct told {
  struct reads *reads;
  unsigned times;
  enum err_code code;
  bool again; /* asks to read anew when it is told */
};

static void tell(void *arg, const struct err *err) {
  struct told *t = arg;
  t->times++;
  t->code = err ? err->code : ERR_NONE;
  if (t->again) {
    t->again = false;
    assert_int_equal(reads_add(t->reads, tell, t), 0);
  }
}

static void test_a_round_waits_for_its_word_and_its_index(void **state) {
  (void)state;
  struct reads r;
  struct told a = {0}, b = {0}, c = {0};
  reads_init(&r);
  assert_int_equal(reads_add(&r, tell, &a), 0);
  assert_int_equal(reads_add(&r, tell, &b), 0);
  uint64_t first = reads_begin_round(&r);
  assert_int_equal(reads_add(&r, tell, &c), 0);
  uint64_t second = reads_begin_round(&r);
  assert_true(first && second && first != second);
  assert_null(r.fresh);

  reads_answer(&r, 100); /* unconfirmed: the index says nothing */
  reads_heard(&r, &(struct raft_read){.id = second, .index = 5, .ok = true});
  reads_answer(&r, 4);
  assert_int_equal(a.times + b.times + c.times, 0);
  reads_answer(&r, 5); /* a later round may be the first */
  assert_int_equal(c.times, 1);
  assert_int_equal(a.times, 0);
  reads_heard(&r, &(struct raft_read){.id = first, .index = 3, .ok = true});
  reads_heard(&r, &(struct raft_read){.id = second, .index = 3, .ok = true}); /* is over */
  reads_answer(&r, 5);
  assert_int_equal(a.times, 1);
  assert_int_equal(b.times, 1);
  assert_int_equal(c.times, 1);
  assert_int_equal(b.code, ERR_NONE);
  assert_null(r.rounds);

  /* the list is whole after its last round has left it */
  assert_int_equal(reads_add(&r, tell, &a), 0);
  reads_heard(&r, &(struct raft_read){.id = reads_begin_round(&r), .index = 6, .ok = true});
  reads_answer(&r, 6);
  assert_int_equal(a.times, 2);
}

static void test_who_is_not_the_leader_says_so(void **state) {
  (void)state;
  struct reads r;
  reads_init(&r);
  struct told a = {.reads = &r, .again = true}, b = {0};
  assert_int_equal(reads_add(&r, tell, &a), 0);
  uint64_t first = reads_begin_round(&r);
  assert_int_equal(reads_add(&r, tell, &b), 0);
  uint64_t second = reads_begin_round(&r);
  reads_heard(&r, &(struct raft_read){.id = second});
  assert_int_equal(b.code, ERR_NO_LEADER);
  reads_heard(&r, &(struct raft_read){.id = first});
  assert_int_equal(a.times, 1);
  assert_int_equal(a.code, ERR_NO_LEADER);
  assert_non_null(r.fresh); /* asked anew */
  reads_heard(&r, &(struct raft_read){.id = reads_begin_round(&r), .index = 1, .ok = true});
  reads_answer(&r, 1);
  assert_int_equal(a.times, 2);
  assert_int_equal(a.code, ERR_NONE);
}

static void test_all_are_refused_at_the_end(void **state) {
  (void)state;
  struct reads r;
  struct told a = {0}, b = {0}, c = {0};
  struct err err;
  reads_init(&r);
  assert_int_equal(reads_add(&r, tell, &a), 0);
  uint64_t id = reads_begin_round(&r);
  assert_int_equal(reads_add(&r, tell, &b), 0);
  reads_begin_round(&r);
  reads_heard(&r, &(struct raft_read){.id = id, .index = 9, .ok = true});
  assert_int_equal(reads_add(&r, tell, &c), 0);
  err_set(&err, ERR_UNAVAILABLE, "stopping");
  reads_refuse_all(&r, &err);
  assert_int_equal(a.code, ERR_UNAVAILABLE);
  assert_int_equal(b.code, ERR_UNAVAILABLE);
  assert_int_equal(c.code, ERR_UNAVAILABLE);
  assert_int_equal(a.times + b.times + c.times, 3);
  assert_null(r.fresh);
  assert_null(r.rounds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_round_waits_for_its_word_and_its_index),
      cmocka_unit_test(test_who_is_not_the_leader_says_so),
      cmocka_unit_test(test_all_are_refused_at_the_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
