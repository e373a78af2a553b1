/* Who may own a private file, and with which mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crypto/key_file.h"

static void judged(void **state) {
  (void)state;
  static const struct {
    mode_t mode;
    uid_t owner, us;
    enum err_code code;
    const char *says;
  } cases[] = {
      {S_IFREG | 0400, 1000, 1000, ERR_NONE, NULL},
      {S_IFREG | 0600, 1000, 1000, ERR_NONE, NULL},
      {S_IFREG | 0400, 0, 1000, ERR_NONE, NULL},
      {S_IFREG | 0400, 0, 0, ERR_NONE, NULL},
      {S_IFREG | 0440, 1000, 1000, ERR_DENIED, "read by its group (mode 0440): chmod 0400"},
      {S_IFREG | 0404, 1000, 1000, ERR_DENIED, "read by others (mode 0404): chmod 0400"},
      {S_IFREG | 0420, 1000, 1000, ERR_DENIED, "changed by its group"},
      {S_IFREG | 0402, 1000, 1000, ERR_DENIED, "changed by others"},
      {S_IFREG | 0640, 0, 1000, ERR_DENIED, "read by its group"},
      {S_IFREG | 0400, 1001, 1000, ERR_DENIED, "belongs to user 1001"},
      {S_IFREG | 0400, 1001, 0, ERR_DENIED, "belongs to user 1001"},
      {S_IFIFO | 0400, 1000, 1000, ERR_INVALID, "not a regular file"},
      {S_IFDIR | 0700, 1000, 1000, ERR_INVALID, "not a regular file"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct stat st = {.st_mode = cases[i].mode, .st_uid = cases[i].owner};
    struct err err = {0};
    int rc = key_file_judge(&st, cases[i].us, "/k/agent.key", &err);
    assert_int_equal(rc, cases[i].says ? -1 : 0);
    if (!cases[i].says)
      continue;
    assert_int_equal(err.code, cases[i].code);
    assert_non_null(strstr(err.msg, "/k/agent.key"));
    assert_non_null(strstr(err.msg, cases[i].says));
  }
}

static void of_an_open_file(void **state) {
  (void)state;
  char path[] = "/tmp/orca-key-file-XXXXXX";
  int fd = mkstemp(path);
  struct err err;
  assert_true(fd >= 0);
  assert_int_equal(key_file_check(fd, path, &err), 0);
  assert_int_equal(fchmod(fd, 0640), 0);
  assert_int_equal(key_file_check(fd, path, &err), -1);
  assert_int_equal(err.code, ERR_DENIED);
  close(fd);
  unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(judged), cmocka_unit_test(of_an_open_file)};
  return cmocka_run_group_tests_name("key_file", tests, NULL, NULL);
}
