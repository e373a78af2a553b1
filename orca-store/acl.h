/* Who may read and write what in the store. A caller's CURVE key says its role: the .pub file of that name in key_dir.
 * Every key has one writing daemon (proto/model.proto); this is where that is enforced.
 * Pure but for acl_load(). Threads: read-only after loading. */
#ifndef ORCA_STORE_ACL_H
#define ORCA_STORE_ACL_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/bus/bus.h"
#include "common/err.h"

#define ACL_ROLES(X)                                                                                                                                 \
  X(ACL_APISERVER, "apiserver")                                                                                                                      \
  X(ACL_SCHEDULER, "scheduler")                                                                                                                      \
  X(ACL_ADMIN, "admin")

enum acl_role {
#define X(id, name) id,
  ACL_ROLES(X)
#undef X
      ACL_ROLE_COUNT
};

struct acl {
  char keys[ACL_ROLE_COUNT][BUS_KEY_LEN + 1]; /* "" where there is no such file */
};

/* Reads NAME.pub of every role from dir; a missing one just keeps that role out. ERR_NOT_FOUND when there is none at all. */
int acl_load(struct acl *acl, const char *dir, struct err *err);
bool acl_find(const struct acl *acl, const char *public_key, enum acl_role *ret);
const char *acl_role_name(enum acl_role role);

/* [key, end) as in store.proto. ERR_DENIED names the key. */
int acl_check_read(enum acl_role role, const ProtobufCBinaryData *key, const ProtobufCBinaryData *end, struct err *err);
int acl_check_write(enum acl_role role, const ProtobufCBinaryData *key, const ProtobufCBinaryData *end, struct err *err);
bool acl_may_operate(enum acl_role role); /* compact, snapshots, other people's leases */

#endif
