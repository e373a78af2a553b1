/* Which secrets a spec names, and what becomes of the values that name them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/spec/ids.h"
#include "common/spec/spec.h"

static int note(void *arg, const char *name, bool file) {
  buf_printf(arg, "%s%s ", name, file ? "(file)" : "");
  return 0;
}

static void names(const char *text, const char *want) {
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  struct buf b = BUF_INIT(4096);
  assert_int_equal(spec_parse_services("f", text, strlen(text), "shop", &set, &faults), 0);
  assert_int_equal(spec_secret_names(set.services[0], note, &b), 0);
  assert_string_equal(buf_str(&b), want);
  assert_int_equal(spec_names_secrets(set.services[0]), *want != 0);
  buf_free(&b);
  spec_faults_free(&faults);
  spec_set_free(&set);
}

#define SERVICE "[[service]]\nname = \"a\"\nimage = \"b\"\n"

static void test_names(void **state) {
  (void)state;
  names(SERVICE, "");
  names(SERVICE "[service.env]\nA = \"$${secrets.X}\"\n", "");
  names(SERVICE "secret_files = [\"F\"]\n[service.env]\nA = \"${secrets.X}-${secrets.y.z-1}$${secrets.N}${secrets.X}\"\n", "X y.z-1 X F(file) ");
  assert_true(spec_secret_name_valid("_", 1));
  assert_false(spec_secret_name_valid("", 0));
  assert_false(spec_secret_name_valid("a/b", 3));
  assert_false(spec_secret_name_valid("..", 2));
  assert_false(spec_secret_name_valid("-a", 2));
  char key[KEY_MAX];
  key_secret(key, "", "A");
  assert_string_equal(key, "/secrets/_/A");
  key_secret(key, "shop", "A");
  assert_string_equal(key, "/secrets/shop/A");
}

static bool lookup(void *arg, const char *name, const uint8_t **value, size_t *len) {
  (void)arg;
  *value = (const uint8_t *)"v${secrets.X}";
  *len = strcmp(name, "EMPTY") == 0 ? 0 : strcmp(name, "NUL") == 0 ? 14 : 13;
  return strcmp(name, "NONE") != 0;
}

static void resolves(const char *value, const char *want, const char *why) {
  struct buf b = BUF_INIT(256);
  struct err err;
  int rc = spec_resolve_secrets(value, lookup, NULL, &b, &err);
  assert_int_equal(rc, want ? 0 : -1);
  if (want)
    assert_string_equal(buf_str(&b), want);
  else
    assert_string_equal(err.msg, why);
  buf_free(&b);
}

static void test_values(void **state) {
  (void)state;
  resolves("", "", NULL);
  resolves("a$b$${c}", "a$b${c}", NULL);
  resolves("<${secrets.A}>", "<v${secrets.X}>", NULL); /* what a secret holds is text, not references */
  resolves("${secrets.EMPTY}${secrets.EMPTY}", "", NULL);
  resolves("$$${secrets.A}", "$${secrets.A}", NULL);
  resolves("${secrets.NONE}", NULL, "secret NONE is missing");
  resolves("${secrets.NUL}", NULL, "secret NUL has a NUL byte: it can only be in secret_files");
  resolves("${env.X}", NULL, "an unresolved ${ is left");
  resolves("${secrets.A", NULL, "an unresolved ${ is left");
  resolves("x${secrets.}", NULL, "an unresolved ${ is left");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_values)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
