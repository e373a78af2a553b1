/* TOML 1.0.0: text to a tree with the place of every key and value, and a tree to text.
 *
 * The parser goes on after a fault where it can, so that one run reports them all; a document with faults has a partial tree.
 * Trees can also be built by hand (the API's JSON becomes one, so that one reader serves both). A document owns
 * everything in it; values and strings live until toml_free().
 * Limits: TOML_DEPTH levels of nesting, TOML_FAULTS_MAX faults a document; the caller limits the size of the text.
 * Threads: one owner a document; read-only use from several is fine. */
#ifndef ORCA_COMMON_TOML_TOML_H
#define ORCA_COMMON_TOML_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define TOML_DEPTH 128
#define TOML_FAULTS_MAX 100

enum toml_type {
  TOML_STRING,
  TOML_INTEGER,
  TOML_FLOAT,
  TOML_BOOL,
  TOML_DATETIME,
  TOML_DATETIME_LOCAL,
  TOML_DATE_LOCAL,
  TOML_TIME_LOCAL,
  TOML_ARRAY,
  TOML_TABLE,
};

struct toml_time { /* only the parts that its type has */
  uint16_t year;
  uint8_t month, day, hour, minute, second;
  uint8_t digits; /* of the fraction, as written; at most 9 count */
  uint32_t nanos;
  int16_t offset; /* minutes east of UTC */
};

struct toml_entry;

/* How a table or array came to be decides what may still be added to it (toml.io, "Table"). */
enum toml_origin {
  TOML_IMPLICIT, /* a parent in somebody's [header] */
  TOML_HEADER,   /* [header], or one element of [[header]] */
  TOML_DOTTED,   /* a parent in a dotted key */
  TOML_CLOSED,   /* { … } or [ … ] */
  TOML_TABLES,   /* the array of [[header]] */
};

struct toml_value {
  enum toml_type type;
  enum toml_origin origin;
  uint32_t line, column; /* 1-based, column in characters; 0 when built by hand */
  union {
    struct {
      char *data; /* NUL-terminated; may hold NULs, then strlen(data) < len */
      size_t len;
    } string;
    int64_t integer;
    double number;
    bool boolean;
    struct toml_time time;
    struct {
      struct toml_value **items;
      size_t count, size;
    } array;
    struct {
      struct toml_entry *entries; /* in order of appearance */
      size_t count, size;
      uint32_t *index; /* hash of keys, once there are many */
      size_t index_size;
    } table;
  };
};

struct toml_entry {
  char *key; /* as string.data */
  size_t key_len;
  uint32_t line, column;
  struct toml_value *value;
};

struct toml_doc;

typedef void toml_fault_fn(void *arg, unsigned line, unsigned column, const char *message);

/* Never fails but for memory (NULL). Every fault is handed to `fault` (NULL: only counted). */
struct toml_doc *toml_parse(const char *text, size_t len, toml_fault_fn *fault, void *arg);
struct toml_doc *toml_doc_new(void); /* an empty one, to build by hand */
void toml_free(struct toml_doc *doc);

struct toml_value *toml_root(struct toml_doc *doc);
size_t toml_fault_count(const struct toml_doc *doc);

struct toml_entry *toml_find(const struct toml_value *table, const char *key, size_t len); /* NULL when absent */
struct toml_value *toml_get(const struct toml_value *table, const char *key);

/* Building. NULL when memory ended; then the document stays valid, without the new part. */
struct toml_value *toml_new(struct toml_doc *doc, enum toml_type type);
struct toml_value *toml_new_string(struct toml_doc *doc, const char *s, size_t len);
struct toml_entry *toml_table_add(struct toml_doc *doc, struct toml_value *table, const char *key, size_t len, struct toml_value *value);
int toml_array_add(struct toml_doc *doc, struct toml_value *array, struct toml_value *value);

/* ---- printing (toml_print.c) ---- */

/* The root as a document: plain keys first, then [tables] and [[arrays of tables]]; parse gives the same tree. */
int toml_print(const struct toml_value *root, struct buf *to);
int toml_print_value(const struct toml_value *value, struct buf *to); /* inline, as behind `=` */
int toml_print_key(const char *key, size_t len, struct buf *to);      /* in quotes where it needs them */
void toml_print_time(const struct toml_value *value, struct buf *to); /* RFC 3339, the parts that the type has */
void toml_print_float(double number, struct buf *to);                 /* the shortest that reads back the same; "inf", "nan" */
const char *toml_type_name(enum toml_type type);                      /* "string", "date-time" … */

#endif
