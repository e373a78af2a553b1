/* Files of NAME=VALUE lines, as people keep them beside a project (".env").
 *
 *   # a comment                      NAME = value          spaces around are not part of it; " #" begins a comment
 *   export NAME=value                NAME='as it is'       also over several lines
 *   NAME=                            NAME="a\nb \" \\ \$"  escapes n r t " \ $ ; also over several lines
 *
 * Nothing is filled in: $X and ${X} are text. A name that comes twice is a fault. Errors name the line, never a value.
 * Threads: pure. */
#ifndef ORCA_COMMON_ENVFILE_ENVFILE_H
#define ORCA_COMMON_ENVFILE_ENVFILE_H

#include <stddef.h>

#include "common/err.h"

#define ENVFILE_NAME_MAX 128

/* value is followed by a NUL, and wiped after the call. -1 ends it. line: where the name stands. */
typedef int envfile_pair_fn(void *arg, const char *name, const char *value, size_t len, unsigned line, struct err *err);
int envfile_parse(const char *text, size_t len, envfile_pair_fn *each, void *arg, struct err *err);

#endif
