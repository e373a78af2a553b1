/* Tables that align and fit the terminal: the widest columns give way first, cut with "…"; then the minor ones are left out, then the rest is cut.
 * The first column, which says what a row is of, is cut last.
 * Ownership: cells are copied, cleaned of what does not belong on a terminal. Threads: none. */
#ifndef ORCA_ORCACTL_TABLE_H
#define ORCA_ORCACTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

#define TABLE_COLUMNS_MAX 16

enum table_color { TABLE_PLAIN, TABLE_GREEN, TABLE_YELLOW, TABLE_RED, TABLE_DIM };

struct table_cell {
  char *text;
  enum table_color color;
};
struct table {
  const char *heads[TABLE_COLUMNS_MAX];
  bool right[TABLE_COLUMNS_MAX];
  size_t columns;
  const char *minor;        /* heads of columns that a narrow terminal can do without, the first to go first: "IMAGE,REV"; NULL: none */
  struct table_cell *cells; /* row by row */
  size_t count, size;
  bool failed; /* memory ended */
};

void table_free(struct table *t);
void table_column(struct table *t, const char *head, bool right); /* all before the first cell */
void table_cell(struct table *t, enum table_color color, const char *text);
void table_cellf(struct table *t, enum table_color color, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* width 0: as wide as it is. */
void table_print(const struct table *t, unsigned width, bool color, struct buf *to);
const char *table_color_code(enum table_color color); /* "\033[32m"; "" for plain */

#endif
