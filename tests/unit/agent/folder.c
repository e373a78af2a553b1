#include "tests/unit/agent/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void folder_make(char dir[FOLDER_MAX]) {
  snprintf(dir, FOLDER_MAX, "/tmp/orca-test-XXXXXX");
  assert_non_null(mkdtemp(dir));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

void folder_remove(const char *dir) {
  assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void folder_put(const char *dir, const char *path, const void *data, size_t len) {
  char full[512];
  snprintf(full, sizeof full, "%s/%s", dir, path);
  for (char *slash = strchr(full + strlen(dir) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(full, 0755);
    *slash = '/';
  }
  FILE *f = fopen(full, "we");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, len, f), len);
  assert_int_equal(fclose(f), 0);
}

void folder_put_text(const char *dir, const char *path, const char *text) {
  folder_put(dir, path, text, strlen(text));
}
