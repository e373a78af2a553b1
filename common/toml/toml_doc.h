/* The inside of a TOML document, for the files of this folder only. */
#ifndef ORCA_COMMON_TOML_TOML_DOC_H
#define ORCA_COMMON_TOML_TOML_DOC_H

#include "common/toml/toml.h"

struct toml_doc {
  struct toml_value root;
  struct chunk *chunks;
  size_t faults;
};

void *toml_alloc(struct toml_doc *doc, size_t size); /* zeroed, freed with the document */

#endif
