#include "tests/lib/folder.h"

#include <errno.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void must(bool done, const char *path) {
  if (done)
    return;
  fprintf(stderr, "%s: %s\n", path, strerror(errno));
  abort();
}

void folder_make(char dir[FOLDER_MAX]) {
  snprintf(dir, FOLDER_MAX, "/tmp/orca-test-XXXXXX");
  must(mkdtemp(dir) != NULL, dir);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

void folder_remove(const char *dir) {
  must(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, dir);
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
  must(f != NULL, full);
  bool written = fwrite(data, 1, len, f) == len;
  must(fclose(f) == 0 && written, full);
}

void folder_put_text(const char *dir, const char *path, const char *text) {
  folder_put(dir, path, text, strlen(text));
}
