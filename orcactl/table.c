#include "orcactl/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/text.h"

#define GAP 2
/* What a column is not cut below, one after the other until the table fits. */
#define READABLE 12 /* then minor columns go */
#define NARROW 6
#define NARROWEST 4

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

struct layout {
  unsigned widths[TABLE_COLUMNS_MAX];
  bool hidden[TABLE_COLUMNS_MAX];
};

static unsigned total_of(const struct table *t, const struct layout *l) {
  unsigned total = 0;
  for (size_t c = 0; c < t->columns; c++)
    total += l->hidden[c] ? 0 : l->widths[c] + (c ? GAP : 0);
  return total;
}

/* Cuts the widest ones, none below `narrowest`, the first not below `first`. Whether that was enough. */
static bool fit(const struct table *t, struct layout *l, unsigned width, unsigned narrowest, unsigned first) {
  for (unsigned total = total_of(t, l); total > width; total--) {
    size_t widest = t->columns;
    for (size_t c = 0; c < t->columns; c++)
      if (!l->hidden[c] && l->widths[c] > (c ? narrowest : first) && (widest == t->columns || l->widths[c] > l->widths[widest]))
        widest = c;
    if (widest == t->columns)
      return false;
    l->widths[widest]--;
  }
  return true;
}

/* The first of t->minor that is still shown is not from now on. */
static bool hide_one(const struct table *t, struct layout *l) {
  for (const char *head = t->minor; head && *head; head += head[strcspn(head, ",")] ? strcspn(head, ",") + 1 : strlen(head))
    for (size_t c = 1; c < t->columns; c++)
      if (!l->hidden[c] && strlen(t->heads[c]) == strcspn(head, ",") && strncmp(t->heads[c], head, strlen(t->heads[c])) == 0)
        return l->hidden[c] = true;
  return false;
}

static void fit_all(const struct table *t, struct layout *l, unsigned width) {
  const struct layout whole = *l;
  unsigned half = width / 2 > NARROW ? width / 2 : NARROW, first = l->widths[0] < half ? l->widths[0] : half;
  do {
    memcpy(l->widths, whole.widths, sizeof l->widths);
    if (fit(t, l, width, READABLE, first))
      return;
  } while (hide_one(t, l));
  if (fit(t, l, width, NARROW, first) || fit(t, l, width, NARROW, NARROW))
    return;
  struct layout narrow = *l;
  if (fit(t, &narrow, width, NARROWEST, NARROWEST))
    *l = narrow;
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
  struct layout l = {0};
  size_t last = 0;
  for (size_t c = 0; c < t->columns; c++) {
    l.widths[c] = text_width(t->heads[c]);
    for (size_t i = c; i < t->count; i += t->columns) {
      unsigned w = text_width(t->cells[i].text);
      if (w > l.widths[c])
        l.widths[c] = w;
    }
  }
  if (width && t->columns)
    fit_all(t, &l, width);
  for (size_t c = 0; c < t->columns; c++)
    last = l.hidden[c] ? last : c;
  for (size_t c = 0; c < t->columns; c++)
    if (!l.hidden[c])
      put(t->heads[c], l.widths[c], t->right[c], c == last, color ? "\033[1m" : "", to);
  buf_add_byte(to, '\n');
  for (size_t i = 0; i + t->columns <= t->count; i += t->columns) {
    for (size_t c = 0; c < t->columns; c++)
      if (!l.hidden[c])
        put(t->cells[i + c].text, l.widths[c], t->right[c], c == last, color ? table_color_code(t->cells[i + c].color) : "", to);
    buf_add_byte(to, '\n');
  }
}
