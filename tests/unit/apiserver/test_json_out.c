/* JSON written by hand is what jansson reads back, at the ends of numbers, times and escapes too. And maps walked side by side. */
#include <inttypes.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "orca-apiserver/json_out.h"
#include "orca-apiserver/smap.h"

static struct buf out;

static const char *written(void (*write)(struct api_json *json, const void *value), const void *value) {
  out = (struct buf){.cap = 4096};
  struct api_json json = {.out = &out};
  write(&json, value);
  return buf_str(&out);
}

static void u64(struct api_json *json, const void *value) {
  api_json_u64(json, NULL, *(const uint64_t *)value);
}
static void i64(struct api_json *json, const void *value) {
  api_json_i64(json, NULL, *(const int64_t *)value);
}
static void milli(struct api_json *json, const void *value) {
  api_json_milli(json, NULL, *(const uint64_t *)value);
}
static void time_of(struct api_json *json, const void *value) {
  api_json_time(json, NULL, *(const int64_t *)value);
}

#define WRITES(write, type, value, text)                                                                                                             \
  do {                                                                                                                                               \
    type v = (value);                                                                                                                                \
    assert_string_equal(written(write, &v), text);                                                                                                   \
    buf_free(&out);                                                                                                                                  \
  } while (0)

static void numbers(void **state) {
  (void)state;
  WRITES(u64, uint64_t, 0, "0");
  WRITES(u64, uint64_t, 10, "10");
  WRITES(u64, uint64_t, UINT64_MAX, "18446744073709551615");
  WRITES(i64, int64_t, 0, "0");
  WRITES(i64, int64_t, -1, "-1");
  WRITES(i64, int64_t, INT64_MIN, "-9223372036854775808");
  WRITES(i64, int64_t, INT64_MAX, "9223372036854775807");
  WRITES(milli, uint64_t, 0, "0.000");
  WRITES(milli, uint64_t, 5, "0.005");
  WRITES(milli, uint64_t, 1500, "1.500");
  WRITES(milli, uint64_t, UINT64_MAX, "18446744073709551.615");
}

static void times(void **state) {
  (void)state;
  WRITES(time_of, int64_t, 0, "null");
  WRITES(time_of, int64_t, 1, "\"1970-01-01T00:00:00.001Z\"");
  WRITES(time_of, int64_t, -1, "\"1969-12-31T23:59:59.999Z\"");
  WRITES(time_of, int64_t, INT64_C(1709210096789), "\"2024-02-29T12:34:56.789Z\"");
  WRITES(time_of, int64_t, INT64_MAX, "\"9999-12-31T23:59:59.807Z\"");
  WRITES(time_of, int64_t, INT64_MIN, "\"0001-01-01T00:00:00.192Z\"");
}

static void texts(void **state) {
  (void)state;
  static const char *const all[] = {"",     "plain",         "\"",      "\\", "a\"b", "ends with \"", "\x1b[31mred\x1b[0m", "line\nline\ttab\r",
                                    "\x7f", "h\xc3\xa4user", "\x01\x02"};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    struct buf b = {.cap = 4096};
    struct api_json json = {.out = &b};
    api_json_object(&json, NULL);
    api_json_str(&json, all[i], all[i]);
    api_json_array(&json, "list");
    api_json_str(&json, NULL, all[i]);
    api_json_str(&json, NULL, NULL);
    api_json_bool(&json, NULL, true);
    api_json_array_end(&json);
    api_json_object_end(&json);
    json_t *tree = json_loads(buf_str(&b), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(tree);
    assert_string_equal(json_string_value(json_object_get(tree, all[i])), all[i]);
    assert_string_equal(json_string_value(json_array_get(json_object_get(tree, "list"), 0)), all[i]);
    assert_true(json_is_null(json_array_get(json_object_get(tree, "list"), 1)));
    for (const uint8_t *p = b.data; *p; p++)
      assert_true(*p >= 0x20 && *p != 0x7f);
    json_decref(tree);
    buf_free(&b);
  }
}

static void full(void **state) {
  (void)state;
  struct buf b = {.cap = 12};
  struct api_json json = {.out = &b};
  api_json_str(&json, NULL, "0123456789");
  assert_false(buf_failed(&b));
  assert_string_equal(buf_str(&b), "\"0123456789\"");
  api_json_u64(&json, NULL, 1);
  assert_true(buf_failed(&b));
  buf_free(&b);
}

static void walks(void **state) {
  (void)state;
  struct api_smap map = {0};
  static const char *const keys[] = {"/a/shop/api/0000000002", "/a/shop/api/0000000003", "/a/shop/api/0000000007", "/a/shop/apix/0000000001",
                                     "/a/shop/ap/0000000001"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    *api_smap_slot(&map, keys[i]) = (void *)(uintptr_t)keys[i];
  struct api_smap_walk walk = api_smap_walk(&map, "/a/shop/api/");
  assert_int_equal(walk.count, 3);
  assert_null(api_smap_walk_to(&walk, "0000000001"));
  assert_ptr_equal(api_smap_walk_to(&walk, "0000000002"), keys[0]);
  assert_ptr_equal(api_smap_walk_to(&walk, "0000000002"), keys[0]);
  assert_null(api_smap_walk_to(&walk, "0000000005"));
  assert_ptr_equal(api_smap_walk_to(&walk, "0000000007"), keys[2]);
  assert_null(api_smap_walk_to(&walk, "0000000008"));
  assert_null(api_smap_walk_to(&walk, "0000000009"));
  walk = api_smap_walk(&map, "/b/");
  assert_null(api_smap_walk_to(&walk, "0000000001"));
  api_smap_clear(&map, NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(numbers), cmocka_unit_test(times), cmocka_unit_test(texts), cmocka_unit_test(full),
                                     cmocka_unit_test(walks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
