/* A folder of a test's own. What goes wrong is told and ends the test. */
#ifndef ORCA_TESTS_LIB_FOLDER_H
#define ORCA_TESTS_LIB_FOLDER_H

#include <stddef.h>

#define FOLDER_MAX 64

/* A new one; its path is written into `dir`. */
void folder_make(char dir[FOLDER_MAX]);
/* With all that is in it. */
void folder_remove(const char *dir);

/* A file in it, with the folders that its path names. */
void folder_put(const char *dir, const char *path, const void *data, size_t len);
void folder_put_text(const char *dir, const char *path, const char *text);

#endif
