/* Making sets, inside of common/spec. */
#ifndef ORCA_COMMON_SPEC_SPEC_SET_H
#define ORCA_COMMON_SPEC_SPEC_SET_H

#include "common/spec/spec.h"
#include "common/spec/spec_table.h"

/* Reads one service into a new slot of the set; its faults go to the reader. -1: memory. r->project is its default project. */
int spec_set_add(struct spec_set *set, struct spec_reader *r, const struct spec_table *table, const struct toml_value *value);
/* Takes content. One that is there already is freed. -1: memory (content is freed). */
int spec_set_add_file(struct spec_set *set, const char sha256[65], uint8_t *content, size_t len);

/* Names that are there twice, in files with the place of each. */
void spec_check_names(const struct spec_set *set, struct spec_faults *faults);

/* Text of a whole file by its table. r needs file and faults (and project, collect). -1: it has faults. */
int spec_parse_file(struct spec_reader *r, const char *text, size_t len, const struct spec_table *table, void *target);

/* JSON in the form of a tree, and back. NULL when memory ended. */
struct toml_value *spec_tree_from_json(struct toml_doc *doc, const json_t *json, unsigned depth);
json_t *spec_tree_to_json(const struct toml_value *value);

/* A message as a tree, by its table; NULL when memory ended. */
struct toml_value *spec_write_table(struct toml_doc *doc, const struct spec_table *table, const ProtobufCMessage *msg);

#endif
