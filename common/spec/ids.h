/* Keys of the store and names of instances, in one place (proto/model.proto has the table).
 * Threads: pure functions. */
#ifndef ORCA_COMMON_SPEC_IDS_H
#define ORCA_COMMON_SPEC_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_CLUSTER "/cluster"
#define KEY_WANTED "/wanted"
#define KEY_SERVICES "/services/"
#define KEY_REVISIONS "/revisions/"
#define KEY_REVISION_STATUS "/revision-status/"
#define KEY_FILES "/files/"
#define KEY_JOBS "/jobs/"
#define KEY_JOB_STATE "/job-state/"
#define KEY_JOB_RUNS "/job-runs/"
#define KEY_SECRETS "/secrets/"
#define KEY_TOKENS "/tokens/"
#define KEY_AUDIT "/audit/"
#define KEY_NODES "/nodes/"
#define KEY_NODE_STATUS "/node-status/"
#define KEY_INSTANCES "/instances/"
#define KEY_INSTANCE_STATUS "/instance-status/"
#define KEY_ROLLOUTS "/rollouts/"
#define KEY_SCHEDULER_LEADER "/leader/scheduler"
#define KEY_HISTORY "/history/"
#define KEY_HISTORY_APISERVER "/history/apiserver/"
#define KEY_HISTORY_SCHEDULER "/history/scheduler/"

#define KEY_MAX 256 /* a buffer for any key */
#define INSTANCE_ID_MAX 160

/* PREFIX PROJECT/NAME */
void key_service(char out[KEY_MAX], const char *prefix, const char *project, const char *name);
/* PREFIX PROJECT/NAME/NUMBER, the number in ten digits: revisions and instances */
void key_numbered(char out[KEY_MAX], const char *prefix, const char *project, const char *name, uint64_t number);
/* PREFIX NAME */
void key_named(char out[KEY_MAX], const char *prefix, const char *name);
/* PREFIX TIME-SEQ, in byte order by time */
void key_event(char out[KEY_MAX], const char *prefix, int64_t ms, uint32_t seq);

#define SPEC_SECRET_NAME_MAX 128
/* A letter or _, then letters, digits, _ . - */
bool spec_secret_name_valid(const char *name, size_t len);
/* project "": the global scope, which no project can be named like. */
void key_secret(char out[KEY_MAX], const char *project, const char *name);

/* "shop/api.3" */
void instance_id(char out[INSTANCE_ID_MAX], const char *project, const char *service, uint64_t number);
/* The reverse; project and service get at most 64 bytes each. false when it is not one. */
bool instance_id_parse(const char *id, char project[64], char service[64], uint64_t *number);

#endif
