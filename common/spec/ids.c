#include "common/spec/ids.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys are made for every look into a table, where a format string costs more than the look: they are put together by hand. Cut at the end. */
struct text {
  char *at;
  const char *end;
};

static void add(struct text *t, const char *s) {
  size_t len = strnlen(s, (size_t)(t->end - t->at));
  memcpy(t->at, s, len);
  t->at += len;
  *t->at = 0;
}

static void add_number(struct text *t, uint64_t number, unsigned least) {
  char digits[24], *at = digits + sizeof digits;
  *--at = 0;
  for (unsigned n = 0; number || n < least; n++, number /= 10)
    *--at = (char)('0' + number % 10);
  add(t, at);
}

void key_service(char out[KEY_MAX], const char *prefix, const char *project, const char *name) {
  struct text t = {out, out + KEY_MAX - 1};
  add(&t, prefix);
  add(&t, project);
  add(&t, "/");
  add(&t, name);
}

void key_numbered(char out[KEY_MAX], const char *prefix, const char *project, const char *name, uint64_t number) {
  struct text t = {out, out + KEY_MAX - 1};
  add(&t, prefix);
  add(&t, project);
  add(&t, "/");
  add(&t, name);
  add(&t, "/");
  add_number(&t, number, 10);
}

void key_named(char out[KEY_MAX], const char *prefix, const char *name) {
  struct text t = {out, out + KEY_MAX - 1};
  add(&t, prefix);
  add(&t, name);
}

void key_event(char out[KEY_MAX], const char *prefix, int64_t ms, uint32_t seq) {
  snprintf(out, KEY_MAX, "%s%016" PRIx64 "-%08" PRIx32, prefix, (uint64_t)ms, seq);
}

void instance_id(char out[INSTANCE_ID_MAX], const char *project, const char *service, uint64_t number) {
  struct text t = {out, out + INSTANCE_ID_MAX - 1};
  add(&t, project);
  add(&t, "/");
  add(&t, service);
  add(&t, ".");
  add_number(&t, number, 1);
}

static bool copy_part(char out[64], const char *from, const char *to) {
  size_t len = (size_t)(to - from);
  if (len == 0 || len >= 64)
    return false;
  memcpy(out, from, len);
  out[len] = 0;
  return true;
}

bool instance_id_parse(const char *id, char project[64], char service[64], uint64_t *number) {
  const char *slash = strchr(id, '/');
  const char *dot = strrchr(id, '.');
  if (!slash || !dot || dot < slash || dot[1] < '0' || dot[1] > '9')
    return false;
  char *end;
  uint64_t n = strtoull(dot + 1, &end, 10);
  if (*end || !copy_part(project, id, slash) || !copy_part(service, slash + 1, dot))
    return false;
  *number = n;
  return true;
}

/* ---- secrets ---- */

static bool first_letter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

bool spec_secret_name_valid(const char *name, size_t len) {
  if (!len || len > SPEC_SECRET_NAME_MAX || !first_letter(name[0]))
    return false;
  for (size_t i = 1; i < len; i++)
    if (!first_letter(name[i]) && !(name[i] >= '0' && name[i] <= '9') && name[i] != '.' && name[i] != '-')
      return false;
  return true;
}

void key_secret(char out[KEY_MAX], const char *project, const char *name) {
  snprintf(out, KEY_MAX, KEY_SECRETS "%s/%s", *project ? project : "_", name);
}
