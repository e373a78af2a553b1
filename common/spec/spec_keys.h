/* What rows of spec_keys.c need beyond the generic reader: spellings with a form of their own, and rules over several keys (spec_service.c).
 * Inside of common/spec only. */
#ifndef ORCA_COMMON_SPEC_SPEC_KEYS_H
#define ORCA_COMMON_SPEC_SPEC_KEYS_H

#include "common/spec/spec_table.h"
#include "proto/model.pb-c.h"

extern const struct spec_table spec_volume_table, spec_mount_table;

spec_read_fn spec_read_replicas, spec_read_ports, spec_read_domain, spec_read_health, spec_read_volumes, spec_read_mounts, spec_read_services;
spec_read_fn spec_read_token_hash;
spec_check_fn spec_check_token_value;
spec_write_fn spec_write_token_hash;
spec_write_fn spec_write_ports;
void spec_finish_resources(struct spec_reader *r, const struct toml_value *table, void *target);
void spec_finish_deploy(struct spec_reader *r, const struct toml_value *table, void *target);
void spec_finish_probe(struct spec_reader *r, const struct toml_value *table, void *target);
void spec_finish_service(struct spec_reader *r, const struct toml_value *table, void *target);
void spec_finish_job(struct spec_reader *r, const struct toml_value *table, void *target);
void spec_finish_api(struct spec_reader *r, const struct toml_value *table, void *target);
void spec_finish_token(struct spec_reader *r, const struct toml_value *table, void *target);
/* Values, once their references are filled in, become hashes; they are wiped also when they are refused. */
void spec_hash_tokens(struct spec_reader *r, Model__ClusterSpec *cluster);
void spec_finish_node(struct spec_reader *r, const struct toml_value *table, void *target);

#endif
