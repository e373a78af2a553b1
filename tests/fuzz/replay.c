/* Runs a fuzzer's entry point once for each file of the folders and files it is given: the corpus, replayed without a fuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

#define INPUT_MAX ((size_t)4 << 20)

static int run_file(const char *path) {
  FILE *file = fopen(path, "rb");
  uint8_t *data = malloc(INPUT_MAX);
  if (!file || !data) {
    perror(path);
    return 1;
  }
  size_t size = fread(data, 1, INPUT_MAX, file);
  fclose(file);
  LLVMFuzzerTestOneInput(data, size);
  free(data);
  return 0;
}

int main(int argc, char **argv) {
  int rc = 0;
  if (LLVMFuzzerInitialize)
    LLVMFuzzerInitialize(&argc, &argv);
  for (int i = 1; i < argc; i++) {
    struct stat st;
    if (stat(argv[i], &st) < 0) {
      perror(argv[i]);
      return 1;
    }
    DIR *dir = S_ISDIR(st.st_mode) ? opendir(argv[i]) : NULL;
    if (!dir) {
      rc |= run_file(argv[i]);
      continue;
    }
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
      char path[4096];
      if (entry->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name) < (int)sizeof path)
        rc |= run_file(path);
    }
    closedir(dir);
  }
  return rc;
}
