/* What people write, and what it means: the one library in common/ that knows the model.
 *
 * Everything about a key of service.toml, cluster.toml and node.toml stands in one table (spec_keys.c: path, type, range,
 * default, help, whether it is supported yet), which drives reading TOML, reading and printing the API's JSON, filling in defaults, the JSON
 * schema of the OpenAPI document, "did you mean", and the reference in docs/.
 * Strings with ${secrets.X}, ${env.X} and $${ stay as they are.
 * Threads: pure functions of their arguments (reading a directory reads files). */
#ifndef ORCA_COMMON_SPEC_SPEC_H
#define ORCA_COMMON_SPEC_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/spec/faults.h"
#include "common/spec/spec_units.h"
#include "proto/model.pb-c.h"

/* ---- a whole set: what one deploy carries ---- */

#define SPEC_FILE_MAX (1 << 20)  /* bytes of one file that a mount ships */
#define SPEC_FILES_MAX (8 << 20) /* of all files of a deploy */

struct spec_file { /* content that mounts refer to by hash */
  char sha256[65];
  uint8_t *content;
  size_t len;
};
struct spec_place { /* where a service was written */
  char *file;       /* "" for JSON */
  unsigned line, column;
};
struct spec_set {
  Model__ServiceSpec **services; /* and jobs: those have ->job. Owned; as written, defaults not filled in; name and project always set */
  size_t service_count;
  struct spec_place *places; /* of the services as they were read; whoever changes their list loses the places, and faults then go without */
  size_t place_count;
  Model__ClusterSpec *cluster; /* NULL when absent */
  struct spec_file *files;
  size_t file_count;
};
void spec_set_free(struct spec_set *set);

/* Reads DIR/cluster.toml and DIR/services/PROJECT/service.toml, and the files that mounts name. -1: faults has them all
 * (err sums them up, or says what could not be read at all). */
int spec_read_infra(const char *dir, struct spec_set *ret, struct spec_faults *faults, struct err *err);
/* The nearest parent of `from` that has a cluster.toml; the caller frees. NULL when there is none. */
char *spec_find_infra(const char *from);

/* Replaces ${env.X} in every string of the set by lookup(X) (getenv, in orcactl); a missing one is a fault. $${ and ${secrets.X} stay. */
int spec_resolve_env(struct spec_set *set, const char *(*lookup)(const char *name), struct spec_faults *faults);
/* $${ → ${; ERR_UNPROCESSABLE when an unresolved ${ is left. The agent's last step. */
int spec_unescape(const char *value, struct buf *to, struct err *err);

/* ---- secrets ---- */

typedef int spec_secret_name_fn(void *arg, const char *name, bool file);
/* Each ${secrets.X} of env, then secret_files; one that is named twice comes twice. -1 from `each` ends it. */
int spec_secret_names(const Model__ServiceSpec *spec, spec_secret_name_fn *each, void *arg);
bool spec_names_secrets(const Model__ServiceSpec *spec);
typedef bool spec_secret_value_fn(void *arg, const char *name, const uint8_t **value, size_t *len);
/* A value of env as the container gets it: ${secrets.X} filled in, $${ → ${. The caller wipes `to`. Errors never quote a value. */
int spec_resolve_secrets(const char *value, spec_secret_value_fn *lookup, void *arg, struct buf *to, struct err *err);

/* Of "ADDRESS:PORT" or "[ADDRESS]:PORT", as [api] listen has it: the address without brackets; false when there is none, or it doesn't fit. */
bool spec_listen_host(const char *listen, char *out, size_t size);
bool spec_listen_is_loopback(const char *listen); /* there the apiserver itself listens; elsewhere the proxies do, over TLS */

/* One [[service]] document (for tests and fuzzing): text of a service.toml. */
int spec_parse_services(const char *file, const char *text, size_t len, const char *project, struct spec_set *ret, struct spec_faults *faults);
int spec_parse_cluster(const char *file, const char *text, size_t len, Model__ClusterSpec **ret, struct spec_faults *faults);

/* The API's form: {"services":[…],"jobs":[…],"cluster":{…},"files":{"SHA256":"base64"}}; keys and units as in TOML (durations
 * and sizes may be strings or numbers as there). Same table, same checks; faults carry the path. */
int spec_set_from_json(const json_t *json, struct spec_set *ret, struct spec_faults *faults);
json_t *spec_set_to_json(const struct spec_set *set);         /* what orcactl sends */
json_t *spec_service_to_json(const Model__ServiceSpec *spec); /* of a service or a job: keys as in TOML */
json_t *spec_cluster_to_json(const Model__ClusterSpec *cluster);
int spec_cluster_to_toml(const Model__ClusterSpec *cluster, struct buf *to);
int spec_service_to_toml(const Model__ServiceSpec *spec, struct buf *to); /* print → parse gives the same message */

/* Faults that only show between services, or against the cluster: duplicate names, cycles of depends_on, a port twice on one node,
 * [policy] refusals. `others`: what is deployed already and not part of set. */
void spec_check_set(const struct spec_set *set, Model__ServiceSpec *const *others, size_t other_count, const Model__ClusterSpec *cluster,
                    struct spec_faults *faults);
/* [policy] alone, as the agent checks it again: NULL cluster allows nothing special. 0, or -1 and ERR_DENIED with the key's name. */
int spec_check_policy(const Model__ServiceSpec *spec, const Model__ClusterSpec *cluster, struct err *err);

/* A domain and path that both have. */
bool spec_shares_route(const Model__ServiceSpec *a, const Model__ServiceSpec *b, const char **ret_domain, const char **ret_route);
/* What came out of the store, or from a master: every key once more as when it is written, and no ${env.X} left. 0, or -1 and ERR_UNPROCESSABLE
 * with the key's name. */
int spec_check_stored(const Model__ServiceSpec *spec, struct err *err);
/* Both: before anything of a spec is carried out that was not just read. */
int spec_check_all(const Model__ServiceSpec *spec, const Model__ClusterSpec *cluster, struct err *err);

/* ---- meaning ---- */

/* In place; every documented default. resources, deploy, placement and proxy are there after it; placement.spread stays absent (the node
 * itself), as do memory, cpu and pids without a limit. */
void spec_fill_defaults(Model__ServiceSpec *spec);
void spec_fill_cluster_defaults(Model__ClusterSpec *cluster); /* policy and logs are filled in only where they are there */
void spec_fill_probe(Model__Probe *probe, uint32_t port);
/* Hex SHA-256 of what makes a revision: the spec with defaults filled in, without replicas. */
void spec_hash(const Model__ServiceSpec *spec, char out[65]);
bool spec_same_revision(const Model__ServiceSpec *a, const Model__ServiceSpec *b);
/* A unified diff in TOML form, for plans: empty when they are the same. */
int spec_diff(const Model__ServiceSpec *from, const Model__ServiceSpec *to, struct buf *out);
/* What happens when its container ends: a job's is never started again, whatever else is written. */
Model__RestartPolicy spec_restart(const Model__ServiceSpec *spec);
/* Binds a host port or a named volume: replaced stop-first. */
bool spec_binds_node_resource(const Model__ServiceSpec *spec);

/* ---- schema and reference, from the table ---- */

json_t *spec_json_schema_service(void); /* JSON Schema of one service as the API takes it */
json_t *spec_json_schema_job(void);
json_t *spec_json_schema_cluster(void);
int spec_reference_markdown(struct buf *to); /* docs/reference.md */

#endif
