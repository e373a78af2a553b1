/* The table of keys that drives everything: what a row says, and how a tree is read by it. Rows of service.toml and cluster.toml stand
 * in spec_keys.c, those of node.toml in node_config.c.
 *
 * A key's value lands in the protobuf field it names (found by descriptor), or for node.toml, which stays free of the model, at an offset.
 * Inside of common/spec only. Threads: the tables are constant; a reader has one owner. */
#ifndef ORCA_COMMON_SPEC_SPEC_TABLE_H
#define ORCA_COMMON_SPEC_SPEC_TABLE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/spec/faults.h"
#include "common/toml/toml.h"

struct Model__ServiceSpec;

enum spec_kind {
  SPEC_STRING,
  SPEC_INTEGER,
  SPEC_CPU, /* cores, a number; kept as thousandths */
  SPEC_BOOL,
  SPEC_DURATION, /* "30s"; kept as ms */
  SPEC_SIZE,     /* "512Mi" or bytes */
  SPEC_CHOICE,   /* one of `choices` */
  SPEC_STRINGS,  /* an array of strings */
  SPEC_MAP,      /* a table of strings; kept as Pairs */
  SPEC_TABLE,
  SPEC_TABLES, /* an array of tables */
};

struct spec_choice {
  const char *text; /* NULL ends the list */
  int value;
  bool later, alias; /* alias: read, never printed */
};

enum {
  SPEC_REQUIRED = 1,
  SPEC_LATER = 2,       /* known, its feature isn't there yet: "not supported yet: KEY" */
  SPEC_SHORT = 4,       /* a shorthand or older spelling: read, never printed */
  SPEC_ALWAYS = 8,      /* spec_fill_defaults makes this table even when it is absent */
  SPEC_NO_REFS = 16,    /* ${…} means nothing here */
  SPEC_OF_SERVICE = 32, /* of [[service]] alone: what ends has no use for it */
  SPEC_OF_JOB = 64,     /* of [[job]] alone */
  SPEC_SECRETS = 128,   /* ${secrets.X} is filled in here; elsewhere it is refused */
};

struct spec_reader;
struct spec_table;
struct spec_key;

/* NULL, or what is wrong: "must begin with /". len: without NULs by then. */
typedef const char *spec_check_fn(const char *text);
typedef void spec_read_fn(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target);
/* The value to print; NULL and *absent = true when there is nothing to print; NULL alone when memory ended. */
typedef struct toml_value *spec_write_fn(struct toml_doc *doc, const struct spec_key *key, const ProtobufCMessage *msg, bool *absent);

struct spec_key {
  const char *name;
  enum spec_kind kind;
  unsigned flags;
  const char *field;     /* of the table's message; NULL: none */
  const char *within;    /* the message in the table's message that has the field; NULL: the table's itself */
  size_t offset;         /* of the table's struct, where it has no message */
  int64_t min, max;      /* integers and sizes as they are, durations in ms, cpu in thousandths; max 0: no bounds */
  const char *otherwise; /* the default, as TOML text; in words (not filled in) when it begins with ( */
  const struct spec_choice *choices;
  spec_check_fn *check;      /* of a string, each string of an array, each value of a map */
  spec_check_fn *check_name; /* of each key of a map */
  const struct spec_table *table;
  spec_read_fn *read; /* instead of what `kind` does; it then says the printed form */
  spec_write_fn *write;
  const char *help;
  const char *instead; /* of a key that is not supported: what to write in its place */
};

struct spec_table {
  const char *heading; /* for the reference: "[service.deploy]" */
  const char *help;
  const ProtobufCMessageDescriptor *desc;
  const struct spec_key *keys;
  size_t count;
  void (*finish)(struct spec_reader *r, const struct toml_value *table, void *target); /* what concerns several keys */
};

struct spec_reader {
  struct spec_faults *faults;
  const char *file;
  struct buf path;
  bool partial;        /* the text had faults of syntax: what seems to be missing may only be unread */
  bool memory;         /* ended */
  bool resolved;       /* orcactl has been here: no ${env.X} is left */
  const char *project; /* the default of services that name none */
  /* Called with each mount that has no fault so far (the files of those in the infra directory are collected there). NULL: not wanted. */
  void (*collect)(struct spec_reader *r, const struct toml_value *at, ProtobufCMessage *mount);
  void *collect_arg;
};

/* Reads `value` into `target` (a message of table->desc, or the struct that offsets count in). Faults are added, what is right is stored. */
void spec_read_table(struct spec_reader *r, const struct spec_table *table, const struct toml_value *value, void *target);
/* One key's value, also for defaults. */
void spec_read_key(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const struct spec_table *table, void *target);
void spec_fault(struct spec_reader *r, const struct toml_value *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Faults that belong to a part of the value: "[3]", ".name". Returns what to hand to spec_path_pop. */
size_t spec_path_push(struct spec_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void spec_path_pop(struct spec_reader *r, size_t mark);

/* A string that may be stored: type, no NUL, references known, check passed. NULL after a fault. */
const char *spec_read_string(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value);
bool spec_has_refs(const char *text); /* an unresolved ${ that is not $${ */

const struct spec_key *spec_find_key(const struct spec_table *table, const char *name);

/* ---- protobuf messages through their descriptors ---- */

void *spec_field(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *fd);
ProtobufCMessage **spec_within(const ProtobufCMessage *msg, const char *field); /* where that message is, or is to be */
bool spec_field_present(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *fd);
ProtobufCMessage *spec_message_new(const ProtobufCMessageDescriptor *desc);
/* Appends to a repeated field of pointers; takes item, frees it on failure (strings by free, messages as unpacked ones). */
int spec_repeated_add(ProtobufCMessage *msg, const char *field, void *item);
int spec_pairs_add(ProtobufCMessage *msg, const char *field, const char *key, const char *value);

/* ---- checks (spec_words.c) ---- */

spec_check_fn spec_check_name, spec_check_env_name, spec_check_domain, spec_check_host, spec_check_route, spec_check_absolute, spec_check_nonempty,
    spec_check_label_name, spec_check_service_ref, spec_check_signal, spec_check_cidr, spec_check_listen, spec_check_curve_key, spec_check_cap,
    spec_check_device, spec_check_image, spec_check_user, spec_check_driver, spec_check_cluster_id, spec_check_volume_name, spec_check_alias,
    spec_check_http_path, spec_check_target, spec_check_below, spec_check_sha256, spec_check_secret_name, spec_check_mount_source,
    spec_check_schedule, spec_check_zone;
/* The nearest of the names, near enough to be meant; NULL when none is. */
const char *spec_nearest(const char *text, const char *(*name)(const void *list, size_t i), const void *list);

extern const struct spec_table spec_node_file, spec_service_file, spec_cluster_file, spec_service_table, spec_job_table;
/* The two share their rows: those with this flag are of the other one. */
static inline unsigned spec_without(const struct spec_table *table) {
  return table == &spec_job_table ? SPEC_OF_SERVICE : SPEC_OF_JOB;
}
/* Which of the two a spec is of. */
const struct spec_table *spec_table_of(const struct Model__ServiceSpec *spec);

#endif
