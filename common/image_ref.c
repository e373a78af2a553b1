#include "common/image_ref.h"

#include <string.h>

static bool digest_valid(const char *s) {
  if (strncmp(s, "sha256:", 7) != 0 || strlen(s) != 71)
    return false;
  for (s += 7; *s; s++)
    if (!((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'f')))
      return false;
  return true;
}

bool image_ref_is_id(const char *text) {
  return digest_valid(text);
}

static int copy(char *to, size_t size, const char *from, size_t len) {
  if (len == 0 || len >= size)
    return -1;
  memcpy(to, from, len);
  to[len] = 0;
  return 0;
}

static bool all_of(const char *s, const char *extra) {
  for (; *s; s++)
    if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || strchr(extra, *s)))
      return false;
  return true;
}

int image_ref_parse(const char *text, struct image_ref *ret) {
  struct image_ref ref = {.tag = ""};
  const char *at = strchr(text, '@');
  const char *end = at ? at : text + strlen(text);
  if (at && (!digest_valid(at + 1) || copy(ref.digest, sizeof ref.digest, at + 1, strlen(at + 1)) < 0))
    return -1;
  const char *slash = memchr(text, '/', (size_t)(end - text));
  const char *path = text;
  /* The first part is a registry when it looks like a host: a dot, a port, or localhost. */
  if (slash) {
    size_t len = (size_t)(slash - text);
    if (memchr(text, '.', len) || memchr(text, ':', len) || (len == 9 && memcmp(text, "localhost", 9) == 0)) {
      if (copy(ref.registry, sizeof ref.registry, text, len) < 0)
        return -1;
      path = slash + 1;
    }
  }
  const char *colon = memchr(path, ':', (size_t)(end - path));
  if (copy(ref.path, sizeof ref.path, path, (size_t)((colon ? colon : end) - path)) < 0)
    return -1;
  if (colon && copy(ref.tag, sizeof ref.tag, colon + 1, (size_t)(end - colon - 1)) < 0)
    return -1;
  if (!colon && !at)
    memcpy(ref.tag, "latest", sizeof "latest");
  if (!*ref.registry) {
    memcpy(ref.registry, "docker.io", sizeof "docker.io");
    if (!strchr(ref.path, '/')) {
      size_t len = strlen(ref.path);
      if (len + sizeof "library/" > sizeof ref.path)
        return -1;
      memmove(ref.path + 8, ref.path, len + 1);
      memcpy(ref.path, "library/", 8);
    }
  } else if (strcmp(ref.registry, "index.docker.io") == 0) {
    memcpy(ref.registry, "docker.io", sizeof "docker.io");
  }
  for (const char *c = ref.path; *c; c++)
    if (*c >= 'A' && *c <= 'Z')
      return -1;
  if (strspn(ref.registry, ".-:") || strspn(ref.path, "._-") || strspn(ref.tag, ".-") || strstr(ref.path, "/.") || strstr(ref.path, "/-"))
    return -1;
  if (!all_of(ref.registry, ".-:[]") || !all_of(ref.path, "._-/") || !all_of(ref.tag, "._-") || ref.path[0] == '/' || strstr(ref.path, "//"))
    return -1;
  *ret = ref;
  return 0;
}

bool image_ref_floats(const char *text) {
  struct image_ref ref;
  return image_ref_parse(text, &ref) == 0 && !*ref.digest && strcmp(ref.tag, "latest") == 0;
}

bool image_ref_same_repository(const char *a, const char *b) {
  struct image_ref ra, rb;
  return image_ref_parse(a, &ra) == 0 && image_ref_parse(b, &rb) == 0 && strcmp(ra.registry, rb.registry) == 0 && strcmp(ra.path, rb.path) == 0;
}
