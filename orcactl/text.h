/* Text on a terminal: nothing that came from a server or a container may move the cursor, change colours or lie about its direction.
 * Threads: text_init() once, then any. */
#ifndef ORCA_ORCACTL_TEXT_H
#define ORCA_ORCACTL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

void text_init(void); /* the character widths of UTF-8, whatever the user's locale */
/* A mark of orcactl's own: as `ascii` where the user's locale is named and is none of UTF-8 ("C"), and a terminal would make all of them look alike.
 */
const char *text_mark(const char *mark, const char *ascii);
/* Appends s without control characters, escape sequences and marks of direction; a line break becomes a space, what is not UTF-8 becomes U+FFFD. */
void text_clean(const char *s, struct buf *to);
char *text_cleaned(const char *s);                    /* the same as a new string; NULL: no memory */
void text_clean_lines(const char *s, struct buf *to); /* keeps line breaks and tabs */
unsigned text_width(const char *s);                   /* columns of clean text */
/* Appends at most `columns` columns of clean text; where something was cut, the last one is "…". */
void text_cut(const char *s, unsigned columns, struct buf *to);
/* Appends s in lines of at most `columns`, broken between words; the first has `used` columns already, the others begin with `indent` spaces.
 * A line break in s is a space. A word that is wider than a line stays whole. */
void text_wrap(const char *s, unsigned used, unsigned indent, unsigned columns, struct buf *to);

void text_bytes(uint64_t bytes, char out[16]); /* "1.5Gi" */
void text_age(int64_t seconds, char out[16]);  /* "3h" */
int64_t text_time(const char *rfc3339);        /* Unix seconds; -1: not one */

#endif
