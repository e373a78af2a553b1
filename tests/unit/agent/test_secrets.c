/* Secrets on a node: the label, users of images, files, the environment of a container. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "orca-agent/secret_files.h"
#include "orca-agent/secret_user.h"
#include "orca-agent/secret_values.h"

#define TEXT(s) ((char *)(uintptr_t)(const void *)(s))

static Node__SecretValue one = NODE__SECRET_VALUE__INIT, two = NODE__SECRET_VALUE__INIT;
static Node__SecretValue *list[] = {&one, &two};
static Node__Secrets values = NODE__SECRETS__INIT;
static char *files[] = {TEXT("TWO")};
static Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;

static int setup(void **state) {
  (void)state;
  one.name = TEXT("ONE");
  two.name = TEXT("TWO");
  one.value = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)TEXT("abc")};
  two.value = (ProtobufCBinaryData){.len = 2, .data = (uint8_t *)TEXT("\xff")};
  PB_SET(&one, version, 7);
  PB_SET(&two, version, 1);
  PB_SET(&two, global, 1);
  values.secrets = list;
  values.n_secrets = 2;
  spec.secret_files = files;
  spec.n_secret_files = 1;
  return 0;
}

static void test_label(void **state) {
  (void)state;
  char label[AGENT_SECRETS_LABEL_MAX];
  struct secret_label l;
  secret_label_write(&values, &spec, label);
  assert_string_equal(label, "ONE:7 TWO:1:gf");
  assert_true(secret_label_has_files(label));
  const char *at = label;
  assert_true(secret_label_next(&at, &l));
  assert_true(strcmp(l.name, "ONE") == 0 && l.version == 7 && !l.global && !l.file);
  assert_true(secret_label_next(&at, &l));
  assert_true(strcmp(l.name, "TWO") == 0 && l.version == 1 && l.global && l.file);
  assert_false(secret_label_next(&at, &l));
  /* whatever somebody else may have written there */
  at = "  : A A: A:x A:1:z A:1: a/b:1 :1 B:99999999999999999999999999 OK:3";
  assert_true(secret_label_next(&at, &l));
  assert_string_equal(l.name, "A"); /* "A:1:" has no letters */
  while (secret_label_next(&at, &l))
    ;
  assert_string_equal(l.name, "OK");
  assert_false(secret_label_has_files(""));
}

static void test_values(void **state) {
  (void)state;
  struct buf b = BUF_INIT(64);
  struct err err;
  assert_int_equal(secret_resolve("<${secrets.ONE}>", &values, &b, &err), 0);
  assert_string_equal(buf_str(&b), "<abc>");
  buf_reset(&b);
  assert_int_equal(secret_resolve("${secrets.TWO}", &values, &b, &err), -1);
  assert_null(strstr(err.msg, "\xff"));
  buf_reset(&b);
  assert_int_equal(secret_resolve("${secrets.NO}", NULL, &b, &err), -1);
  assert_string_equal(err.msg, "secret NO is missing");
  buf_free(&b);
}

/* A tar of one file. */
static size_t tar(uint8_t out[2048], char type, const char *size, const char *text) {
  memset(out, 0, 2048);
  snprintf((char *)out, 100, "passwd");
  snprintf((char *)out + 124, 12, "%s", size);
  out[156] = (uint8_t)type;
  snprintf((char *)out + 512, 2048 - 512, "%s", text);
  return 2048;
}

static int uid_of(char type, const char *size, const char *text, uid_t *uid) {
  uint8_t data[2048];
  return secret_user_in_archive(data, tar(data, type, size, text), "web", uid);
}

static void test_user(void **state) {
  (void)state;
  uid_t uid = 1;
  char name[64];
  assert_int_equal(secret_user_parse("", &uid, name), SECRET_USER_NUMBER);
  assert_int_equal(uid, 0);
  assert_int_equal(secret_user_parse("1000:5", &uid, name), SECRET_USER_NUMBER);
  assert_int_equal(uid, 1000);
  assert_int_equal(secret_user_parse("web:www", &uid, name), SECRET_USER_NAME);
  assert_string_equal(name, "web");
  assert_int_equal(secret_user_parse(":www", &uid, name), SECRET_USER_BAD);
  assert_int_equal(secret_user_parse("4294967295", &uid, name), SECRET_USER_NAME); /* chown's "leave it" is no user */
#define PASSWD "root:x:0:0::/:\nwebber:x:1:1::\n#\n\nweb:x:33:33::/:"
  assert_int_equal(uid_of('0', "00000000062", PASSWD, &uid), 0);
  assert_int_equal(uid, 33);
  assert_int_equal(uid_of(0, "62 ", PASSWD, &uid), 0);
  assert_int_equal(uid_of('2', "0", PASSWD, &uid), -1); /* a link leads anywhere */
  assert_int_equal(uid_of('5', "0", "", &uid), -1);
  assert_int_equal(uid_of('0', "7777777", PASSWD, &uid), -1); /* more than there is */
  assert_int_equal(uid_of('0', "77777777777", PASSWD, &uid), -1);
  assert_int_equal(uid_of('0', "x", PASSWD, &uid), -1);
  assert_int_equal(uid_of('0', "14", "web:x:99999999999:", &uid), -1);
  assert_int_equal(uid_of('0', "7", "web:x:9", &uid), -1);
  assert_int_equal(uid_of('0', "7", "web:x::", &uid), -1);
  assert_int_equal(secret_user_in_archive((const uint8_t *)"", 0, "web", &uid), -1);
}

static void test_files(void **state) {
  (void)state;
  char run[] = "/dev/shm/orca-test-XXXXXX", path[PATH_MAX];
  struct secret_files f;
  struct err err;
  struct stat st;
  if (!mkdtemp(run))
    skip();
  secret_files_open(&f, run, "cluster0", "n1");
  assert_true(f.fd < 0); /* nothing is made before it is needed */
  assert_int_equal(secret_files_lay(&f, "../x", &spec, &values, &err), -1);
  assert_int_equal(secret_files_lay(&f, "c1", &spec, &values, &err), 0);
  assert_int_equal(secret_files_lay(&f, "c1", &spec, &values, &err), 0); /* anew */
  char *evil[] = {TEXT("../../x")};
  two.name = evil[0];
  spec.secret_files = evil;
  assert_int_equal(secret_files_lay(&f, "c2", &spec, &values, &err), -1);
  spec.secret_files = files;
  two.name = TEXT("TWO");
  assert_true(secret_files_there(&f, "c1") && !secret_files_owned(&f, "c1") && !secret_files_there(&f, "c2"));
  assert_int_equal(mkdirat(f.fd, "c3", 0700), 0); /* an agent was killed while it laid them */
  assert_false(secret_files_there(&f, "c3"));
  assert_int_equal(secret_files_lay(&f, "c3", &spec, &values, &err), 0);
  assert_true(secret_files_there(&f, "c3"));
  secret_files_drop(&f, "c3");
  assert_int_equal(secret_files_own(&f, "c1", geteuid(), &err), 0);
  assert_true(secret_files_owned(&f, "c1"));
  assert_int_equal(secret_files_path(&f, "c1", path, &err), 0);
  size_t folder = strlen(path);
  assert_true((size_t)snprintf(path + folder, sizeof path - folder, "/TWO") < sizeof path - folder);
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0400);
  assert_int_equal(st.st_size, 2);
  secret_files_close(&f);
  /* a folder that others can enter is not ours */
  assert_int_equal(chmod(f.base, 0755), 0);
  secret_files_open(&f, run, "cluster0", "n1");
  assert_true(f.fd < 0);
  assert_int_equal(secret_files_lay(&f, "c1", &spec, &values, &err), -1);
  assert_non_null(strstr(err.msg, "others can enter"));
  assert_int_equal(chmod(f.base, 0700), 0);
  secret_files_open(&f, run, "cluster0", "n1");
  secret_files_drop(&f, "c1");
  assert_false(secret_files_there(&f, "c1") || f.fd >= 0); /* gone with the last */
  assert_int_equal(rmdir(run), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_label), cmocka_unit_test(test_values), cmocka_unit_test(test_user),
                                     cmocka_unit_test(test_files)};
  return cmocka_run_group_tests(tests, setup, NULL);
}
