/* systemd's files, as they lie in deploy/systemd, inside of orcactl: for machines that have orca without a package.
 * Threads: any. */
#ifndef ORCA_ORCACTL_UNITS_H
#define ORCA_ORCACTL_UNITS_H

#include <stdbool.h>
#include <stddef.h>

struct unit_file {
  const char *path; /* where it goes, absolute */
  const char *text;
  bool master_only;
};
extern const struct unit_file unit_files[];
extern const size_t unit_file_count;

#endif
