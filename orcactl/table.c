#include "orcactl/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/text.h"

#define GAP 2
#define NARROW 6    /* a column is not cut below this, */
#define NARROWEST 4 /* or below this, where the table fits then */

void table_free(struct table *t) {
  for (size_t i = 0; i < t->count; i++)
    free(t->cells[i].text);
  free(t->cells);
  *t = (struct table){0};
}

void table_column(struct table *t, const char *head, bool right) {
  if (t->columns == TABLE_COLUMNS_MAX)
    return;
  t->heads[t->columns] = head;
  t->right[t->columns++] = right;
}

void table_cell(struct table *t, enum table_color color, const char *text) {
  if (t->count == t->size) {
    size_t size = t->size ? 2 * t->size : 64;
    struct table_cell *cells = reallocarray(t->cells, size, sizeof *cells);
    if (!cells) {
      t->failed = true;
      return;
    }
    t->cells = cells;
    t->size = size;
  }
  char *copy = text_cleaned(text ? text : "");
  if (!copy) {
    t->failed = true;
    return;
  }
  t->cells[t->count++] = (struct table_cell){copy, color};
}

void table_cellf(struct table *t, enum table_color color, const char *fmt, ...) {
  struct buf b = BUF_INIT((size_t)1 << 20);
  va_list ap;
  va_start(ap, fmt);
  buf_vprintf(&b, fmt, ap);
  va_end(ap);
  table_cell(t, color, buf_str(&b));
  buf_free(&b);
}

const char *table_color_code(enum table_color color) {
  switch (color) {
  case TABLE_GREEN:
    return "\033[32m";
  case TABLE_YELLOW:
    return "\033[33m";
  case TABLE_RED:
    return "\033[31m";
  case TABLE_DIM:
    return "\033[2m";
  case TABLE_PLAIN:
    break;
  }
  return "";
}

/* No column is cut below `narrowest`. Whether that was enough. */
static bool fit(const struct table *t, unsigned widths[TABLE_COLUMNS_MAX], unsigned width, unsigned narrowest) {
  for (;;) {
    unsigned total = 0;
    size_t widest = 0;
    for (size_t c = 0; c < t->columns; c++) {
      total += widths[c] + (c ? GAP : 0);
      if (widths[c] > widths[widest])
        widest = c;
    }
    if (total <= width || widths[widest] <= narrowest)
      return total <= width;
    /* down to the next widest, or as far as is needed */
    unsigned second = narrowest;
    for (size_t c = 0; c < t->columns; c++)
      if (c != widest && widths[c] < widths[widest] && widths[c] > second)
        second = widths[c];
    unsigned less = widths[widest] - second, over = total - width;
    widths[widest] -= less && less < over ? less : over < widths[widest] - narrowest ? over : widths[widest] - narrowest;
  }
}

static void put(const char *text, unsigned width, bool right, bool last, const char *color, struct buf *to) {
  struct buf cut = BUF_INIT((size_t)1 << 20);
  text_cut(text, width, &cut);
  unsigned used = text_width(buf_str(&cut));
  unsigned pad = used < width ? width - used : 0;
  if (right)
    buf_printf(to, "%*s", (int)pad, "");
  buf_printf(to, "%s%s%s", color, buf_str(&cut), *color ? "\033[0m" : "");
  if (!right && !last)
    buf_printf(to, "%*s", (int)pad, "");
  if (!last)
    buf_printf(to, "%*s", GAP, "");
  buf_free(&cut);
}

void table_print(const struct table *t, unsigned width, bool color, struct buf *to) {
  unsigned widths[TABLE_COLUMNS_MAX];
  for (size_t c = 0; c < t->columns; c++) {
    widths[c] = text_width(t->heads[c]);
    for (size_t i = c; i < t->count; i += t->columns) {
      unsigned w = text_width(t->cells[i].text);
      if (w > widths[c])
        widths[c] = w;
    }
  }
  unsigned narrow[TABLE_COLUMNS_MAX];
  if (width && !fit(t, widths, width, NARROW)) {
    memcpy(narrow, widths, sizeof narrow);
    if (fit(t, narrow, width, NARROWEST))
      memcpy(widths, narrow, sizeof widths);
  }
  for (size_t c = 0; c < t->columns; c++)
    put(t->heads[c], widths[c], t->right[c], c + 1 == t->columns, color ? "\033[1m" : "", to);
  buf_add_byte(to, '\n');
  for (size_t i = 0; i + t->columns <= t->count; i += t->columns) {
    for (size_t c = 0; c < t->columns; c++)
      put(t->cells[i + c].text, widths[c], t->right[c], c + 1 == t->columns, color ? table_color_code(t->cells[i + c].color) : "", to);
    buf_add_byte(to, '\n');
  }
}
