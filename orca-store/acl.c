#include "orca-store/acl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "orca-store/kv.h"

static const char *const role_names[] = {
#define X(id, name) [id] = name,
    ACL_ROLES(X)
#undef X
};

/* Prefixes; "" is everything. One ending in NULL each. */
static const char *const *const may_read[ACL_ROLE_COUNT] = {
    [ACL_APISERVER] = (const char *const[]){"", NULL},
    [ACL_SCHEDULER] =
        (const char *const[]){"/services/", "/revisions/", "/revision-status/", "/nodes/", "/node-status/", "/instances/", "/instance-status/",
                              "/rollouts/", "/jobs/", "/job-state/", "/job-runs/", "/cluster", "/leader/", "/history/scheduler/", NULL},
    [ACL_ADMIN] = (const char *const[]){"", NULL},
};

static const char *const *const may_write[ACL_ROLE_COUNT] = {
    [ACL_APISERVER] =
        (const char *const[]){"/cluster", "/wanted", "/services/", "/revisions/", "/revision-status/", "/files/", "/jobs/", "/secrets/", "/certs/",
                              "/tokens/", "/audit/", "/nodes/", "/node-status/", "/instance-status/", "/history/apiserver/", NULL},
    [ACL_SCHEDULER] =
        (const char *const[]){"/instances/", "/rollouts/", "/job-state/", "/job-runs/", "/leader/scheduler", "/history/scheduler/", NULL},
    [ACL_ADMIN] = (const char *const[]){"", NULL},
};

const char *acl_role_name(enum acl_role role) {
  return role_names[role];
}

static int read_key(const char *dir, const char *name, char out[BUS_KEY_LEN + 1], struct err *err) {
  char path[4096];
  int n = snprintf(path, sizeof path, "%s/%s.pub", dir, name);
  if (n < 0 || (size_t)n >= sizeof path)
    return err_set(err, ERR_INVALID, "path too long: %s", dir);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return errno == ENOENT ? 0 : err_errno(err, errno, "%s", path);
  char text[BUS_KEY_LEN + 2];
  ssize_t got = read(fd, text, sizeof text);
  int e = errno;
  close(fd);
  if (got < 0)
    return err_errno(err, e, "%s", path);
  if (got && text[got - 1] == '\n')
    got--;
  if (got != BUS_KEY_LEN)
    return err_set(err, ERR_INVALID, "%s is not a public key: %d characters of Z85", path, BUS_KEY_LEN);
  memcpy(out, text, BUS_KEY_LEN);
  out[BUS_KEY_LEN] = 0;
  return 1;
}

int acl_load(struct acl *acl, const char *dir, struct err *err) {
  struct acl loaded = {0};
  int found = 0;
  for (int r = 0; r < ACL_ROLE_COUNT; r++) {
    int rc = read_key(dir, role_names[r], loaded.keys[r], err);
    if (rc < 0)
      return -1;
    found += rc;
  }
  if (!found)
    return err_set(err, ERR_NOT_FOUND, "%s has none of apiserver.pub, scheduler.pub, admin.pub: nobody could speak to the store", dir);
  *acl = loaded;
  return 0;
}

bool acl_find(const struct acl *acl, const char *public_key, enum acl_role *ret) {
  for (int r = 0; r < ACL_ROLE_COUNT; r++)
    if (acl->keys[r][0] && strcmp(acl->keys[r], public_key) == 0) {
      *ret = (enum acl_role)r;
      return true;
    }
  return false;
}

static bool within(const char *prefix, const struct kv_bounds *b) {
  size_t n = strlen(prefix);
  if (n == 0)
    return true;
  if (b->start.len < n || memcmp(b->start.data, prefix, n) != 0)
    return false;
  if (b->single)
    return true;
  if (b->unbounded)
    return false;
  /* The end may be as far as the first key behind the prefix. No prefix ends in 0xff. */
  char after[64];
  memcpy(after, prefix, n);
  after[n - 1]++;
  return kv_compare_keys(b->end.data, b->end.len, after, n) <= 0;
}

static int check(const char *const *prefixes, enum acl_role role, const char *verb, const ProtobufCBinaryData *key, const ProtobufCBinaryData *end,
                 struct err *err) {
  static const ProtobufCBinaryData none = {0, NULL};
  struct kv_bounds b = kv_bounds(key, end ? end : &none);
  for (; *prefixes; prefixes++)
    if (within(*prefixes, &b))
      return 0;
  char text[129];
  size_t n = key->len < 128 ? key->len : 128;
  for (size_t i = 0; i < n; i++)
    text[i] = key->data[i] >= 0x20 && key->data[i] < 0x7f ? (char)key->data[i] : '?';
  text[n] = 0;
  return err_set(err, ERR_DENIED, "%s may not %s %s%s", role_names[role], verb, text, b.single ? "" : " and what follows it");
}

int acl_check_read(enum acl_role role, const ProtobufCBinaryData *key, const ProtobufCBinaryData *end, struct err *err) {
  return check(may_read[role], role, "read", key, end, err);
}

int acl_check_write(enum acl_role role, const ProtobufCBinaryData *key, const ProtobufCBinaryData *end, struct err *err) {
  return check(may_write[role], role, "write", key, end, err);
}

bool acl_may_operate(enum acl_role role) {
  return role == ACL_ADMIN;
}
