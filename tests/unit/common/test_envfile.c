/* .env files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/envfile/envfile.h"

static int note(void *arg, const char *name, const char *value, size_t len, unsigned line, struct err *err) {
  (void)err;
  assert_int_equal(strlen(value), len);
  buf_printf(arg, "%u %s=[%s]\n", line, name, value);
  return 0;
}

static void gives(const char *text, const char *pairs) {
  struct buf b = BUF_INIT(4096);
  struct err err;
  if (envfile_parse(text, strlen(text), note, &b, &err) < 0)
    fail_msg("%s: %s", text, err.msg);
  assert_string_equal(buf_str(&b), pairs);
  buf_free(&b);
}

static void refused(const char *text, size_t len, const char *why) {
  struct buf b = BUF_INIT(4096);
  struct err err;
  assert_int_equal(envfile_parse(text, len, note, &b, &err), -1);
  assert_string_equal(err.msg, why);
  buf_free(&b);
}

static void test_pairs(void **state) {
  (void)state;
  gives("", "");
  gives("\n# x\n  \t\n", "");
  gives("\xef\xbb\xbf"
        "A=1",
        "1 A=[1]\n");
  gives("A=1\r\nB= two words \r\n", "1 A=[1]\n2 B=[two words]\n");
  gives("export A=1 # c\nexport\tB=x#y\nexportC=2\n", "1 A=[1]\n2 B=[x#y]\n3 exportC=[2]\n");
  gives("A=\nB=#c\nC = $X ${Y} `z`\n", "1 A=[]\n2 B=[]\n3 C=[$X ${Y} `z`]\n");
  gives("A='a\n\\n\"'  # c\nB=2\n", "1 A=[a\n\\n\"]\n3 B=[2]\n");
  gives("A=\"a\\n\\t\\r\\\"\\\\\\$\nb\"\n", "1 A=[a\n\t\r\"\\$\nb]\n");
  gives("a.b-c_1=x", "1 a.b-c_1=[x]\n");
}

static void test_faults(void **state) {
  (void)state;
#define REFUSED(text, why) refused((text), sizeof(text) - 1, (why))
  REFUSED("\n1A=1", "line 2: want NAME=VALUE: a name is a letter or _, then letters, digits, _ . -");
  REFUSED("A", "line 1: want NAME=VALUE: a name is a letter or _, then letters, digits, _ . -");
  REFUSED("export ", "line 1: want NAME=VALUE: a name is a letter or _, then letters, digits, _ . -");
  REFUSED("A='1' 2", "line 1: something follows the closing quote");
  REFUSED("A=1\nB=\"x\n\n", "line 2: its quote is never closed");
  REFUSED("A=\"\\x\"", "line 1: after a \\ want one of n r t \" \\ $");
  REFUSED("A=\"\\", "line 1: after a \\ want one of n r t \" \\ $");
  REFUSED("A=1\nB=2\nA=3", "line 3: A was there before");
  REFUSED("A=x\0y", "line 1: its value has a NUL byte");
  char name[200] = "";
  memset(name, 'A', 129);
  snprintf(name + 129, sizeof name - 129, "=1");
  refused(name, strlen(name), "line 1: a name has at most 128 characters");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_pairs), cmocka_unit_test(test_faults)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
