/* Who guesses tokens waits; who has one does not. */
#include "tests/unit/apiserver/access.h"

static void waits_grow_and_end(void **state) {
  (void)state;
  static struct api_throttle t;
  const uint8_t key[16] = {1}, other[16] = {2};
  memset(&t, 0, sizeof t);
  for (int i = 0; i < API_THROTTLE_FREE; i++)
    assert_int_equal(api_throttle_failed(&t, key, T0), 0);
  assert_int_equal(api_throttle_wait(&t, key, T0), 0);
  assert_int_equal(api_throttle_failed(&t, key, T0), 1000);
  assert_int_equal(api_throttle_wait(&t, key, T0 + 400), 600);
  assert_int_equal(api_throttle_wait(&t, other, T0), 0);
  int64_t now = T0, longest = 0;
  for (int i = 0; i < 100; i++) { /* one that waits as it is told, and tries again */
    int64_t wait = api_throttle_failed(&t, key, now);
    assert_true(wait <= API_THROTTLE_WAIT_MAX_MS);
    longest = wait > longest ? wait : longest;
    now += wait;
  }
  assert_true(longest >= 60000);
  for (int i = 0; i < 100; i++) /* and one that does not wait */
    api_throttle_failed(&t, key, now += 10);
  now += api_throttle_wait(&t, key, now);
  assert_int_equal(api_throttle_failed(&t, key, now), API_THROTTLE_WAIT_MAX_MS);
  now += (int64_t)API_THROTTLE_SCORE_MAX * API_THROTTLE_FORGIVE_MS + API_THROTTLE_WAIT_MAX_MS;
  assert_int_equal(api_throttle_wait(&t, key, now), 0);
  assert_int_equal(api_throttle_failed(&t, key, now), 0);
  assert_int_equal(api_throttle_failed(&t, key, now - 1000000), 0); /* a clock that is set back */
}

static void many_addresses_push_out_the_least_guilty(void **state) {
  (void)state;
  static struct api_throttle t;
  uint8_t guilty[16] = {0xff};
  memset(&t, 0, sizeof t);
  for (int i = 0; i < 40; i++)
    api_throttle_failed(&t, guilty, T0);
  assert_true(api_throttle_wait(&t, guilty, T0) > 0);
  for (uint32_t i = 0; i < 20000; i++) {
    uint8_t key[16] = {0};
    memcpy(key, &i, sizeof i);
    api_throttle_failed(&t, key, T0);
  }
  assert_true(api_throttle_wait(&t, guilty, T0) > 0);
}

static void declare(struct world *w, const char *name, const char *text) {
  uint8_t hash[32];
  char key[KEY_MAX];
  crypto_sha256(text, strlen(text), hash);
  Model__Token t = MODEL__TOKEN__INIT;
  t.id = TEXT(name);
  t.name = TEXT(name);
  t.role = TEXT("admin");
  t.has_hash = 1;
  t.hash = (ProtobufCBinaryData){.len = 32, .data = hash};
  PB_SET(&t, declared, 1);
  key_named(key, KEY_TOKENS, name);
  put(w, key, &t.base);
}

static void wrong_tokens_wait_and_right_ones_do_not(void **state) {
  struct world *w = *state;
  put_token(w, "made", "secret-made", "admin", NULL, 0);
  declare(w, "chosen", "secret-chosen");
  declare(w, "known", "secret-known");
  assert_int_equal(status_of(w, "secret-known", 7), 200);
  for (int i = 0; i < API_THROTTLE_FREE; i++)
    assert_int_equal(status_of(w, "wrong", 7), 401);
  assert_int_equal(status_of(w, "wrong", 7), 429);
  assert_int_equal(status_of(w, "wrong", 8), 401);
  assert_int_equal(status_of(w, "secret-made", 7), 200);   /* nobody locks others out of a shared address */
  assert_int_equal(status_of(w, "secret-known", 7), 200);  /* nor those who come from there anyway */
  assert_int_equal(status_of(w, "secret-chosen", 7), 429); /* but a text that somebody chose is not found by trying */
  assert_int_equal(status_of(w, "secret-chosen", 8), 200);
  assert_int_equal(status_of(w, "wrong", 7), 429);
}

static void a_clock_that_is_set_back_lengthens_no_wait(void **state) {
  struct world *w = *state;
  declare(w, "chosen", "secret-chosen");
  for (int i = 0; i < 2 * API_THROTTLE_SCORE_MAX; i++)
    status_of(w, "wrong", 7);
  set_back(w, 3600 * NS_PER_SEC);
  struct api_request *r = knock(w, "secret-chosen", 7);
  assert_int_equal(r->status, 429);
  assert_true(r->retry_after <= API_THROTTLE_WAIT_MAX_MS / 1000);
  api_request_unref(r);
  run_for(w, API_THROTTLE_WAIT_MAX_MS);
  assert_int_equal(status_of(w, "secret-chosen", 7), 200);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(waits_grow_and_end),
      cmocka_unit_test(many_addresses_push_out_the_least_guilty),
      cmocka_unit_test_setup_teardown(wrong_tokens_wait_and_right_ones_do_not, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_clock_that_is_set_back_lengthens_no_wait, clock_setup, world_teardown),
  };
  return cmocka_run_group_tests_name("throttle", tests, NULL, NULL);
}
