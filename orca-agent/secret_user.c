#include "orca-agent/secret_user.h"

#include <stdbool.h>
#include <string.h>

#define BLOCK 512u
#define UID_LIMIT UINT64_C(4294967295) /* (uid_t)-1 means "leave it" to chown */

static bool number(const char *text, size_t len, uid_t *ret) {
  uint64_t n = 0;
  if (!len || len > 10)
    return false;
  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9')
      return false;
    n = n * 10 + (uint64_t)(text[i] - '0');
  }
  if (n >= UID_LIMIT)
    return false;
  *ret = (uid_t)n;
  return true;
}

enum secret_user secret_user_parse(const char *user, uid_t *ret_uid, char name[64]) {
  size_t len = strcspn(user, ":");
  *ret_uid = 0;
  if (!len && !*user)
    return SECRET_USER_NUMBER; /* root */
  if (number(user, len, ret_uid))
    return SECRET_USER_NUMBER;
  if (!len || len >= 64)
    return SECRET_USER_BAD;
  memcpy(name, user, len);
  name[len] = 0;
  return SECRET_USER_NAME;
}

/* POSIX ustar: size in octal at 124, type at 156. */
static bool header(const uint8_t *block, size_t *ret_size, uint8_t *ret_type) {
  size_t size = 0;
  for (size_t i = 124; i < 136 && block[i] && block[i] != ' '; i++) {
    if (block[i] < '0' || block[i] > '7')
      return false;
    size = size * 8 + (block[i] - '0');
  }
  *ret_size = size;
  *ret_type = block[156];
  return true;
}

static bool is_user(const char *line, size_t len, const char *name, uid_t *ret) {
  size_t name_len = strlen(name);
  if (len <= name_len || memcmp(line, name, name_len) != 0 || line[name_len] != ':')
    return false;
  const char *second = memchr(line + name_len + 1, ':', len - name_len - 1);
  const char *third = second ? memchr(second + 1, ':', len - (size_t)(second + 1 - line)) : NULL;
  return third && number(second + 1, (size_t)(third - second - 1), ret);
}

static int find_user(const char *text, size_t len, const char *name, uid_t *ret) {
  while (len) {
    const char *end = memchr(text, '\n', len);
    size_t line = end ? (size_t)(end - text) : len;
    if (is_user(text, line, name, ret))
      return 0;
    text += line + (end != NULL);
    len -= line + (end != NULL);
  }
  return -1;
}

int secret_user_in_archive(const uint8_t *tar, size_t len, const char *name, uid_t *ret_uid) {
  if (!*name)
    return -1;
  for (size_t at = 0; len - at >= BLOCK && at < len;) {
    size_t size;
    uint8_t type;
    if (!header(tar + at, &size, &type) || size > len - at - BLOCK)
      return -1;
    at += BLOCK;
    if (type == '0' || type == 0)
      return find_user((const char *)tar + at, size, name, ret_uid);
    if (type != 'x' && type != 'g') /* pax headers go before the file; a link, a folder, a device is none */
      return -1;
    size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    if (padded > len - at)
      return -1;
    at += padded;
  }
  return -1;
}
