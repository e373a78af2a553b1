/* What several commands show alike.
 * Threads: none. */
#ifndef ORCA_ORCACTL_VIEW_H
#define ORCA_ORCACTL_VIEW_H

#include <jansson.h>

#include "orcactl/ctl.h"
#include "orcactl/table.h"

enum table_color view_status_color(const char *status);
bool view_status_is_bad(const char *status);           /* somebody should look */
void view_join(const json_t *strings, struct buf *to); /* "n1,n2" */
void view_age(const char *rfc3339, char out[16]);      /* "3h", "-" */
void view_when(const char *rfc3339, char out[32]);     /* "in 12s", "3m ago", "" */
void view_line(const char *name, const char *value);   /* to stdout, when there is a value */
void view_put(struct buf *line);                       /* to stdout, with a line's end; frees */
/* Appends what came from elsewhere, cleaned: in a colour where there are colours; behind a word, and only where there is a text. */
void view_colored(const struct ctl *ctl, struct buf *to, enum table_color color, const char *text);
void view_after(struct buf *to, const char *before, const char *text);
void view_spec(const json_t *spec);                                  /* to stdout */
void view_explain_instance(struct ctl *ctl, const json_t *instance); /* cmd_explain.c; to stdout */
void view_instance_columns(struct table *t, bool wide);
void view_instance_row(struct table *t, const json_t *instance, bool wide);
void view_instances(const struct ctl *ctl, const json_t *instances); /* to stdout, as a table behind an empty line; nothing for none */
/* The page of `orcactl status`: a line that says whether all is well, the table, what is wrong. */
void view_status(const struct ctl *ctl, const json_t *reply, struct buf *to);
void view_print(const struct ctl *ctl, const struct table *t); /* to stdout */
/* Draws the page over the last one, where the cursor can be moved; as much of it as the terminal has rows for. */
void view_draw(struct buf *page);
void view_fit(const char *page, unsigned rows, unsigned columns, struct buf *to); /* what is drawn; 0: not known, all of it */

#endif
