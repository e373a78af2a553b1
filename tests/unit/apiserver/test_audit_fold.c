/* What is alike within a minute is one line of the audit log, with its count. */
#include "tests/unit/apiserver/world.h"

static struct audit_line line_of(const char *token, const char *from, const char *path, const char *result, int64_t ms, uint32_t seq) {
  struct audit_line l = {.ms = ms, .seq = seq, .status = 401, .count = 1};
  snprintf(l.token_id, sizeof l.token_id, "%s", token);
  snprintf(l.actor, sizeof l.actor, "%s", token);
  snprintf(l.from, sizeof l.from, "%s", from);
  snprintf(l.method, sizeof l.method, "GET");
  snprintf(l.path, sizeof l.path, "%s", path);
  snprintf(l.result, sizeof l.result, "%s", result);
  return l;
}

struct told {
  size_t count;
  struct audit_line last;
  uint64_t sum;
};

static void tell(void *arg, const struct audit_line *line) {
  struct told *t = arg;
  t->count++;
  t->last = *line;
  t->sum += line->count;
}

static void alike_within_a_minute_is_one_line(void **state) {
  (void)state;
  struct audit_fold f = {0};
  struct told t = {0};
  struct audit_line l = line_of("", "10.0.0.7", "/x", "unauthenticated: no", T0, 1);
  assert_int_equal(audit_fold_due(&f, 100), INT64_MAX);
  audit_fold_note(&f, &l);
  assert_int_equal(audit_fold_due(&f, 100), T0 + 100);
  assert_int_equal(audit_fold_pending(&f, T0 + 100, 10, tell, &t), 1);
  audit_fold_written(&f, 1, 1, T0 + 100);
  assert_int_equal(audit_fold_due(&f, 100), T0 + AUDIT_MINUTE_MS);
  for (int i = 0; i < 36; i++) {
    l = line_of("", "10.0.0.7", "/x", "unauthenticated: another text", T0 + 1000 * i, 2);
    audit_fold_note(&f, &l);
  }
  assert_int_equal(audit_fold_pending(&f, T0 + 36000, 10, tell, &t), 0);
  assert_int_equal(audit_fold_pending(&f, T0 + AUDIT_MINUTE_MS, 10, tell, &t), 1);
  assert_int_equal(t.last.count, 37);
  assert_int_equal(t.last.seq, 1);
  /* The next minute is another line, while the last one is still being written. */
  l = line_of("", "10.0.0.7", "/x", "unauthenticated: no", T0 + AUDIT_MINUTE_MS, 3);
  audit_fold_note(&f, &l);
  assert_int_equal(f.count, 2);
  audit_fold_written(&f, 1, 37, T0 + AUDIT_MINUTE_MS);
  assert_int_equal(f.count, 1);
  /* Other actors, results, paths and addresses are other lines. */
  l = line_of("ci", "10.0.0.7", "/x", "denied: no", T0 + AUDIT_MINUTE_MS, 4);
  audit_fold_note(&f, &l);
  l = line_of("ci", "10.0.0.8", "/x", "denied: no", T0 + AUDIT_MINUTE_MS, 5);
  audit_fold_note(&f, &l);
  l = line_of("ci", "10.0.0.7", "/y", "denied: no", T0 + AUDIT_MINUTE_MS, 6);
  audit_fold_note(&f, &l);
  assert_int_equal(f.count, 4);
  audit_fold_free(&f);
}

static void a_flood_has_few_lines_and_loses_no_count(void **state) {
  (void)state;
  struct audit_fold f = {0};
  struct told t = {0};
  char path[64], from[64];
  const unsigned n = 100000;
  for (unsigned i = 0; i < n; i++) {
    snprintf(path, sizeof path, "/%u", i);
    snprintf(from, sizeof from, "10.%u.%u.7", i % 7, i % 250);
    struct audit_line l = line_of("", from, path, "unauthenticated: no", T0, i + 1);
    audit_fold_note(&f, &l);
  }
  assert_true(f.count <= AUDIT_LINES_STRANGERS + 1);
  /* Those whom we know still have room. */
  struct audit_line l = line_of("ci", "10.0.0.1", "/x", "denied: no", T0, n + 1);
  audit_fold_note(&f, &l);
  audit_fold_pending(&f, T0 + 100, 1000, tell, &t);
  assert_int_equal(t.sum, n + 1);
  for (unsigned i = 0; i < 10000; i++) {
    snprintf(path, sizeof path, "/%u", i);
    l = line_of("ci", "10.0.0.1", path, "denied: no", T0, n + 2 + i);
    audit_fold_note(&f, &l);
  }
  assert_true(f.count <= AUDIT_LINES);
  audit_fold_free(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(alike_within_a_minute_is_one_line),
      cmocka_unit_test(a_flood_has_few_lines_and_loses_no_count),
  };
  return cmocka_run_group_tests_name("audit fold", tests, NULL, NULL);
}
