/* Values of secrets on their way into a container, and the label that says which it was made with.
 *
 *   orca.secrets = "DB_URL:3 KEY:1:f TOKEN:7:g TLS:2:gf"     version; g: of the global scope; f: also a file
 * What does not fit into the label is left out: nothing is said of it then.
 * Threads: pure. */
#ifndef ORCA_AGENT_SECRET_VALUES_H
#define ORCA_AGENT_SECRET_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "orca-agent/container.h"
#include "proto/node.pb-c.h"

struct secret_label {
  char name[132];
  uint64_t version;
  bool global, file;
};
void secret_label_write(const Node__Secrets *secrets, const Model__ServiceSpec *spec, char out[AGENT_SECRETS_LABEL_MAX]);
/* The next entry of a label, which may be anybody's text; moves *at behind it. false: none is left. */
bool secret_label_next(const char **at, struct secret_label *ret);
bool secret_label_has_files(const char *label);

const Node__SecretValue *secret_value_of(const Node__Secrets *secrets, const char *name);
/* A value of env: references filled in. Errors name the secret, never its value. */
int secret_resolve(const char *value, const Node__Secrets *secrets, struct buf *to, struct err *err);
void secret_values_free(Node__Secrets *secrets); /* wiped; takes NULL */

#endif
